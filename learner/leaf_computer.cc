#include <bit>
#include <utility>

#include "common/base/check.h"
#include "kernels/cpu/fpenv.h"
#include "learner/leaf.h"

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
Derivatives Differentiate(const LeafWork& work, const MicroBatch& part,
                                 const ObjectiveSpec& spec, const LeafOptions& options,
                                 const model::LogProbResult& forward,
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

}  // namespace

LeafComputer::LeafComputer(std::unique_ptr<model::TrainingPass> pass) : pass_(std::move(pass)) {}

Result<LeafStats> LeafComputer::Compute(std::shared_ptr<const model::PackedModel> policy,
                                        std::shared_ptr<const model::PackedModel> reference,
                                        const LeafWork& work, const ObjectiveSpec& spec,
                                        const LeafOptions& options, std::span<float> gradient) {
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
    THRESHER_RETURN_IF_ERROR(pass_->Backward(d.logprob, d.entropy));
    stats.rows += part.rows;
  }
  THRESHER_RETURN_IF_ERROR(pass_->EndLeaf());
  return stats;
}

}  // namespace thresher::learner
