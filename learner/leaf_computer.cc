#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "kernels/cpu/fpenv.h"
#include "learner/leaf.h"
#include "learner/value.h"

namespace thresher::learner {
namespace {

using Sequences = std::vector<TrainSequence>;

bool IsFiltered(const model::RowFilter& f) {
  return f.top_k > 0 || f.top_p < 1.0f || f.min_p > 0.0f || f.repetition_penalty != 1.0f;
}

// supports: those of filtered rows are wanted.
model::TrainRows Rows(const Sequences& sequences, const MicroBatch& part, const ObjectiveSpec& spec,
                      bool supports = false) {
  model::TrainRows rows;
  const bool supervised = spec.kind == ObjectiveSpec::Kind::kSupervised;
  bool filtered = false;
  for (std::size_t s = part.begin; s < part.end; ++s) {
    const TrainSequence& sequence = sequences[s];
    for (std::size_t i = 0; i < sequence.in_loss.size(); ++i) {
      rows.token.push_back(sequence.tokens[i]);
      rows.position.push_back(static_cast<std::int32_t>(i));
      rows.target.push_back(sequence.tokens[i + 1]);
      rows.temperature.push_back(supervised ? 1.0f : sequence.temperature);
      const bool own = sequence.has_behaviour[i] != 0;
      if (supports) rows.filter.push_back(own ? sequence.filter : model::RowFilter{});
      THRESHER_CHECK(supervised || !sequence.in_loss[i] || sequence.has_behaviour[i],
                     "a policy token without its behaviour logprob in the loss");
    }
    filtered = filtered || IsFiltered(sequence.filter);
  }
  if (!filtered) rows.filter.clear();
  rows.within_support = supports && spec.OverSupports() && filtered;
  return rows;
}

bool SameBits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

// One sequence's rows of a forward pass.
struct SequenceRows {
  std::span<const float> logprob, entropy;
  std::span<const kernels::HeadSupport> support;  // empty unless asked for
};

// Compares recorded with recomputed logprobs, and kept masses where they are at hand, by their
// bits.
void Audit(const TrainSequence& sequence, const SequenceRows& rows, LeafStats& stats) {
  for (std::size_t i = 0; i < sequence.in_loss.size(); ++i) {
    if (!sequence.has_behaviour[i]) continue;
    ++stats.audited_tokens;
    const bool kept =
        rows.support.empty() || SameBits(sequence.kept_mass[i], rows.support[i].kept_mass_logprob);
    if (!kept || !SameBits(sequence.behaviour_logprob[i], rows.logprob[i])) {
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

// Log-probabilities of a sequence under the distributions that its tokens are drawn from: now, and
// as it was recorded. Equal supports of equal policies leave equal bits.
struct Sampled {
  std::vector<float> logprob, behaviour;

  Sampled(const TrainSequence& sequence, const SequenceRows& rows) {
    for (std::size_t i = 0; i < rows.support.size(); ++i) {
      logprob.push_back(rows.logprob[i] - rows.support[i].kept_mass_logprob);
      behaviour.push_back(sequence.behaviour_logprob[i] - sequence.kept_mass[i]);
    }
  }
};

void CountSupports(const TrainSequence& sequence, const SequenceRows& rows, LeafStats& stats) {
  for (std::size_t i = 0; i < sequence.in_loss.size(); ++i) {
    if (sequence.in_loss[i] == 0) continue;
    const bool whole = rows.support.empty();
    stats.kept_mass +=
        whole ? 1.0 : std::exp(static_cast<double>(rows.support[i].kept_mass_logprob));
    stats.outside_support += whole || rows.support[i].holds_target ? 0 : 1;
  }
}

// The objective of the micro-batch's sequences.
Derivatives Differentiate(const Sequences& sequences, const MicroBatch& part,
                          const ObjectiveSpec& spec, const LeafOptions& options,
                          const model::LogProbResult& forward, std::span<const float> reference,
                          LeafStats& stats) {
  Derivatives d{std::vector<float>(forward.logprob.size()), {}};
  if (spec.HasEntropyBonus()) d.entropy.resize(forward.logprob.size());
  std::size_t row = 0;
  for (std::size_t s = part.begin; s < part.end; ++s) {
    const TrainSequence& sequence = sequences[s];
    const std::size_t rows = sequence.in_loss.size();
    SequenceRows at{std::span(forward.logprob).subspan(row, rows),
                    std::span(forward.entropy).subspan(row, rows),
                    {}};
    if (!forward.support.empty()) at.support = std::span(forward.support).subspan(row, rows);
    const bool over_supports = spec.OverSupports() && !at.support.empty();
    const Sampled sampled(sequence, over_supports ? at : SequenceRows{});
    CountSupports(sequence, over_supports ? at : SequenceRows{}, stats);
    SequenceTerms terms;
    terms.logprob = over_supports ? sampled.logprob : at.logprob;
    terms.behaviour = over_supports ? sampled.behaviour : sequence.behaviour_logprob;
    terms.old = OldOf(sequence, terms.logprob);
    terms.reference = sequence.values.reference;
    if (!reference.empty()) terms.reference = reference.subspan(row, rows);
    terms.in_loss = sequence.in_loss;
    terms.advantage = sequence.advantage;
    terms.advantages = sequence.values.advantage;
    terms.entropy = at.entropy;
    const auto mine = [&](std::vector<float>& all) {
      return all.empty() ? std::span<float>() : std::span(all).subspan(row, rows);
    };
    AddSequence(spec, terms, mine(d.logprob), mine(d.entropy), stats);
    if (options.audit) Audit(sequence, at, stats);
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
                                        std::span<float> head_gradient,
                                        const model::OnFinal& on_final) {
  kernels::PinFpEnv();
  LeafStats stats;
  THRESHER_RETURN_IF_ERROR(pass_->BeginLeaf(std::move(policy), gradient));
  for (const MicroBatch& part : CutMicroBatches(work.sequences, options.micro_batch_tokens)) {
    const bool supports =
        spec.OverSupports() || (options.audit && pass_->FindsSupports() &&
                                spec.kind == ObjectiveSpec::Kind::kPolicyGradient);
    const model::TrainRows rows = Rows(work.sequences, part, spec, supports);
    std::vector<float> base;
    if (reference != nullptr) {
      THRESHER_ASSIGN_OR_RETURN(base, pass_->ReferenceLogProbs(reference, rows));
    }
    THRESHER_ASSIGN_OR_RETURN(const auto forward, pass_->LogProbs(rows, options.recompute));
    const Derivatives d = Differentiate(work.sequences, part, spec, options, forward, base, stats);
    if (options.value != nullptr) {
      THRESHER_RETURN_IF_ERROR(
          AddValues(*pass_, work, part, spec, *options.value, head_gradient, stats));
    }
    const bool last = work.examples.empty() && part.end == work.sequences.size();
    if (on_final && last) pass_->TellFinal(on_final);
    THRESHER_RETURN_IF_ERROR(pass_->Backward(d.logprob, d.entropy));
    stats.rows += part.rows;
  }
  THRESHER_RETURN_IF_ERROR(AddExamples(work.examples, spec.OfExamples(), options, stats, on_final));
  THRESHER_RETURN_IF_ERROR(pass_->EndLeaf());
  return stats;
}

Status LeafComputer::AddExamples(const Sequences& examples, const ObjectiveSpec& spec,
                                 const LeafOptions& options, LeafStats& stats,
                                 const model::OnFinal& on_final) {
  LeafOptions unaudited = options;
  unaudited.audit = false;
  for (const MicroBatch& part : CutMicroBatches(examples, options.micro_batch_tokens)) {
    LeafStats own;
    THRESHER_ASSIGN_OR_RETURN(const auto forward,
                              pass_->LogProbs(Rows(examples, part, spec), options.recompute));
    const Derivatives d = Differentiate(examples, part, spec, unaudited, forward, {}, own);
    if (on_final && part.end == examples.size()) pass_->TellFinal(on_final);
    THRESHER_RETURN_IF_ERROR(pass_->Backward(d.logprob, d.entropy));
    stats.loss += own.loss;
    stats.example_logprob += own.logprob;
    stats.example_tokens += own.loss_tokens;
    stats.rows += part.rows;
  }
  return Status::Ok();
}

Result<std::vector<std::vector<float>>> LeafComputer::LogProbs(
    std::shared_ptr<const model::PackedModel> policy, const LeafOptions& options,
    const LeafWork& work, ObjectiveSpec::Kind kind) {
  kernels::PinFpEnv();
  ObjectiveSpec spec;
  spec.kind = kind;
  std::vector<std::vector<float>> out;
  THRESHER_RETURN_IF_ERROR(pass_->BeginLeaf(policy, {}));
  for (const MicroBatch& part : CutMicroBatches(work.sequences, options.micro_batch_tokens)) {
    THRESHER_ASSIGN_OR_RETURN(const std::vector<float> logprob,
                              pass_->ReferenceLogProbs(policy, Rows(work.sequences, part, spec)));
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
    const model::TrainRows rows = Rows(work.sequences, part, spec);
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
    THRESHER_RETURN_IF_ERROR(pass_->Hidden(Rows(work.sequences, part, spec), tape));
    THRESHER_RETURN_IF_ERROR(AddValues(*pass_, work, part, spec, term, head_gradient, stats));
    THRESHER_RETURN_IF_ERROR(pass_->Backward({}, {}));
  }
  THRESHER_RETURN_IF_ERROR(pass_->EndLeaf());
  return stats;
}

}  // namespace thresher::learner
