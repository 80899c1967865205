// broker-load: load for a real broker, and a broker under simulated load; see README.md.
//   broker-load init RUN [KEY=VALUE]...
//   broker-load peers RUN TOKENS ACTORS OUTSTANDING SECONDS [ENDPOINT]
//       prints "begin" after a second, and after SECONDS more what passed, as JSON
//   broker-load simulated RUN TOKENS ACTORS OUTSTANDING TRAJECTORIES
//       a broker in this process whose actors are as many objects; a line of JSON for each tenth
#include <time.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "broker/broker_loop.h"
#include "broker/freed_memory.h"
#include "common/net/socket.h"
#include "tests/bench/broker/load_peers.h"

namespace thresher::bench {
namespace {

using std::chrono::milliseconds;
using Json = nlohmann::json;

double CpuSeconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double Quantile(const std::vector<float>& sorted, double q) {
  if (sorted.empty()) return 0;
  return sorted[static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1))];
}

int Init(const std::filesystem::path& run, const std::vector<std::string>& overrides) {
  std::filesystem::create_directories(run / "logs");
  std::ofstream(run / "config.yaml") << ResolvedYaml(BenchConfig(overrides));
  std::ofstream(run / "manifest.json") << R"({"run_id": ")" << BenchRunId().ToString() << "\"}\n";
  return 0;
}

std::unique_ptr<net::Client> Dial(const std::filesystem::path& run, std::string endpoint,
                                  bool learner) {
  const net::Rendezvous rendezvous = net::ReadRendezvous(run).value();
  net::ClientOptions options;
  options.endpoint = endpoint.empty() ? rendezvous.endpoints.front() : endpoint;
  if (!endpoint.empty()) {
    const net::KeyRing keys = net::LoadOrCreateKeys(run / "keys").value();
    options.own_key = learner ? keys.learner : keys.actor;
    options.server_public_key = keys.broker.public_key;
  }
  return net::Client::Connect(options).value();
}

// What can be done without waiting; whether anything was.
bool Turn(LoadPeer& peer, net::Client& client, milliseconds wait) {
  bool any = false;
  peer.Tick(BenchClock::now());
  while (!peer.outgoing().empty()) {
    if (!client.Send(peer.outgoing().front()).ok()) break;
    peer.outgoing().pop_front();
  }
  for (int i = 0; i < 16; ++i) {
    std::optional<SharedBytes> bytes = client.Receive(any ? milliseconds(0) : wait);
    if (!bytes) break;
    peer.OnFrame(*bytes);
    any = true;
  }
  return any;
}

int Peers(const std::filesystem::path& run, const std::vector<std::string>& words) {
  const Config config = LoadConfig(run / "config.yaml", {});
  const auto tokens = static_cast<std::uint32_t>(std::stoul(words.at(0)));
  const std::size_t count = std::stoul(words.at(1));
  const auto outstanding = static_cast<std::uint32_t>(std::stoul(words.at(2)));
  const double seconds = std::stod(words.at(3));
  const std::string endpoint = words.size() > 4 ? words[4] : "";

  std::atomic<std::uint64_t> learned{0};
  std::jthread learner([&](const std::stop_token& stop) {
    LoadLearner peer(config);
    auto client = Dial(run, endpoint, true);
    while (!stop.stop_requested()) {
      Turn(peer, *client, milliseconds(20));
      learned = peer.records();
    }
  });
  std::vector<std::unique_ptr<LoadActor>> actors;
  std::vector<std::unique_ptr<net::Client>> clients;
  for (std::size_t i = 0; i < count; ++i) {
    actors.push_back(
        std::make_unique<LoadActor>(config, static_cast<std::uint32_t>(i), tokens, outstanding));
    clients.push_back(Dial(run, endpoint, false));
  }
  std::uint64_t accepted = 0, learned_before = 0;
  std::vector<float> latencies;
  auto sum = [&] {
    std::uint64_t all = 0;
    for (auto& actor : actors) all += actor->accepted();
    return all;
  };
  const auto begin = BenchClock::now() + std::chrono::seconds(1);
  auto end = begin + std::chrono::duration_cast<BenchClock::duration>(
                         std::chrono::duration<double>(seconds));
  bool begun = false;
  std::size_t quiet = 0;
  for (auto now = BenchClock::now(); now < end; now = BenchClock::now()) {
    if (!begun && now >= begin) {
      begun = true;
      accepted = sum();
      learned_before = learned;
      for (auto& actor : actors) actor->latencies().clear();
      std::printf("begin\n");
      std::fflush(stdout);
    }
    bool any = false;
    for (std::size_t i = 0; i < count; ++i) any |= Turn(*actors[i], *clients[i], milliseconds(0));
    if (!any) Turn(*actors[quiet % count], *clients[quiet % count], milliseconds(1)), ++quiet;
  }
  const std::uint64_t passed = sum() - accepted;
  std::uint64_t refused = 0;
  for (auto& actor : actors) {
    refused += actor->refused();
    latencies.insert(latencies.end(), actor->latencies().begin(), actor->latencies().end());
  }
  std::sort(latencies.begin(), latencies.end());
  const Json report = {{"trajectories", passed},
                       {"seconds", seconds},
                       {"record_bytes", actors.front()->record_bytes()},
                       {"learned", learned - learned_before},
                       {"refused", refused},
                       {"uploads", latencies.size()},
                       {"latency_us",
                        {{"p50", Quantile(latencies, 0.5)},
                         {"p99", Quantile(latencies, 0.99)},
                         {"p99.9", Quantile(latencies, 0.999)}}}};
  std::printf("%s\n", report.dump().c_str());
  std::fflush(stdout);
  return 0;
}

// A network of one broker and objects in its own process. Counts the time that they take.
class ObjectNetwork : public net::Transport {
 public:
  ObjectNetwork(const Config& config, std::uint32_t tokens, std::size_t actors,
                std::uint32_t outstanding) {
    for (std::size_t i = 0; i < actors; ++i) {
      actors_.push_back(
          std::make_unique<LoadActor>(config, static_cast<std::uint32_t>(i), tokens, outstanding));
      peers_.push_back(actors_.back().get());
    }
    learner_ = std::make_unique<LoadLearner>(config);
    peers_.push_back(learner_.get());
    for (std::size_t i = 0; i < peers_.size(); ++i) Collect(i);
  }
  Result<std::unique_ptr<net::Server>> Bind(const net::ServerOptions&) override {
    return std::unique_ptr<net::Server>(std::make_unique<Socket>(*this));
  }
  Result<std::unique_ptr<net::Client>> Connect(const net::ClientOptions&) override {
    return Unavailable("no clients here");
  }
  double own_cpu() const { return own_cpu_; }
  std::uint64_t accepted() const { return accepted_; }
  std::uint64_t messages() const { return messages_; }  // to the broker, and from it
  std::size_t record_bytes() const { return actors_.front()->record_bytes(); }
  std::function<void()> after_work;

 private:
  class Socket : public net::Server {
   public:
    explicit Socket(ObjectNetwork& network) : network_(network) {}
    std::vector<std::string> endpoints() const override { return {"ipc:///objects"}; }
    std::optional<net::Received> Receive(milliseconds timeout) override {
      return network_.Receive(timeout);
    }
    Status Send(const net::PeerAddress& peer, SharedBytes bytes) override {
      network_.Deliver(peer, bytes);
      return Status::Ok();
    }
    std::uint64_t malformed() const override { return 0; }
    std::uint64_t refused() const override { return 0; }
    void Wake() override {
      std::lock_guard lock(network_.mutex_);
      network_.woken_ = true;
      network_.wake_.notify_all();
    }

   private:
    ObjectNetwork& network_;
  };

  void Collect(std::size_t peer) {
    auto& outgoing = peers_[peer]->outgoing();
    for (; !outgoing.empty(); outgoing.pop_front()) {
      frames_.push_back({std::to_string(peer), "local", std::move(outgoing.front())});
    }
  }
  std::optional<net::Received> Receive(milliseconds timeout) {
    if (frames_.empty() || delivered_.size() >= kTogether || BenchClock::now() >= next_tick_) {
      LetObjectsWork();
    }
    if (frames_.empty() && timeout.count() > 0) {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, std::min(timeout, milliseconds(5)), [&] { return woken_; });
      woken_ = false;
    }
    if (frames_.empty()) return std::nullopt;
    net::Received received = std::move(frames_.front());
    frames_.pop_front();
    ++messages_;
    return received;
  }
  // Many frames at a time, for reading the clock of a thread is a system call.
  void LetObjectsWork() {
    const double begun = CpuSeconds(CLOCK_THREAD_CPUTIME_ID);
    if (const auto now = BenchClock::now(); now >= next_tick_) {
      next_tick_ = now + milliseconds(10);
      for (std::size_t i = 0; i < peers_.size() / 100 + 1; ++i) {  // all of them within a second
        ticked_ = (ticked_ + 1) % peers_.size();
        peers_[ticked_]->Tick(now);
        Collect(ticked_);
      }
    }
    std::swap(delivered_, working_on_);
    for (const auto& [peer, bytes] : working_on_) {
      const std::uint64_t before = peer < actors_.size() ? actors_[peer]->accepted() : 0;
      peers_[peer]->OnFrame(bytes);
      if (peer < actors_.size()) accepted_ += actors_[peer]->accepted() - before;
      Collect(peer);
    }
    working_on_.clear();
    own_cpu_ += CpuSeconds(CLOCK_THREAD_CPUTIME_ID) - begun;
    after_work();
  }
  void Deliver(const std::string& address, const SharedBytes& bytes) {
    delivered_.emplace_back(std::stoul(address), bytes);
    ++messages_;
  }

  static constexpr std::size_t kTogether = 64;

  std::vector<std::unique_ptr<LoadActor>> actors_;
  std::unique_ptr<LoadLearner> learner_;
  std::vector<LoadPeer*> peers_;
  std::deque<net::Received> frames_;                                         // to the broker
  std::vector<std::pair<std::size_t, SharedBytes>> delivered_, working_on_;  // from it
  std::size_t ticked_ = 0;
  BenchClock::time_point next_tick_{};
  double own_cpu_ = 0;
  std::uint64_t accepted_ = 0, messages_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false;
};

int Simulated(const std::filesystem::path& run, const std::vector<std::string>& words) {
  broker::KeepFreedMemory();  // as the program does
  const Config config = LoadConfig(run / "config.yaml", {});
  const std::uint64_t total = std::stoull(words.at(3));
  ObjectNetwork network(config, static_cast<std::uint32_t>(std::stoul(words.at(0))),
                        std::stoul(words.at(1)),
                        static_cast<std::uint32_t>(std::stoul(words.at(2))));
  net::SubstituteTransport(&network);
  broker::BrokerOptions options;
  options.run = run;
  options.http = "none";
  auto loop = broker::BrokerLoop::Start(options, config, SystemClock());
  THRESHER_CHECK(loop.ok(), loop.status().ToString());
  struct Cpu {
    double loop, objects, process;
  };
  auto cpu = [&] {
    return Cpu{CpuSeconds(CLOCK_THREAD_CPUTIME_ID), network.own_cpu(),
               CpuSeconds(CLOCK_PROCESS_CPUTIME_ID)};
  };
  Cpu before = cpu();
  std::uint64_t counted = 0, counted_messages = 0;
  auto begun = BenchClock::now();
  network.after_work = [&] {
    if (network.accepted() < counted + total / 10) return;
    const Cpu now = cpu();
    const double n = static_cast<double>(network.accepted() - counted);
    const double loop_us = 1e6 * (now.loop - before.loop - now.objects + before.objects) / n;
    const double beside_us = 1e6 * (now.process - before.process - now.loop + before.loop) / n;
    const std::chrono::duration<double> wall = BenchClock::now() - begun;
    const Json report = {
        {"trajectories", network.accepted()},
        {"record_bytes", network.record_bytes()},
        {"loop_us", loop_us},
        {"writer_us", beside_us},
        {"messages_each", static_cast<double>(network.messages() - counted_messages) / n},
        {"per_second", n / wall.count()}};
    std::printf("%s\n", report.dump().c_str());
    std::fflush(stdout);
    counted = network.accepted();
    counted_messages = network.messages();
    before = now;
    begun = BenchClock::now();
    if (counted >= total) (*loop)->Abandon();
  };
  (*loop)->Run();
  loop->reset();
  net::SubstituteTransport(nullptr);
  return 0;
}

int Main(const std::string& what, const std::filesystem::path& run,
         const std::vector<std::string>& words) {
  if (what == "init") return Init(run, words);
  if (what == "peers") return Peers(run, words);
  if (what == "simulated") return Simulated(run, words);
  std::fprintf(stderr, "broker-load: init|peers|simulated RUN ...\n");
  return 2;
}

}  // namespace
}  // namespace thresher::bench

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  return thresher::bench::Main(argv[1], argv[2], {argv + 3, argv + argc});
}
