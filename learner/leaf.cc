#include "learner/leaf.h"

#include <algorithm>

#include "common/base/check.h"

namespace thresher::learner {

TrainSequence PrepareSequence(const Trajectory& trajectory, double advantage) {
  TrainSequence out;
  const std::size_t count = trajectory.tokens.size();
  THRESHER_CHECK(count >= 2,
                 "trajectory " + trajectory.id.ToString() + " is too short to train on");
  out.tokens = trajectory.tokens;
  out.in_loss.assign(count - 1, 0);
  out.has_behaviour.assign(count - 1, 0);
  out.behaviour_logprob.assign(count - 1, 0.0f);
  out.kept_mass.assign(count - 1, 0.0f);
  std::size_t next_logprob = 0;
  for (const Segment& segment : trajectory.segments) {
    for (std::uint32_t i = segment.begin; i < segment.end; ++i) {
      bool recorded = segment.role == Role::kPolicy && !trajectory.logprobs.empty();
      const std::size_t at = next_logprob;
      const float logprob = recorded ? trajectory.logprobs[next_logprob++] : 0.0f;
      if (i == 0) continue;  // nothing predicts the first token
      out.in_loss[i - 1] = segment.in_loss;
      out.has_behaviour[i - 1] = recorded;
      out.behaviour_logprob[i - 1] = logprob;
      if (recorded && !trajectory.kept_mass_logprobs.empty()) {
        out.kept_mass[i - 1] = trajectory.kept_mass_logprobs[at];
      }
    }
  }
  const SamplingParams& sampling = trajectory.sampling;
  out.temperature = sampling.temperature;
  out.filter = {sampling.top_k, sampling.top_p, sampling.min_p, sampling.repetition_penalty};
  out.advantage = advantage;
  out.actor = trajectory.actor.value;
  out.id = trajectory.id;
  return out;
}

std::vector<MicroBatch> CutMicroBatches(const std::vector<TrainSequence>& sequences,
                                        std::size_t max_tokens) {
  std::vector<MicroBatch> out;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    std::size_t rows = sequences[i].in_loss.size();
    if (out.empty() || out.back().rows + rows > max_tokens) out.push_back({i, i, 0});
    out.back().end = i + 1;
    out.back().rows += rows;
  }
  return out;
}

void LeafStats::Add(const LeafStats& other) {
  ObjectiveStats::Add(other);
  value_loss += other.value_loss;
  value_clipped += other.value_clipped;
  rows += other.rows;
  example_logprob += other.example_logprob;
  example_tokens += other.example_tokens;
  kept_mass += other.kept_mass;
  outside_support += other.outside_support;
  audited_tokens += other.audited_tokens;
  mismatched_tokens += other.mismatched_tokens;
  for (const auto& [actor, count] : other.mismatches_by_actor) mismatches_by_actor[actor] += count;
}

}  // namespace thresher::learner
