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
  explicit Rules(const Trajectory& trajectory)
      : trajectory_(trajectory), tokens_(trajectory.tokens.size()) {}

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
  void Require(bool holds, const std::string& field, const std::string& problem) {
    if (holds || !status_.ok()) return;
    std::string name = trajectory_.id.InRange() ? trajectory_.id.ToString() : "(id out of range)";
    status_ = DataLoss("trajectory " + name + ": " + field + ": " + problem);
  }

  void Identities() {
    Require(trajectory_.id.InRange(), "id", "a part is out of range");
    Require(!trajectory_.has_parent || trajectory_.parent.InRange(), "parent",
            "a part is out of range");
    Require(tokens_ <= UINT32_MAX, "tokens", "more than 2^32 - 1");
  }

  void Segments() {
    std::uint32_t position = 0;
    for (const Segment& segment : trajectory_.segments) {
      Require(
          segment.begin == position && segment.end > segment.begin, "segments",
          Range(segment.begin, segment.end) + " does not continue at " + std::to_string(position));
      position = segment.end;
    }
    Require(position == tokens_, "segments",
            "end at " + std::to_string(position) + " of " + std::to_string(tokens_) + " tokens");
  }

  void Logprobs() {
    bool sampled = trajectory_.finish != FinishReason::kReference;
    std::size_t expected = sampled ? trajectory_.PolicyTokenCount() : 0;
    Require(trajectory_.logprobs.size() == expected, "logprobs",
            std::to_string(trajectory_.logprobs.size()) + ", expected " + std::to_string(expected) +
                " for the policy tokens");
    const auto& kept = trajectory_.kept_mass_logprobs;
    Require(kept.empty() || kept.size() == expected, "kept_mass_logprobs",
            std::to_string(kept.size()) + ", expected none or " + std::to_string(expected));
  }

  // A token is sampled once, so version spans ascend without overlap. The KV history is in order
  // of writing: a recomputation covers positions again.
  void Spans() {
    std::uint32_t position = 0;
    for (const VersionSpan& span : trajectory_.versions) {
      Require(span.begin < span.end && span.end <= tokens_ && span.begin >= position, "versions",
              Range(span.begin, span.end) + " is empty, out of order or beyond the tokens");
      position = span.end;
    }
    for (const KvSpan& span : trajectory_.kv_history) {
      Require(span.begin < span.end && span.end <= tokens_, "kv_history",
              Range(span.begin, span.end) + " is empty or beyond the tokens");
    }
  }

  void Sampling() {
    std::int64_t last = -1;
    for (const LogitBias& bias : trajectory_.sampling.logit_bias) {
      Require(bias.token > last, "logit_bias",
              "token " + std::to_string(bias.token) + " is negative or out of order");
      Require(std::isfinite(bias.value), "logit_bias", "a value that is not finite");
      last = bias.token;
    }
    last = -1;
    for (std::int32_t token : trajectory_.sampling.allowed_tokens) {
      Require(token > last, "allowed_tokens",
              "token " + std::to_string(token) + " is negative or out of order");
      last = token;
    }
  }

  void Rewards() {
    for (const PositionReward& reward : trajectory_.outcome.position_rewards) {
      Require(reward.position < tokens_, "position_rewards",
              std::to_string(reward.position) + " is beyond the tokens");
    }
  }

  const Trajectory& trajectory_;
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

Status Trajectory::Validate() const { return Rules(*this).Check(); }

}  // namespace thresher
