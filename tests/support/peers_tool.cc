// peers-tool: peers of a real broker that do not compute, and some that do not behave, for tests of
// load (tests/fault).
//   peers-tool RUN init [KEY=VALUE]...     a run directory for such peers
//   peers-tool RUN actors COUNT [LIFE_MS]  that many; each dies after LIFE_MS and comes back
//   peers-tool RUN learner [STEP_MS]       trains at most a step each STEP_MS
//   peers-tool RUN flood SLOT BYTES        an actor that sends what nobody asked for, without a
//   pause
// The last three go on until the run is over; flood, until it is killed.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "common/wire/frame.h"
#include "tests/unit/broker/fake_peers.h"

namespace thresher {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kFloodUploads = 16;

Hash128 RunId() { return HashText128("peers-tool"); }

int Init(const std::filesystem::path& run, const std::vector<std::string>& overrides) {
  std::filesystem::create_directories(run / "logs");
  const Config config = broker::TinyConfig(overrides);
  std::ofstream(run / "config.yaml") << ResolvedYaml(config);
  std::ofstream(run / "manifest.json") << R"({"run_id": ")" << RunId().ToString() << "\"}\n";
  return 0;
}

int Actors(const std::filesystem::path& run, const Config& config, int count, milliseconds life) {
  std::vector<std::jthread> threads;
  for (int slot = 0; slot < count; ++slot) {
    threads.emplace_back([&, slot] {
      std::this_thread::sleep_for(life * slot / count);  // not all of them at the same moment
      bool over = false;
      while (!over) {
        broker::FakeActor actor(config, run, RunId(), static_cast<std::uint32_t>(slot));
        over = actor.WaitUntilOver(life);
      }
    });
  }
  return 0;
}

int Learner(const std::filesystem::path& run, const Config& config, milliseconds step) {
  broker::FakeLearnerOptions options;
  options.step_time = step;
  broker::FakeLearner learner(config, run, RunId(), options);
  learner.WaitUntilOver();
  return 0;
}

// Heartbeats as well, or its leases would tell on it; it never reads an answer.
int Flood(const std::filesystem::path& run, const Config& config, std::uint32_t slot,
          std::size_t bytes) {
  net::ClientOptions options;
  options.endpoint = net::ReadRendezvous(run)->endpoints.front();
  auto client = net::Client::Connect(options).value();
  const Incarnation incarnation = NewIncarnation();
  std::uint64_t sequence = 0;
  const auto frame = [&](const wire::Message& message) {
    return wire::EncodeFrame({RunId(), incarnation, ++sequence}, message).value();
  };
  wire::Hello hello;
  hello.index = slot;
  hello.name = "flood";
  hello.identity = broker::TestIdentity(config);
  (void)client->Send(frame(hello)).ok();
  wire::Upload upload;
  upload.fences = {FencingToken(1)};
  Trajectory t = broker::MakeTrajectory(config, {Stream::kTrain, 0, 1u << 30, 0}, 2, {0, 0}, 0,
                                        ActorId(slot), broker::TestIdentity(config).Hash());
  t.text.assign(bytes, 'x');
  upload.records = {wire::EncodeTrajectory(t)};
  std::vector<std::string> unwanted;  // by number: the same one again would be taken for an echo
  for (upload.upload = 1; upload.upload <= kFloodUploads; ++upload.upload) {
    unwanted.push_back(frame(upload));
  }
  for (std::uint64_t sent = 0;;) {
    if (client->Send(unwanted[sent % unwanted.size()]).ok()) {
      if (++sent % 1000 == 0) std::printf("%llu\n", static_cast<unsigned long long>(sent));
      if (sent % 1000 == 0) std::fflush(stdout);
    } else {
      std::this_thread::sleep_for(milliseconds(1));  // its own queue is full
    }
  }
}

int Main(const std::filesystem::path& run, const std::string& what,
         const std::vector<std::string>& words) {
  const auto number = [&](std::size_t i, long otherwise) {
    return i < words.size() ? std::strtol(words[i].c_str(), nullptr, 10) : otherwise;
  };
  if (what == "init") return Init(run, words);
  const Config config = LoadConfig(run / "config.yaml", {});
  if (what == "actors") {
    return Actors(run, config, static_cast<int>(number(0, 1)), milliseconds(number(1, 1 << 30)));
  }
  if (what == "learner") return Learner(run, config, milliseconds(number(0, 0)));
  if (what == "flood") {
    return Flood(run, config, static_cast<std::uint32_t>(number(0, 99)),
                 static_cast<std::size_t>(number(1, 1000)));
  }
  std::fprintf(stderr, "peers-tool: RUN init|actors|learner|flood\n");
  return 2;
}

}  // namespace
}  // namespace thresher

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  return thresher::Main(argv[1], argv[2], {argv + 3, argv + argc});
}
