// Trajectories and bytes per second through a whole broker over its ipc socket: lease, upload, journal,
// acknowledge. Trajectories of 1,024 tokens, uploads of up to 64. The limit is the same bytes through
// a bare ROUTER/DEALER pair of the same adapter, measured in turns.
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <random>
#include <thread>

#include "broker/broker_loop.h"
#include "common/base/hash.h"
#include "common/net/peer_link.h"
#include "common/wire/records.h"
#include "tests/bench/bench_report.h"

namespace thresher::bench {
namespace {

constexpr int kRuns = 5, kTokens = 1024;
constexpr std::size_t kTrajectories = 8192, kUploadRecords = 64;

Config BenchConfig(const std::string& journal) {
  return ParseConfig("", "broker_bench",
                     {"supervised.steps=64", "supervised.batch=1024", "supervised.warmup_steps=0",
                      "broker.lookahead_steps=64", "rl.steps=0", "journal.mode=" + journal,
                      "actors.count=1", "eval.items=1"});
}

Trajectory MakeTrajectory(const TrajectoryId& id, const Config& config, const Hash128& identity) {
  static const std::vector<std::int32_t> tokens = [] {
    std::mt19937 random(1);
    std::vector<std::int32_t> out(kTokens);
    for (auto& t : out) t = static_cast<std::int32_t>(random() % 32000);
    return out;
  }();
  Trajectory t;
  t.id = id;
  t.group_size = 1;
  t.task = config.task.name;
  t.tokens = tokens;
  t.tokens[0] = static_cast<std::int32_t>(id.item % 30000);
  t.prompt_hash = HashTokens(t.tokens, 16);
  t.instance_hash = t.prompt_hash;
  t.segments = {{0, 16, Role::kPrompt, false}, {16, kTokens, Role::kPolicy, true}};
  t.finish = FinishReason::kReference;
  t.outcome.reason = "solved";
  t.run_identity = identity;
  return t;
}

// A broker on a thread over a fresh run directory.
class BrokerUnderTest {
 public:
  explicit BrokerUnderTest(const std::string& journal) : config_(BenchConfig(journal)) {
    std::string pattern = (std::filesystem::temp_directory_path() / "thresher-bench-XXXXXX").string();
    THRESHER_CHECK(mkdtemp(pattern.data()) != nullptr, "mkdtemp");
    run_ = pattern;
    std::ofstream(run_ / "manifest.json") << R"({"run_id": ")" << id().ToString() << "\"}";
    broker::BrokerOptions options;
    options.run = run_;
    auto loop = broker::BrokerLoop::Start(options, config_, SystemClock());
    THRESHER_CHECK(loop.ok(), loop.status().ToString());
    loop_ = std::move(loop).value();
    thread_ = std::jthread([this] { loop_->Run(); });
  }
  ~BrokerUnderTest() {
    loop_->Abandon();
    thread_.join();
    loop_.reset();
    net::RemoveSocketFolder(run_);
    std::error_code error;
    std::filesystem::remove_all(run_, error);
  }
  const Config& config() const { return config_; }
  const std::filesystem::path& run() const { return run_; }
  static Hash128 id() { return HashText128("broker bench"); }

 private:
  Config config_;
  std::filesystem::path run_;
  std::unique_ptr<broker::BrokerLoop> loop_;
  std::jthread thread_;
};

// One actor that answers every lease at once; returns accepted trajectories and bytes.
class Uploader {
 public:
  explicit Uploader(const BrokerUnderTest& broker) : config_(broker.config()) {
    identity_.backend = "bench";
    identity_.run_seed = config_.run.seed;
    net::PeerLinkOptions options;
    options.run_folder = broker.run().string();
    options.run_id = BrokerUnderTest::id();
    options.incarnation = NewIncarnation();
    link_ = std::make_unique<net::PeerLink>(
        options,
        [this] {
          wire::Hello hello;
          hello.identity = identity_;
          return hello;
        },
        [] { return wire::Heartbeat{}; }, [this](wire::Message m) { Handle(m); },
        [](Status status) { THRESHER_CHECK(false, status.ToString()); });
    link_->Start();
  }
  // Blocks until `count` are accepted; seconds from the first grant.
  double Wait(std::size_t count) {
    while (accepted_ < count) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - first_).count();
  }
  std::size_t accepted() const { return accepted_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void Ask() {
    wire::LeaseRequest request;
    request.request = ++requests_;
    request.max_samples = 1024;
    (void)link_->Post(request);
  }
  void Handle(const wire::Message& message) {
    if (std::holds_alternative<wire::Welcome>(message)) Ask();
    if (auto* grant = std::get_if<wire::LeaseGrant>(&message)) {
      if (!started_.exchange(true)) first_ = std::chrono::steady_clock::now();
      wire::Upload upload;
      for (const wire::Lease& lease : grant->leases) {
        upload.fences.push_back(lease.fence);
        upload.records.push_back(wire::EncodeTrajectory(
            MakeTrajectory({lease.stream, 0, lease.item, 0}, config_, identity_.Hash())));
        bytes_ += upload.records.back().size();
        if (upload.records.size() == kUploadRecords) Flush(upload);
      }
      Flush(upload);
      Ask();
    }
    if (auto* ack = std::get_if<wire::UploadAck>(&message)) {
      for (auto verdict : ack->verdicts) accepted_ += verdict == wire::UploadVerdict::kAccepted;
    }
  }
  void Flush(wire::Upload& upload) {
    if (upload.records.empty()) return;
    upload.upload = ++uploads_;
    (void)link_->Post(upload);
    upload = {};
  }

  Config config_;
  RunIdentity identity_;
  std::atomic<std::size_t> accepted_{0}, bytes_{0};
  std::atomic<bool> started_{false};
  std::chrono::steady_clock::time_point first_{};
  std::uint64_t requests_ = 0, uploads_ = 0;
  std::unique_ptr<net::PeerLink> link_;
};

// The same bytes in messages of the same size through ROUTER/DEALER alone; bytes per second.
double BareSocketBytesPerSecond(std::size_t message_bytes, std::size_t total_bytes) {
  std::string pattern = (std::filesystem::temp_directory_path() / "thresher-bench-XXXXXX").string();
  THRESHER_CHECK(mkdtemp(pattern.data()) != nullptr, "mkdtemp");
  net::ServerOptions server_options;
  server_options.endpoints = {"ipc://" + pattern + "/s"};
  auto server = net::Server::Bind(server_options);
  THRESHER_CHECK(server.ok(), server.status().ToString());
  const std::size_t messages = total_bytes / message_bytes + 1;
  double seconds = 0;
  {
    std::jthread sender([&] {
      net::ClientOptions client_options;
      client_options.endpoint = server_options.endpoints[0];
      auto client = net::Client::Connect(client_options);
      THRESHER_CHECK(client.ok(), client.status().ToString());
      std::string message(message_bytes, 'x');
      for (std::size_t i = 0; i < messages;) {
        if ((*client)->Send(message).ok()) {
          ++i;
        } else {
          (void)(*client)->Receive(std::chrono::milliseconds(1));
        }
      }
    });
    std::size_t received = 0;
    seconds = Seconds([&] {
      while (received < messages) {
        received += (*server)->Receive(std::chrono::milliseconds(100)).has_value();
      }
    });
  }
  std::error_code error;
  server->reset();
  std::filesystem::remove_all(pattern, error);
  return static_cast<double>(messages * message_bytes) / seconds;
}

int Main() {
  for (const char* journal : {"async", "durable"}) {
    Rates trajectories, bytes;
    for (int run = 0; run < kRuns; ++run) {
      BrokerUnderTest broker(journal);
      Uploader uploader(broker);
      double seconds = uploader.Wait(kTrajectories);
      double size = static_cast<double>(uploader.bytes()) / static_cast<double>(uploader.accepted());
      double limit = BareSocketBytesPerSecond(
          static_cast<std::size_t>(size) * kUploadRecords, uploader.bytes());
      trajectories.rate.push_back(static_cast<double>(uploader.accepted()) / seconds);
      trajectories.limit.push_back(limit / size);
      bytes.rate.push_back(trajectories.rate.back() * size);
      bytes.limit.push_back(limit);
    }
    std::string name = std::string("broker, journal ") + journal;
    std::string limit = "the same bytes through bare ROUTER/DEALER";
    std::cout << Describe(name, "trajectories/s of 1,024 tokens", limit, trajectories) << "\n"
              << Describe(name, "bytes/s", limit, bytes) << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace thresher::bench

int main() { return thresher::bench::Main(); }
