#include <algorithm>
#include <bit>
#include <utility>

#include "common/base/check.h"
#include "kernels/cpu/fpenv.h"
#include "learner/leaf.h"
#include "learner/value.h"

namespace thresher::learner {
namespace {

model::TrainRows Rows(const LeafWork& work, const MicroBatch& part, const ObjectiveSpec& spec) {
  model::TrainRows rows;
  const bool supervised = spec.kind == ObjectiveSpec::Kind::kSupervised;
  for (std::size_t s = part.begin; s < part.end; ++s) {
    const TrainSequence& sequence = work.sequences[s];
    for (std::size_t i = 0; i < sequence.in_loss.size(); ++i) {
      rows.token.push_back(sequence.tokens[i]);
      rows.position.push_back(static_cast<std::int32_t>(i));
      rows.target.push_back(sequence.tokens[i + 1]);
      rows.temperature.push_back(supervised ? 1.0f : sequence.temperature);
      THRESHER_CHECK(supervised || !sequence.in_loss[i] || sequence.has_behaviour[i],
                     "a policy token without its behaviour logprob in the loss");
    }
  }
  return rows;
}

// Compares recorded with recomputed logprobs by their bits.
void Audit(const TrainSequence& sequence, std::span<const float> logprob, LeafStats& stats) {
  for (std::size_t i = 0; i < sequence.in_loss.size(); ++i) {
    if (!sequence.has_behaviour[i]) continue;
    ++stats.audited_tokens;
    if (std::bit_cast<std::uint32_t>(sequence.behaviour_logprob[i]) !=
        std::bit_cast<std::uint32_t>(logprob[i])) {
      ++stats.mismatched_tokens;
      ++stats.mismatches_by_actor[sequence.actor];
    }
  }
}

// The sequence's log-probabilities of the batch's first pass, if this is not that pass.
std::span<const float> OldOf(const TrainSequence& sequence, std::span<const float> logprob) {
  if (sequence.old == nullptr) return {};
  if (sequence.old->empty()) sequence.old->assign(logprob.begin(), logprob.end());
  return *sequence.old;
}

// d loss of every row; without an entropy bonus the second is empty.
struct Derivatives {
  std::vector<float> logprob, entropy;
};

// The objective of the micro-batch's sequences.
Derivatives Differentiate(const LeafWork& work, const MicroBatch& part, const ObjectiveSpec& spec,
                          const LeafOptions& options, const model::LogProbResult& forward,
                          std::span<const float> reference, LeafStats& stats) {
  Derivatives d{std::vector<float>(forward.logprob.size()), {}};
  if (spec.HasEntropyBonus()) d.entropy.resize(forward.logprob.size());
  std::size_t row = 0;
  for (std::size_t s = part.begin; s < part.end; ++s) {
    const TrainSequence& sequence = work.sequences[s];
    const std::size_t rows = sequence.in_loss.size();
    const auto logprob = std::span(forward.logprob).subspan(row, rows);
    SequenceTerms terms;
    terms.logprob = logprob;
    terms.behaviour = sequence.behaviour_logprob;
    terms.old = OldOf(sequence, logprob);
    if (!reference.empty()) terms.reference = reference.subspan(row, rows);
    terms.in_loss = sequence.in_loss;
    terms.advantage = sequence.advantage;
    terms.advantages = sequence.values.advantage;
    terms.entropy = std::span(forward.entropy).subspan(row, rows);
    const auto mine = [&](std::vector<float>& all) {
      return all.empty() ? std::span<float>() : std::span(all).subspan(row, rows);
    };
    AddSequence(spec, terms, mine(d.logprob), mine(d.entropy), stats);
    if (options.audit) Audit(sequence, logprob, stats);
    row += rows;
  }
  return d;
}

// d value loss of every row of the micro-batch.
std::vector<float> DifferentiateValues(const LeafWork& work, const MicroBatch& part,
                                       const ObjectiveSpec& spec, const ValueTerm& term,
                                       std::span<const float> value, LeafStats& stats) {
  std::vector<float> out(value.size());
  const double weight = 1.0 / static_cast<double>(std::max<std::uint64_t>(1, spec.loss_tokens));
  std::size_t row = 0;
  for (std::size_t s = part.begin; s < part.end; ++s) {
    const TrainSequence& sequence = work.sequences[s];
    for (std::size_t i = 0; i < sequence.in_loss.size(); ++i, ++row) {
      if (!sequence.in_loss[i]) continue;
      const ValueLoss loss = ValueLossOf(static_cast<double>(value[row]),
                                         static_cast<double>(sequence.values.value[i]),
                                         sequence.values.target[i], term.clip);
      stats.value_loss += weight * loss.loss;
      stats.value_clipped += loss.clipped ? 1 : 0;
      out[row] = static_cast<float>(weight * loss.slope);
    }
  }
  return out;
}

// What the pass's last rows give of the value loss; the Backward to come takes it along.
Status AddValues(model::TrainingPass& pass, const LeafWork& work, const MicroBatch& part,
                 const ObjectiveSpec& spec, const ValueTerm& term, std::span<float> head_gradient,
                 LeafStats& stats) {
  THRESHER_ASSIGN_OR_RETURN(const std::vector<float> value, pass.Values(term.head));
  const std::vector<float> dvalue = DifferentiateValues(work, part, spec, term, value, stats);
  return pass.ValueBackward({term.head, dvalue, term.trunk, head_gradient});
}

// Rows [row, row + size of `like`) of a micro-batch's.
std::vector<float> Slice(const std::vector<float>& all, std::size_t row,
                         const std::vector<std::uint8_t>& like) {
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(row);
  return {begin, begin + static_cast<std::ptrdiff_t>(like.size())};
}

}  // namespace

LeafComputer::LeafComputer(std::unique_ptr<model::TrainingPass> pass) : pass_(std::move(pass)) {}

Result<LeafStats> LeafComputer::Compute(std::shared_ptr<const model::PackedModel> policy,
                                        std::shared_ptr<const model::PackedModel> reference,
                                        const LeafWork& work, const ObjectiveSpec& spec,
                                        const LeafOptions& options, std::span<float> gradient,
                                        std::span<float> head_gradient) {
  kernels::PinFpEnv();
  LeafStats stats;
  THRESHER_RETURN_IF_ERROR(pass_->BeginLeaf(std::move(policy), gradient));
  for (const MicroBatch& part : CutMicroBatches(work.sequences, options.micro_batch_tokens)) {
    const model::TrainRows rows = Rows(work, part, spec);
    std::vector<float> base;
    if (reference != nullptr) {
      THRESHER_ASSIGN_OR_RETURN(base, pass_->ReferenceLogProbs(reference, rows));
    }
    THRESHER_ASSIGN_OR_RETURN(const auto forward, pass_->LogProbs(rows, options.recompute));
    const Derivatives d = Differentiate(work, part, spec, options, forward, base, stats);
    if (options.value != nullptr) {
      THRESHER_RETURN_IF_ERROR(
          AddValues(*pass_, work, part, spec, *options.value, head_gradient, stats));
    }
    THRESHER_RETURN_IF_ERROR(pass_->Backward(d.logprob, d.entropy));
    stats.rows += part.rows;
  }
  THRESHER_RETURN_IF_ERROR(pass_->EndLeaf());
  return stats;
}

Result<std::vector<std::vector<float>>> LeafComputer::LogProbs(
    std::shared_ptr<const model::PackedModel> policy, const LeafOptions& options,
    const LeafWork& work) {
  kernels::PinFpEnv();
  ObjectiveSpec spec;
  spec.kind = ObjectiveSpec::Kind::kPolicyGradient;
  std::vector<std::vector<float>> out;
  THRESHER_RETURN_IF_ERROR(pass_->BeginLeaf(policy, {}));
  for (const MicroBatch& part : CutMicroBatches(work.sequences, options.micro_batch_tokens)) {
    THRESHER_ASSIGN_OR_RETURN(const std::vector<float> logprob,
                              pass_->ReferenceLogProbs(policy, Rows(work, part, spec)));
    std::size_t row = 0;
    for (std::size_t s = part.begin; s < part.end; ++s) {
      out.push_back(Slice(logprob, row, work.sequences[s].in_loss));
      row += work.sequences[s].in_loss.size();
    }
  }
  THRESHER_RETURN_IF_ERROR(pass_->EndLeaf());
  return out;
}

Status LeafComputer::Evaluate(std::shared_ptr<const model::PackedModel> critic,
                              std::shared_ptr<const model::PackedModel> policy,
                              const ValueTerm& term, const LeafOptions& options, LeafWork& work) {
  kernels::PinFpEnv();
  ObjectiveSpec spec;
  spec.kind = ObjectiveSpec::Kind::kPolicyGradient;
  THRESHER_RETURN_IF_ERROR(pass_->BeginLeaf(critic != nullptr ? critic : policy, {}));
  for (const MicroBatch& part : CutMicroBatches(work.sequences, options.micro_batch_tokens)) {
    const model::TrainRows rows = Rows(work, part, spec);
    std::vector<float> logprob;
    if (policy != nullptr) {
      THRESHER_ASSIGN_OR_RETURN(logprob, pass_->ReferenceLogProbs(policy, rows));
    }
    if (critic != nullptr) THRESHER_RETURN_IF_ERROR(pass_->Hidden(rows, std::nullopt));
    THRESHER_ASSIGN_OR_RETURN(const std::vector<float> value, pass_->Values(term.head));
    std::size_t row = 0;
    for (std::size_t s = part.begin; s < part.end; ++s) {
      TrainSequence& sequence = work.sequences[s];
      sequence.values.value = Slice(value, row, sequence.in_loss);
      if (policy != nullptr) sequence.values.logprob = Slice(logprob, row, sequence.in_loss);
      row += sequence.in_loss.size();
    }
  }
  return pass_->EndLeaf();
}

Result<LeafStats> LeafComputer::ComputeValues(std::shared_ptr<const model::PackedModel> critic,
                                              const LeafWork& work, const ObjectiveSpec& spec,
                                              const ValueTerm& term, const LeafOptions& options,
                                              std::span<float> gradient,
                                              std::span<float> head_gradient) {
  kernels::PinFpEnv();
  LeafStats stats;
  THRESHER_RETURN_IF_ERROR(pass_->BeginLeaf(std::move(critic), gradient));
  const auto tape =
      options.recompute ? model::TapeKind::kLayerInputs : model::TapeKind::kAllActivations;
  for (const MicroBatch& part : CutMicroBatches(work.sequences, options.micro_batch_tokens)) {
    THRESHER_RETURN_IF_ERROR(pass_->Hidden(Rows(work, part, spec), tape));
    THRESHER_RETURN_IF_ERROR(AddValues(*pass_, work, part, spec, term, head_gradient, stats));
    THRESHER_RETURN_IF_ERROR(pass_->Backward({}, {}));
  }
  THRESHER_RETURN_IF_ERROR(pass_->EndLeaf());
  return stats;
}

}  // namespace thresher::learner
