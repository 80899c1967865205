#include "common/data/trajectory.h"

#include <algorithm>
#include <cmath>

namespace thresher {
namespace {

constexpr const char* kOutcomeKindNames[] = {"scored", "unparsable", "timed_out", "crashed",
                                             "rejected"};

std::string Range(std::uint32_t begin, std::uint32_t end) {
  return "[" + std::to_string(begin) + ", " + std::to_string(end) + ")";
}

// Collects the first broken rule under the trajectory's name.
class Rules {
 public:
  explicit Rules(const TrajectoryRef& ref)
      : trajectory_(ref.fields), arrays_(ref.arrays), tokens_(ref.arrays.tokens.size()) {}

  Status Check() {
    Identities();
    Segments();
    Logprobs();
    Spans();
    Sampling();
    Rewards();
    return std::move(status_);
  }

 private:
  // `problem` makes the text, where it is needed.
  template <typename Problem>
  void Require(bool holds, const char* field, Problem problem) {
    if (holds || !status_.ok()) return;
    std::string name = trajectory_.id.InRange() ? trajectory_.id.ToString() : "(id out of range)";
    status_ = DataLoss("trajectory " + name + ": " + field + ": " + problem());
  }
  static std::string OutOfPart() { return "a part is out of range"; }

  void Identities() {
    Require(trajectory_.id.InRange(), "id", OutOfPart);
    Require(!trajectory_.has_parent || trajectory_.parent.InRange(), "parent", OutOfPart);
    Require(tokens_ <= UINT32_MAX, "tokens", [] { return "more than 2^32 - 1"; });
  }

  void Segments() {
    std::uint32_t position = 0;
    for (const Segment& segment : trajectory_.segments) {
      Require(segment.begin == position && segment.end > segment.begin, "segments", [&] {
        return Range(segment.begin, segment.end) + " does not continue at " +
               std::to_string(position);
      });
      position = segment.end;
    }
    Require(position == tokens_, "segments", [&] {
      return "end at " + std::to_string(position) + " of " + std::to_string(tokens_) + " tokens";
    });
  }

  void Logprobs() {
    bool sampled = trajectory_.finish != FinishReason::kReference;
    std::size_t expected = sampled ? trajectory_.PolicyTokenCount() : 0;
    const std::size_t logprobs = arrays_.logprobs.size();
    Require(logprobs == expected, "logprobs", [&] {
      return std::to_string(logprobs) + ", expected " + std::to_string(expected) +
             " for the policy tokens";
    });
    const std::size_t kept = arrays_.kept_mass_logprobs.size();
    Require(kept == 0 || kept == expected, "kept_mass_logprobs", [&] {
      return std::to_string(kept) + ", expected none or " + std::to_string(expected);
    });
  }

  // A token is sampled once, so version spans ascend without overlap. The KV history is in order
  // of writing: a recomputation covers positions again.
  void Spans() {
    std::uint32_t position = 0;
    for (const VersionSpan& span : trajectory_.versions) {
      Require(span.begin < span.end && span.end <= tokens_ && span.begin >= position, "versions",
              [&] {
                return Range(span.begin, span.end) + " is empty, out of order or beyond the tokens";
              });
      position = span.end;
    }
    for (const KvSpan& span : trajectory_.kv_history) {
      Require(span.begin < span.end && span.end <= tokens_, "kv_history",
              [&] { return Range(span.begin, span.end) + " is empty or beyond the tokens"; });
    }
  }

  void Sampling() {
    std::int64_t last = -1;
    for (const LogitBias& bias : trajectory_.sampling.logit_bias) {
      Require(bias.token > last, "logit_bias", [&] { return OutOfOrder(bias.token); });
      Require(std::isfinite(bias.value), "logit_bias", [] { return "a value that is not finite"; });
      last = bias.token;
    }
    last = -1;
    for (std::int32_t token : trajectory_.sampling.allowed_tokens) {
      Require(token > last, "allowed_tokens", [&] { return OutOfOrder(token); });
      last = token;
    }
  }
  static std::string OutOfOrder(std::int32_t token) {
    return "token " + std::to_string(token) + " is negative or out of order";
  }

  void Rewards() {
    for (const PositionReward& reward : trajectory_.outcome.position_rewards) {
      Require(reward.position < tokens_, "position_rewards",
              [&] { return std::to_string(reward.position) + " is beyond the tokens"; });
    }
  }

  const Trajectory& trajectory_;
  const TrajectoryArrays& arrays_;
  const std::size_t tokens_;
  Status status_;
};

}  // namespace

const char* OutcomeKindName(OutcomeKind kind) {
  auto index = static_cast<std::size_t>(kind);
  THRESHER_CHECK(index < std::size(kOutcomeKindNames),
                 "unknown outcome kind " + std::to_string(index));
  return kOutcomeKindNames[index];
}

std::uint32_t Trajectory::PolicyTokenCount() const {
  std::uint32_t count = 0;
  for (const Segment& segment : segments) {
    if (segment.role == Role::kPolicy) count += segment.end - segment.begin;
  }
  return count;
}

PolicyVersion Trajectory::OldestVersion() const {
  if (versions.empty() && kv_history.empty()) return pinned;
  PolicyVersion oldest{UINT32_MAX, UINT32_MAX};
  for (const VersionSpan& span : versions) oldest = std::min(oldest, span.version);
  for (const KvSpan& span : kv_history) oldest = std::min(oldest, span.version);
  return oldest;
}

Status TrajectoryRef::Validate() const { return Rules(*this).Check(); }
Status Trajectory::Validate() const { return TrajectoryRef(*this).Validate(); }

}  // namespace thresher
