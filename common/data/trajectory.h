#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"

namespace thresher {

// Who wrote a range of tokens. Values are part of the record format.
enum class Role : std::uint8_t { kPrompt = 0, kPolicy = 1, kEnvironment = 2, kTool = 3 };

// Tokens [begin, end) were written by `role`; `in_loss` says whether they are trained on.
struct Segment {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  Role role = Role::kPrompt;
  bool in_loss = false;
  friend bool operator==(const Segment&, const Segment&) = default;
};

// Tokens [begin, end) were sampled by `version`.
struct VersionSpan {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  PolicyVersion version;
  friend bool operator==(const VersionSpan&, const VersionSpan&) = default;
};

// The keys and values of positions [begin, end) were written by `version`, when the token was
// first processed or in a recomputation after a swap or a preemption.
struct KvSpan {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  PolicyVersion version;
  bool recomputed = false;
  friend bool operator==(const KvSpan&, const KvSpan&) = default;
};

// Added to the logit of a token before the temperature.
struct LogitBias {
  std::int32_t token = 0;
  float value = 0;
  friend bool operator==(const LogitBias&, const LogitBias&) = default;
};

// How tokens were drawn; kernels/cpu/head_filter.h defines the steps and their order. Neutral
// values (top_k 0, top_p 1, min_p 0, repetition_penalty 1, empty lists) mean that the step is not
// applied. The penalty is for the tokens of the prompt and those before the one drawn.
struct SamplingParams {
  float temperature = 1.0f;
  std::uint32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  std::uint32_t max_new_tokens = 0;
  std::vector<LogitBias> logit_bias{};         // ascending tokens, each once; finite values
  std::vector<std::int32_t> allowed_tokens{};  // ascending, each once; empty: all

  // Whether a step other than the temperature applies; kept-mass logprobs are recorded then.
  bool Filtered() const {
    return top_k > 0 || top_p < 1.0f || min_p > 0.0f || repetition_penalty != 1.0f ||
           !logit_bias.empty() || !allowed_tokens.empty();
  }
  friend bool operator==(const SamplingParams&, const SamplingParams&) = default;
};

enum class FinishReason : std::uint8_t {
  kStop = 0,       // end-of-sequence token or stop string
  kLength = 1,     // max_new_tokens reached
  kReference = 2,  // a reference trace, not sampled
  kCancelled = 3,
  kError = 4,
};

// How grading ended. Only kScored carries a reward of the grader; what the others count as in
// training is configured (task.outcome_reward).
enum class OutcomeKind : std::uint8_t {
  kScored = 0,
  kUnparsable = 1,
  kTimedOut = 2,
  kCrashed = 3,
  kRejected = 4,
};
const char* OutcomeKindName(OutcomeKind kind);

struct SubScore {
  std::string name;
  double value = 0;
  friend bool operator==(const SubScore&, const SubScore&) = default;
};

// A reward given at a token position (step rewards).
struct PositionReward {
  std::uint32_t position = 0;
  std::string name;
  double value = 0;
  friend bool operator==(const PositionReward&, const PositionReward&) = default;
};

struct Outcome {
  OutcomeKind kind = OutcomeKind::kScored;
  double score = 0;    // the grader's; 0 when kind is not kScored
  double reward = 0;   // what training sees: score, or the configured value for the kind
  std::string reason;  // the grader's closed reason code, "solved", "wrong_target", ...
  std::vector<SubScore> subscores;
  std::vector<PositionReward> position_rewards;
  bool nondeterministic = false;  // a clock decided (P9)
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// Milliseconds of this trajectory's life on its actor; for statistics, never part of its content.
struct Timings {
  float queue_ms = 0;
  float prefill_ms = 0;
  float decode_ms = 0;
  float grade_ms = 0;
  friend bool operator==(const Timings&, const Timings&) = default;
};

// One sampled sequence with everything needed to train on it and to generate it again.
// Positions count in `tokens`. Behaviour logprobs stand on the policy tokens in order: entry i
// belongs to the i-th token that lies in a segment of role kPolicy; supervised traces have none.
struct Trajectory {
  TrajectoryId id;
  std::uint32_t group_size = 0;  // samples of the item
  PolicyVersion pinned;          // the version the lease asked for (sync, evaluation)
  Hash128 prompt_hash;           // of the prompt's token ids (int32, little-endian)
  Hash128 instance_hash;         // of the canonical task instance; train and held-out are disjoint
  std::string task;
  std::vector<std::int32_t> tokens;
  std::vector<Segment> segments;
  std::vector<float> logprobs;  // natural log, fp32, one per policy token
  // With filters (SamplingParams::Filtered), else empty: what a token's logprob less this is its
  // log-probability under the distribution drawn from. Where ids were only left out, log of the
  // mass that the full distribution gives the others; see kernels/cpu/head_filter.h.
  std::vector<float> kept_mass_logprobs;
  std::vector<VersionSpan> versions;
  std::vector<KvSpan> kv_history;
  SamplingParams sampling;
  FinishReason finish = FinishReason::kStop;
  Outcome outcome;
  std::string text;  // the policy's text, as the grader saw it
  // Branches: the trajectory and the position this one continues from.
  bool has_parent = false;
  TrajectoryId parent;
  std::uint32_t parent_position = 0;
  // One episode may give several sequences.
  std::uint64_t episode = 0;
  std::uint32_t episode_index = 0;
  // Not part of the content: who and when.
  Timings timings;
  ActorId actor;
  Incarnation incarnation;
  Hash128 run_identity;

  // Hash of everything that must be equal when the same trajectory is generated again: all
  // fields but timings, actor, incarnation and run identity. Floats by their bits.
  Hash128 ContentHash() const;
  std::uint32_t PolicyTokenCount() const;
  // The oldest version in `versions` and `kv_history`; `pinned` when both are empty.
  PolicyVersion OldestVersion() const;
  // Structural rules: segments tile the tokens in order, spans lie inside, logprob counts fit,
  // lists of tokens ascend.
  // Error: kDataLoss naming the id and the field.
  Status Validate() const;
  friend bool operator==(const Trajectory&, const Trajectory&) = default;
};

// What may be long in a trajectory, wherever it lies.
struct TrajectoryArrays {
  std::span<const std::int32_t> tokens;
  std::span<const float> logprobs;
  std::span<const float> kept_mass_logprobs;
  std::string_view text;
};

// A trajectory whose long arrays may lie elsewhere than in the record, whose own are then empty.
// Borrows both.
struct TrajectoryRef {
  TrajectoryRef(const Trajectory& trajectory)
      : fields(trajectory),
        arrays{trajectory.tokens, trajectory.logprobs, trajectory.kept_mass_logprobs,
               trajectory.text} {}
  TrajectoryRef(const Trajectory& rest, const TrajectoryArrays& long_arrays)
      : fields(rest), arrays(long_arrays) {}

  Hash128 ContentHash() const;  // as Trajectory::ContentHash
  Status Validate() const;      // as Trajectory::Validate

  const Trajectory& fields;
  TrajectoryArrays arrays;
};

// Hash of prompt token ids as stored in Trajectory::prompt_hash.
Hash128 HashTokens(const std::vector<std::int32_t>& tokens, std::size_t count);

}  // namespace thresher
