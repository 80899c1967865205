#include "tests/support/sim/history.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "common/config/broker_memory.h"
#include "tests/support/sim/random.h"

namespace thresher::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The smallest model and texts that have everything. An answer that cannot be parsed costs more
// than a wrong one, so that an untrained model gives gradients too.
constexpr char kSmallest[] = R"(
run: {name: simulated}
task: {name: countdown, numbers: 2, max_number: 5, max_target: 10, reward_unparsable: -1}
model: {layers: 1, width: 8, heads: 1, kv_heads: 1, head_dim: 8, ffn_width: 8, context: 40}
supervised: {learning_rate: 2.0e-2, warmup_steps: 1, off_target: 0}
rl: {learning_rate: 1.0e-2}
sampling: {max_new_tokens: 8}
learner: {threads: 1, micro_batch_tokens: 256}
engine: {kernels: auto}
)";

constexpr int kPointsOfPartials = 4;  // the last ones of CrashPoints()

class Drawer {
 public:
  explicit Drawer(std::uint64_t seed) : random_(seed) {}

  std::int64_t Between(std::int64_t low, std::int64_t high) { return random_.Between(low, high); }
  int Int(int low, int high) { return static_cast<int>(random_.Between(low, high)); }
  bool Chance(double p) { return random_.Chance(p); }
  // Even on a logarithmic scale.
  double Log(double low, double high) { return low * std::pow(high / low, random_.Unit()); }
  Duration Log(Duration low, Duration high) {
    return Duration(static_cast<std::int64_t>(
        Log(static_cast<double>(low.count()), static_cast<double>(high.count()))));
  }
  // Never, or every so often.
  Duration Sometimes(double p, Duration low, Duration high) {
    return Chance(p) ? Log(low, high) : Duration::zero();
  }
  double Sometimes(double p, double low, double high) { return Chance(p) ? Log(low, high) : 0; }
  template <typename T>
  T Of(std::initializer_list<T> choices) {
    return *(choices.begin() + random_.Below(choices.size()));
  }
  // Of those that every history passes: how many there are decides what is drawn.
  std::string Point() {
    return CrashPoints()[random_.Below(CrashPoints().size() - kPointsOfPartials)];
  }
  // One that few histories pass often.
  std::string SeldomPoint() {
    return Of<std::string>({"published", "announced", "durable", "evaluated", "after_report",
                            "snapshot_before_write", "snapshot_after_write", "archive_before_write",
                            "archive_after_write", "delete_before", "delete_after"});
  }

 private:
  Random random_;
};

// None of the keys that the result depends on.
void DrawSettings(Drawer& draw, Config& c) {
  c.actors.count = static_cast<int>(draw.Log(3, 50.99));
  c.actors.max_batch = draw.Of({2, 4, 8, 16});
  c.actors.upload_batch = draw.Int(1, 8);
  c.actors.prefill_chunk_tokens = draw.Of({8, 64, 512});
  c.learner.ranks = draw.Of({1, 1, 2, 4});
  c.broker.lookahead_steps = draw.Int(1, 4);
  c.broker.max_attempts = 1000;  // a sample that is given up changes the result
  c.broker.lease_silence_ms = draw.Int(500, 5000);
  c.broker.lease_min_progress_ms = draw.Int(1000, 30000);
  c.journal.mode = draw.Of<std::string>({"durable", "async"});
  c.journal.segment_bytes = draw.Of({4096, 16384, 65536, 67108864});
  c.journal.group_commit_ms = draw.Int(0, 20);
  c.journal.group_commit_bytes = draw.Of({1, 4096, 1048576});
  c.checkpoint.every = draw.Int(1, 4);
  c.checkpoint.keep = draw.Int(1, 3);
  c.weights.chunk_bytes = draw.Of({512, 4096, 1048576});
  c.weights.window = draw.Int(1, 4);
  c.weights.retain = draw.Of({1, 2, 1000});
  c.net.heartbeat_ms = draw.Int(100, c.broker.lease_silence_ms / 2);
}

// What becomes of old records and trajectories. `often`: as much of it as such short runs allow.
void DrawKeeping(Drawer& draw, bool often, Config& c) {
  c.journal.snapshot_records = draw.Of({1, 1, 10, 50, 20000});
  c.journal.keep_bytes = draw.Of<std::uint64_t>({0, 0, 1, 20000});
  c.trajectories.keep_bytes = draw.Of<std::uint64_t>({0, 0, 1, 10000});
  if (!often) return;
  c.checkpoint.every = c.journal.snapshot_records = 1;
  c.journal.segment_bytes = draw.Of({512, 1024, 2048});
  c.journal.keep_bytes = c.trajectories.keep_bytes = 1;
}

bool IsOfKeeping(const std::string& point) {
  return point.starts_with("snapshot_") || point.starts_with("archive_") ||
         point.starts_with("delete_");
}

// What the broker may hold: often the least that is allowed, or less, so that actors take turns;
// credit for one of them is still enough for any group.
void DrawMemory(Drawer& draw, Config& c) {
  if (draw.Chance(0.3)) return;
  c.broker.max_message_bytes = 65536;
  c.weights.chunk_bytes = std::min(c.weights.chunk_bytes, 32768);
  const std::uint64_t share = 4 * LargestTrajectoryBytes(c);  // a quarter of the budget is credit
  const double shares = c.actors.count + 1;
  if (draw.Chance(0.3)) {
    c.broker.memory_bytes = LeastBrokerMemory(c);
    return;
  }
  // The fewer have a turn at once, the longer it takes.
  const double fewest = draw.Chance(0.1) ? 1 : std::max(1.0, shares / 4);
  c.broker.memory_bytes = share * static_cast<std::uint64_t>(draw.Log(fewest, shares));
}

// By a drawer of its own, so that it moves no other draw.
void DrawCheckpoints(std::uint64_t seed, Config& c) {
  Drawer draw(seed ^ 0x9e3779b97f4a7c15);
  c.checkpoint.background = draw.Chance(0.75);
  c.checkpoint.keep_every = draw.Of({0, 0, 2, 5});
}

// Whether unfinished sequences are kept, and how often. Of these seeds none is known to find a
// planted bug of something else, which more frames could hide.
void DrawPartials(std::uint64_t seed, History& h) {
  if (seed % 7 != 3) return;
  Drawer draw(seed ^ 0xbf58476d1ce4e5b9);
  h.config.actors.partial_tokens = draw.Of({1, 2, 2, 4});
  if (!draw.Chance(0.5)) return;
  const std::size_t which = static_cast<std::size_t>(draw.Int(1, kPointsOfPartials));
  h.disturbances.deadly_point = CrashPoints()[CrashPoints().size() - which];
  h.disturbances.kill_at_deadly_point = draw.Log(0.03, 0.9);
}

// Last, so that it moves no other draw.
void DrawOff(Drawer& draw, History& h) {
  if (!draw.Chance(0.25)) return;
  h.config.journal.mode = "off";
  h.disturbances.power_cut = {};  // costs what an asynchronous journal's does
  std::uint64_t& memory = h.config.broker.memory_bytes;
  if (memory > 0) memory = KeptBytes(h.config) + memory / 2;  // as much credit as without
}

void DrawDisturbances(Drawer& draw, const Config& config, Disturbances& d) {
  const bool durable = config.journal.mode == "durable";
  d.kill_broker = draw.Sometimes(0.5, seconds(1), seconds(20));
  d.kill_actor = draw.Sometimes(0.5, milliseconds(200), seconds(10));
  d.kill_learner = draw.Sometimes(0.5, seconds(1), seconds(20));
  d.stop_broker = draw.Sometimes(0.1, seconds(5), seconds(30));
  d.stop_actor = draw.Sometimes(0.3, seconds(1), seconds(20));
  d.stall_broker = draw.Sometimes(0.3, seconds(1), seconds(20));
  d.stall_actor = draw.Sometimes(0.4, milliseconds(200), seconds(10));
  d.stall_learner = draw.Sometimes(0.3, seconds(1), seconds(20));
  d.stall_time = draw.Log(milliseconds(100), seconds(10));
  // A power cut may cost an asynchronous journal what was accepted.
  d.power_cut = draw.Sometimes(durable ? 0.4 : 0, seconds(3), seconds(30));
  d.disk_full = draw.Sometimes(0.2, seconds(2), seconds(20));
  d.disk_full_time = draw.Log(milliseconds(100), seconds(8));
  d.partition = draw.Sometimes(0.3, seconds(2), seconds(20));
  d.reconnects = draw.Sometimes(0.4, milliseconds(50), seconds(5));
  d.kill_at_point = draw.Sometimes(0.3, 1e-5, 1e-3);
  if (draw.Chance(0.5)) {
    d.deadly_point = draw.Chance(0.4) ? draw.SeldomPoint() : draw.Point();
    d.kill_at_deadly_point = draw.Log(0.03, 0.9);
  }
  d.disk.write_time = draw.Log(std::chrono::microseconds(5), milliseconds(1));
  d.disk.sync_time = draw.Log(std::chrono::microseconds(100), milliseconds(20));
  d.disk.slow_sync = draw.Sometimes(0.2, 0.01, 0.3);
  d.disk.write_error = draw.Sometimes(0.15, 0.001, 0.05);
  // What a failed sync has lost only a power cut shows.
  const bool cuts = d.power_cut > Duration::zero();
  d.disk.sync_error = draw.Sometimes(cuts ? 0.5 : 0.15, 0.001, 0.1);
  d.network.latency = draw.Log(std::chrono::microseconds(50), milliseconds(50));
  d.network.cut = draw.Sometimes(0.4, 0.0003, 0.02);
  d.network.stall = draw.Sometimes(0.3, 0.0003, 0.01);
  d.network.stall_time = draw.Log(milliseconds(50), seconds(8));
  d.network.half_open = draw.Sometimes(0.5, 0.1, 1);
  d.network.duplicate = draw.Sometimes(0.3, 0.1, 1);
  d.until = draw.Log(seconds(10), seconds(90));
}

std::string Text(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

void AddEvery(std::string& text, const char* name, Duration every) {
  if (every == Duration::zero()) return;
  text += std::string(" ") + name + Text(" %.1fs", std::chrono::duration<double>(every).count());
}

void AddChance(std::string& text, const char* name, double chance) {
  if (chance > 0) text += std::string(" ") + name + Text(" %.4f", chance);
}

}  // namespace

const std::vector<std::string>& CrashPoints() {
  static const std::vector<std::string> points = {"accepted",
                                                  "composed",
                                                  "committed",
                                                  "weights_written",
                                                  "published",
                                                  "announced",
                                                  "evaluated",
                                                  "durable",
                                                  "before_ack",
                                                  "after_ack",
                                                  "journal_before_write",
                                                  "journal_after_write",
                                                  "journal_before_sync",
                                                  "journal_after_sync",
                                                  "store_before_write",
                                                  "store_after_write",
                                                  "store_before_sync",
                                                  "store_after_sync",
                                                  "snapshot_before_write",
                                                  "snapshot_after_write",
                                                  "archive_before_write",
                                                  "archive_after_write",
                                                  "delete_before",
                                                  "delete_after",
                                                  "decode",
                                                  "swap",
                                                  "after_swap",
                                                  "upload",
                                                  "before_upload",
                                                  "acked",
                                                  "step",
                                                  "before_commit",
                                                  "after_commit",
                                                  "before_publish",
                                                  "after_publish",
                                                  "before_reduce",
                                                  "before_checkpoint",
                                                  "in_checkpoint",
                                                  "after_checkpoint",
                                                  "after_report",
                                                  "before_write",
                                                  "after_write",
                                                  "before_sync",
                                                  "after_sync",
                                                  "before_rename",
                                                  "after_rename",
                                                  "partials_before_write",
                                                  "partials_after_write",
                                                  "partials_before_sync",
                                                  "partials_after_sync"};
  return points;
}

Config WorkloadConfig(std::uint32_t workload) {
  Config c = ParseConfig(kSmallest, "workload " + std::to_string(workload), {});
  Drawer draw(~std::uint64_t{workload});
  c.run.seed = workload + 1;
  c.supervised.steps = draw.Int(1, 6);
  c.supervised.batch = draw.Int(2, 8);
  c.rl.steps = workload % 4 == 3 ? 0 : draw.Int(1, 4);
  c.rl.groups = draw.Int(2, 5);
  c.rl.group_size = draw.Int(2, 4);
  c.rl.drop_zero_variance = draw.Chance(0.5);
  if (workload % 3 == 1) {
    c.rl.dynamic_sampling = c.rl.drop_zero_variance = true;
    c.rl.max_rounds = 2 + static_cast<int>(workload % 2);
  }
  c.sampling.max_new_tokens = draw.Int(4, 8);
  c.eval.items = draw.Int(1, 3);
  c.eval.samples = draw.Int(1, 3);
  c.eval.every = draw.Int(0, 2);
  c.eval.every_items = 2;
  c.learner.grad_leaves = 4;
  return c;
}

History DrawHistory(std::uint64_t seed) {
  Drawer draw(seed);
  History h;
  h.seed = seed;
  h.workload = static_cast<std::uint32_t>(draw.Between(0, kWorkloads - 1));
  h.config = WorkloadConfig(h.workload);
  DrawSettings(draw, h.config);
  h.one_machine = draw.Chance(0.4);
  h.tcp = draw.Chance(0.3);
  h.job_dies_at_once = draw.Chance(0.7);
  h.late_reports = draw.Chance(0.3) ? draw.Int(1, 6) : 0;
  h.actor_turn = draw.Log(milliseconds(1), milliseconds(50));
  h.broker_turn = draw.Log(std::chrono::microseconds(5), milliseconds(1));
  h.learner_turn = draw.Log(milliseconds(1), seconds(1));
  DrawDisturbances(draw, h.config, h.disturbances);
  DrawKeeping(draw, IsOfKeeping(h.disturbances.deadly_point), h.config);
  DrawMemory(draw, h.config);
  DrawCheckpoints(seed, h.config);
  DrawPartials(seed, h);
  DrawOff(draw, h);
  return h;
}

History UndisturbedHistory(std::uint32_t workload) {
  History h;
  h.seed = workload;
  h.workload = workload;
  h.config = WorkloadConfig(workload);
  h.config.actors.count = 2;
  h.actor_turn = milliseconds(5);
  h.broker_turn = std::chrono::microseconds(20);
  h.learner_turn = milliseconds(50);
  h.disturbances.until = {};
  return h;
}

std::string History::Describe() const {
  const Disturbances& d = disturbances;
  std::string text = "seed " + std::to_string(seed) + ": workload " + std::to_string(workload) +
                     ", " + std::to_string(config.actors.count) + " actors, " +
                     std::to_string(config.learner.ranks) + " ranks, journal " +
                     config.journal.mode + ", " + (one_machine ? "one machine" : "machines") +
                     (tcp ? ", tcp" : ", ipc") +
                     (config.broker.memory_bytes > 0
                          ? ", " + std::to_string(config.broker.memory_bytes >> 10) + " KiB"
                          : "") +
                     (config.actors.partial_tokens <= config.sampling.max_new_tokens
                          ? ", partials of " + std::to_string(config.actors.partial_tokens)
                          : "") +
                     (late_reports > 0 ? ", a late reporter" : "") + "\n ";
  AddEvery(text, "kill broker", d.kill_broker);
  AddEvery(text, "kill actor", d.kill_actor);
  AddEvery(text, "kill learner", d.kill_learner);
  AddEvery(text, "stop broker", d.stop_broker);
  AddEvery(text, "stop actor", d.stop_actor);
  AddEvery(text, "stall broker", d.stall_broker);
  AddEvery(text, "stall actor", d.stall_actor);
  AddEvery(text, "stall learner", d.stall_learner);
  AddEvery(text, "power cut", d.power_cut);
  AddEvery(text, "disk full", d.disk_full);
  AddEvery(text, "partition", d.partition);
  if (d.power_cut_at_use > 0) {
    text += " power cut at use " + std::to_string(d.power_cut_at_use) + " of the disk";
  }
  AddEvery(text, "reconnect", d.reconnects);
  text += "\n ";
  AddChance(text, "kill at a point", d.kill_at_point);
  AddChance(text, ("kill at " + d.deadly_point).c_str(), d.kill_at_deadly_point);
  AddChance(text, "slow sync", d.disk.slow_sync);
  AddChance(text, "write error", d.disk.write_error);
  AddChance(text, "sync error", d.disk.sync_error);
  AddChance(text, "cut", d.network.cut);
  AddChance(text, "stall", d.network.stall);
  AddChance(text, "half-open", d.network.half_open);
  AddChance(text, "duplicate", d.network.duplicate);
  AddEvery(text, "until", d.until);
  return text + "\n";
}

}  // namespace thresher::sim
