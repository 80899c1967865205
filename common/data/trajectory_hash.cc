// The byte layout under Trajectory::ContentHash. It is part of the record format (journals and
// stores hold these hashes), and it is independent of how records are encoded.
//
// XXH3-128 over, in this order: the text "thresher.trajectory.1", then every field of Trajectory in
// the order of its declaration except timings, actor, incarnation and run_identity.
//   integer, boolean, enumeration   8 bytes, little-endian
//   float, double                   its 32 or 64 bits as an integer of 8 bytes
//   Hash128                         high, low
//   PolicyVersion                   lineage, step
//   TrajectoryId                    stream, island, item, sample
//   text                            length, bytes
//   vector                          count, elements; of int32 and float: 4 bytes each,
//   little-endian
// The two lists of SamplingParams came later: they are left out when both are empty, and follow the
// number 2^64 - 1 otherwise.
#include <bit>
#include <span>

#include "common/base/hash.h"
#include "common/data/trajectory.h"

namespace thresher {
namespace {

static_assert(std::endian::native == std::endian::little,
              "arrays are hashed as they lie in memory");

class ContentHasher {
 public:
  ContentHasher() { hasher_.Update("thresher.trajectory.1"); }

  void Number(std::uint64_t value) { hasher_.UpdateU64(value); }
  void Float(float value) { Number(std::bit_cast<std::uint32_t>(value)); }
  void Double(double value) { Number(std::bit_cast<std::uint64_t>(value)); }
  void Text(std::string_view text) {
    Number(text.size());
    hasher_.Update(text);
  }
  void Version(const PolicyVersion& version) {
    Number(version.lineage);
    Number(version.step);
  }
  void Id(const TrajectoryId& id) {
    Number(static_cast<std::uint64_t>(id.stream));
    Number(id.island);
    Number(id.item);
    Number(id.sample);
  }
  void Hash(const Hash128& hash) { hasher_.UpdateHash(hash); }
  template <typename T>
  void Array(std::span<const T> values) {
    static_assert(sizeof(T) == 4);
    Number(values.size());
    hasher_.Update(std::as_bytes(values));
  }
  Hash128 Finish() const { return hasher_.Finish(); }

 private:
  Hasher128 hasher_;
};

void HashSpans(const Trajectory& t, const TrajectoryArrays& arrays, ContentHasher& hasher) {
  hasher.Number(t.segments.size());
  for (const Segment& segment : t.segments) {
    hasher.Number(segment.begin);
    hasher.Number(segment.end);
    hasher.Number(static_cast<std::uint64_t>(segment.role));
    hasher.Number(segment.in_loss);
  }
  hasher.Array(arrays.logprobs);
  hasher.Array(arrays.kept_mass_logprobs);
  hasher.Number(t.versions.size());
  for (const VersionSpan& span : t.versions) {
    hasher.Number(span.begin);
    hasher.Number(span.end);
    hasher.Version(span.version);
  }
  hasher.Number(t.kv_history.size());
  for (const KvSpan& span : t.kv_history) {
    hasher.Number(span.begin);
    hasher.Number(span.end);
    hasher.Version(span.version);
    hasher.Number(span.recomputed);
  }
}

void HashSampling(const SamplingParams& sampling, ContentHasher& hasher) {
  hasher.Float(sampling.temperature);
  hasher.Number(sampling.top_k);
  hasher.Float(sampling.top_p);
  hasher.Float(sampling.min_p);
  hasher.Float(sampling.repetition_penalty);
  hasher.Number(sampling.max_new_tokens);
  if (sampling.logit_bias.empty() && sampling.allowed_tokens.empty()) return;
  hasher.Number(UINT64_MAX);
  hasher.Number(sampling.logit_bias.size());
  for (const LogitBias& bias : sampling.logit_bias) {
    hasher.Number(static_cast<std::uint64_t>(bias.token));
    hasher.Float(bias.value);
  }
  hasher.Array(std::span<const std::int32_t>(sampling.allowed_tokens));
}

void HashOutcome(const Outcome& outcome, ContentHasher& hasher) {
  hasher.Number(static_cast<std::uint64_t>(outcome.kind));
  hasher.Double(outcome.score);
  hasher.Double(outcome.reward);
  hasher.Text(outcome.reason);
  hasher.Number(outcome.subscores.size());
  for (const SubScore& subscore : outcome.subscores) {
    hasher.Text(subscore.name);
    hasher.Double(subscore.value);
  }
  hasher.Number(outcome.position_rewards.size());
  for (const PositionReward& reward : outcome.position_rewards) {
    hasher.Number(reward.position);
    hasher.Text(reward.name);
    hasher.Double(reward.value);
  }
  hasher.Number(outcome.nondeterministic);
}

}  // namespace

Hash128 TrajectoryRef::ContentHash() const {
  const Trajectory& t = fields;
  ContentHasher hasher;
  hasher.Id(t.id);
  hasher.Number(t.group_size);
  hasher.Version(t.pinned);
  hasher.Hash(t.prompt_hash);
  hasher.Hash(t.instance_hash);
  hasher.Text(t.task);
  hasher.Array(arrays.tokens);
  HashSpans(t, arrays, hasher);
  HashSampling(t.sampling, hasher);
  hasher.Number(static_cast<std::uint64_t>(t.finish));
  HashOutcome(t.outcome, hasher);
  hasher.Text(arrays.text);
  hasher.Number(t.has_parent);
  hasher.Id(t.parent);
  hasher.Number(t.parent_position);
  hasher.Number(t.episode);
  hasher.Number(t.episode_index);
  return hasher.Finish();
}

Hash128 Trajectory::ContentHash() const { return TrajectoryRef(*this).ContentHash(); }

Hash128 HashTokens(const std::vector<std::int32_t>& tokens, std::size_t count) {
  THRESHER_CHECK(count <= tokens.size(), "HashTokens beyond the tokens");
  return HashBytes128(std::as_bytes(std::span(tokens).first(count)));
}

}  // namespace thresher
