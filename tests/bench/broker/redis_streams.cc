// redis-streams SOCKET RECORDS RECORD_BYTES WINDOW SECONDS: producers and a consumer of one Redis
// stream; see README.md. A producer has WINDOW pipelines of RECORDS XADDs on their way; the
// consumer reads RECORDS with each XREADGROUP, acknowledges and deletes them.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/check.h"
#include "tests/bench/broker/meter.h"

namespace thresher::bench {
namespace {

using Clock = Meter::Clock;

// One connection that speaks RESP.
class Redis {
 public:
  explicit Redis(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    THRESHER_CHECK(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0,
                   path);
  }
  ~Redis() { ::close(fd_); }

  static void Append(std::string& out, const std::vector<std::string_view>& words) {
    out += "*" + std::to_string(words.size()) + "\r\n";
    for (std::string_view word : words) {
      out += "$" + std::to_string(word.size()) + "\r\n";
      out.append(word);
      out += "\r\n";
    }
  }
  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      THRESHER_CHECK(sent > 0, "send");
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  // One reply; texts of bulk strings go to `texts`, long ones only by their length.
  void Reply(std::vector<std::string>* texts = nullptr) {
    const std::string line = Line();
    const char kind = line.at(0);
    THRESHER_CHECK(kind != '-', line);
    if (kind != '$' && kind != '*') return;
    const long count = std::stol(line.substr(1));
    if (kind == '*') {
      for (long i = 0; i < count; ++i) Reply(texts);
    } else if (count >= 0) {
      Need(static_cast<std::size_t>(count) + 2);
      if (texts != nullptr) {
        texts->push_back(count < 64 ? buffer_.substr(at_, static_cast<std::size_t>(count)) : "");
      }
      at_ += static_cast<std::size_t>(count) + 2;
    }
  }

 private:
  void Need(std::size_t bytes) {
    while (buffer_.size() - at_ < bytes) Read();
  }
  std::string Line() {
    std::size_t end;
    while ((end = buffer_.find("\r\n", at_)) == std::string::npos) Read();
    std::string line = buffer_.substr(at_, end - at_);
    at_ = end + 2;
    return line;
  }
  void Read() {
    if (at_ > (1u << 20) || at_ == buffer_.size()) {
      buffer_.erase(0, at_);
      at_ = 0;
    }
    const std::size_t old = buffer_.size();
    buffer_.resize(old + (256u << 10));
    const ssize_t got = ::recv(fd_, buffer_.data() + old, 256u << 10, 0);
    THRESHER_CHECK(got > 0, "recv");
    buffer_.resize(old + static_cast<std::size_t>(got));
  }

  int fd_;
  std::string buffer_;
  std::size_t at_ = 0;
};

int Main(const std::string& path, const std::vector<std::string>& words) {
  const std::size_t records = std::stoul(words.at(0)), bytes = std::stoul(words.at(1));
  const std::size_t window = std::stoul(words.at(2));
  const double seconds = std::stod(words.at(3));
  Redis producer(path);
  std::string text;
  Redis::Append(text, {"XGROUP", "CREATE", "s", "g", "$", "MKSTREAM"});
  producer.Send(text);
  producer.Reply();
  std::atomic<std::uint64_t> read{0};
  std::jthread consumer([&](const std::stop_token& stop) {
    Redis redis(path);
    const std::string count = std::to_string(records);
    std::string ask;
    Redis::Append(ask, {"XREADGROUP", "GROUP", "g", "c", "COUNT", count, "BLOCK", "100", "STREAMS",
                        "s", ">"});
    while (!stop.stop_requested()) {
      redis.Send(ask);
      std::vector<std::string> texts;
      redis.Reply(&texts);
      std::vector<std::string_view> ids;  // stream name, then id, field, value of each
      for (std::size_t i = 1; i < texts.size(); i += 3) ids.push_back(texts[i]);
      if (ids.empty()) continue;
      std::vector<std::string_view> done = {"XACK", "s", "g"}, gone = {"XDEL", "s"};
      done.insert(done.end(), ids.begin(), ids.end());
      gone.insert(gone.end(), ids.begin(), ids.end());
      std::string both;
      Redis::Append(both, done);
      Redis::Append(both, gone);
      redis.Send(both);
      redis.Reply();
      redis.Reply();
      read += ids.size();
    }
  });
  const std::string value(bytes, 'x');
  std::string pipeline;
  for (std::size_t i = 0; i < records; ++i) Redis::Append(pipeline, {"XADD", "s", "*", "r", value});
  std::vector<Clock::time_point> sent;
  auto send = [&] {
    sent.push_back(Clock::now());
    producer.Send(pipeline);
  };
  Meter meter(seconds, read);
  for (std::size_t i = 0; i < window; ++i) send();
  while (meter.GoesOn()) {
    for (std::size_t i = 0; i < records; ++i) producer.Reply();
    meter.Answered(sent.front(), records);
    sent.erase(sent.begin());
    send();
  }
  meter.Print("trajectories");
  return 0;
}

}  // namespace
}  // namespace thresher::bench

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  return thresher::bench::Main(argv[1], {argv + 2, argv + argc});
}
