#pragma once

#include <unistd.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "broker/run_state.h"
#include "common/base/hash.h"
#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/data/trajectory.h"

namespace thresher::broker {

// 2 supervised steps of 4 traces, 2 RL steps of 3 groups of 2, two evaluation rounds of 3 x 2.
inline Config TinyConfig(const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides = {"run.name=tiny",
                                        "run.seed=7",
                                        "supervised.steps=2",
                                        "supervised.batch=4",
                                        "supervised.warmup_steps=0",
                                        "rl.steps=2",
                                        "rl.groups=3",
                                        "rl.group_size=2",
                                        "eval.items=3",
                                        "eval.samples=2",
                                        "learner.grad_leaves=2",
                                        "weights.chunk_bytes=4096",
                                        "checkpoint.every=2",
                                        "journal.mode=async",
                                        "net.heartbeat_ms=50",
                                        "broker.lookahead_steps=1"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return ParseConfig("", "test", overrides);
}

inline PolicyVersion V(std::uint32_t step) { return {0, step}; }
inline TrajectoryId Id(Stream stream, std::uint64_t item, std::uint32_t sample = 0) {
  return {stream, 0, item, sample};
}
inline Hash128 H(const std::string& text) { return HashText128(text); }

inline wire::ItemsIssued Issued(const StepPlan& step, PolicyVersion version) {
  return {step.stream, 0, step.first_item, step.items, step.samples, step.step, 0, version};
}
inline wire::ItemsIssued Issued(const EvalRound& round) {
  return {Stream::kEval,      0,           round.first_item, round.items, round.samples,
          round.version.step, round.round, round.version};
}
// `content` names the trajectory's content: equal text, equal hash.
inline wire::SampleAccepted Accepted(const TrajectoryId& id, double reward = 0,
                                     const std::string& content = "") {
  wire::SampleAccepted record;
  record.id = id;
  record.content_hash = H(id.ToString() + content);
  record.reward = reward;
  record.loss_tokens = 3;
  record.instance_hash = H(std::string(StreamName(id.stream)) + std::to_string(id.item));
  record.oldest_version = V(0);
  return record;
}

// A structurally valid trajectory that an actor could have made.
inline Trajectory MakeTrajectory(const Config& config, const TrajectoryId& id,
                                 std::uint32_t group_size, PolicyVersion version, double reward,
                                 ActorId actor, const Hash128& identity) {
  bool supervised = id.stream == Stream::kSupervised;
  Trajectory t;
  t.id = id;
  t.group_size = group_size;
  t.pinned = version;
  t.tokens = {1, 2, static_cast<std::int32_t>(id.item % 40), static_cast<std::int32_t>(id.sample),
              0};
  t.prompt_hash = HashTokens(t.tokens, 2);
  t.instance_hash = H(std::string(StreamName(id.stream)) + std::to_string(id.item));
  t.task = config.task.name;
  t.segments = {{0, 2, Role::kPrompt, false}, {2, 5, Role::kPolicy, true}};
  t.finish = supervised ? FinishReason::kReference : FinishReason::kStop;
  t.outcome.reward = t.outcome.score = reward;
  t.outcome.reason = reward > 0 ? "solved" : "wrong_target";
  t.text = "x";
  t.actor = actor;
  t.incarnation = Incarnation(1);
  t.run_identity = identity;
  if (supervised) return t;
  t.logprobs = {-1.0f, -0.5f, -0.25f};
  t.versions = {{2, 5, version}};
  t.kv_history = {{0, 5, version, false}};
  bool evaluation = id.stream == Stream::kEval;
  t.sampling.temperature =
      static_cast<float>(evaluation ? config.eval.temperature : config.sampling.temperature);
  t.sampling.max_new_tokens = static_cast<std::uint32_t>(config.sampling.max_new_tokens);
  return t;
}

// What there is of a sampled one when so many tokens of it are drawn.
inline Trajectory MakePrefix(Trajectory t, std::uint32_t tokens) {
  t.finish = FinishReason::kCancelled;
  t.text.clear();
  t.outcome = {};
  t.tokens.resize(2 + tokens, 5);
  t.segments.back().end = 2 + tokens;
  t.logprobs.assign(tokens, -0.5f);
  t.versions = {{2, 2 + tokens, t.pinned}};
  t.kv_history = {{0, 1 + tokens, t.pinned, false}};
  return t;
}

// A folder that is removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "broker-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace thresher::broker
