#include "learner/objective.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/base/check.h"

namespace thresher::learner {
namespace {

using Spec = ObjectiveSpec;

// A sequence's loss tokens, in order.
struct Tokens {
  std::vector<std::size_t> row;
  std::vector<double> log_ratio;  // l - o
  std::vector<double> drift;      // o - b
  double weight = 0;
};

double At(std::span<const float> values, std::size_t i) { return static_cast<double>(values[i]); }

Tokens LossTokens(const Spec& spec, const SequenceTerms& terms) {
  Tokens tokens;
  for (std::size_t i = 0; i < terms.in_loss.size(); ++i) {
    if (terms.in_loss[i] == 0) continue;
    const double now = At(terms.logprob, i);
    const double drawn = At(terms.behaviour, i);
    const bool recomputed = spec.old == Spec::Old::kRecomputed;
    const double old = !recomputed ? drawn : terms.old.empty() ? now : At(terms.old, i);
    tokens.row.push_back(i);
    tokens.log_ratio.push_back(now - old);
    tokens.drift.push_back(old - drawn);
  }
  tokens.weight = TokenWeight(spec, tokens.row.size());
  return tokens;
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

// One token's surrogate: its value, and its derivative with regard to the ratio (kClip, kPlain) or
// to the log-probability itself.
struct Surrogate {
  double value = 0;
  double by_ratio = 0;
  double by_logprob = 0;
  bool low = false, high = false;  // a bound cut the gradient off
};

Surrogate Clip(const Spec& spec, double ratio, double advantage) {
  const double bounded = std::clamp(ratio, 1.0 - spec.clip_low, 1.0 + spec.clip_high);
  Surrogate out;
  out.value = -std::min(ratio * advantage, bounded * advantage);
  const bool cut = bounded * advantage < ratio * advantage;
  const bool dual = spec.dual_clip > 0 && advantage < 0 && ratio > spec.dual_clip;
  if (dual) out.value = -spec.dual_clip * advantage;
  out.low = cut && ratio < bounded;
  out.high = dual || (cut && ratio > bounded);
  if (!cut && !dual) out.by_ratio = -advantage;
  return out;
}

Surrogate SurrogateOf(const Spec& spec, double ratio, double advantage, double logprob) {
  if (spec.surrogate == Spec::Surrogate::kClip) return Clip(spec, ratio, advantage);
  Surrogate out;
  if (spec.surrogate == Spec::Surrogate::kCispo) {
    const double bounded = std::clamp(ratio, 1.0 - spec.clip_low, 1.0 + spec.clip_high);
    out.value = -bounded * advantage * logprob;
    out.by_logprob = -bounded * advantage;
    out.low = ratio < bounded;
    out.high = ratio > bounded;
  } else if (spec.ratio == Spec::Ratio::kNone) {
    out.value = -advantage * logprob;
    out.by_logprob = -advantage;
  } else {
    out.value = -ratio * advantage;
    out.by_ratio = -advantage;
  }
  return out;
}

// c of each loss token.
std::vector<double> Corrections(const Spec& spec, const Tokens& tokens, ObjectiveStats& stats) {
  std::vector<double> out(tokens.row.size(), 1.0);
  if (spec.correction == Spec::Correction::kNone) return out;
  const double mean = Mean(tokens.drift);
  const double count = static_cast<double>(tokens.row.size());
  for (std::size_t k = 0; k < out.size(); ++k) {
    const double log = spec.correction_level == Spec::Level::kToken      ? tokens.drift[k]
                       : spec.correction_level == Spec::Level::kSequence ? mean * count
                                                                         : mean;
    const double q = std::exp(log);
    const bool truncated = spec.correction == Spec::Correction::kTruncated;
    const bool inside = q <= spec.correction_high && (truncated || q >= spec.correction_low);
    out[k] = inside ? q : truncated ? spec.correction_high : 0.0;
    if (!inside) ++stats.corrected;
  }
  return out;
}

void CountToken(const SequenceTerms& terms, std::size_t row, ObjectiveStats& stats) {
  const double d = At(terms.logprob, row) - At(terms.behaviour, row);
  stats.k1 -= d;  // KL(b | pi): of what b drew
  stats.k2 += 0.5 * d * d;
  stats.k3 += std::exp(d) - d - 1.0;
  const double weight = std::exp(d);
  stats.weight += weight;
  stats.weight_square += weight * weight;
}

void AddPolicy(const Spec& spec, const SequenceTerms& terms, const Tokens& tokens,
               std::span<float> dlogprob, ObjectiveStats& stats) {
  const bool sequence = spec.ratio == Spec::Ratio::kSequence;
  const double shared = sequence ? std::exp(Mean(tokens.log_ratio)) : 1.0;
  const std::vector<double> correction = Corrections(spec, tokens, stats);
  std::vector<double> gradient(tokens.row.size(), 0.0);
  double by_shared = 0;  // derivative with regard to the sequence's ratio
  for (std::size_t k = 0; k < tokens.row.size(); ++k) {
    const std::size_t row = tokens.row[k];
    const double ratio = spec.ratio == Spec::Ratio::kToken ? std::exp(tokens.log_ratio[k]) : shared;
    const double advantage = terms.advantages.empty() ? terms.advantage : terms.advantages[row];
    const Surrogate part = SurrogateOf(spec, ratio, advantage, At(terms.logprob, row));
    const double scale = tokens.weight * correction[k];
    stats.loss += scale * part.value;
    gradient[k] = scale * part.by_logprob;
    if (sequence) {
      by_shared += scale * part.by_ratio;
    } else {
      gradient[k] += scale * part.by_ratio * ratio;
    }
    if (!terms.reference.empty()) {
      const double d = At(terms.logprob, row) - At(terms.reference, row);
      stats.reference_kl += KlPenaltyOf(Spec::Kl::kK3, d).value;
      if (spec.kl > 0) {
        const auto [value, slope] = KlPenaltyOf(spec.kl_estimator, d);
        stats.loss += tokens.weight * spec.kl * value;
        gradient[k] += tokens.weight * spec.kl * slope;
      }
    }
    CountToken(terms, row, stats);
    stats.ratio += ratio;
    stats.ratio_min = std::min(stats.ratio_min, ratio);
    stats.ratio_max = std::max(stats.ratio_max, ratio);
    stats.clipped_low += part.low ? 1 : 0;
    stats.clipped_high += part.high ? 1 : 0;
    stats.correction += correction[k];
  }
  const double each = by_shared * shared / static_cast<double>(tokens.row.size());
  for (std::size_t k = 0; k < tokens.row.size(); ++k) {
    dlogprob[tokens.row[k]] = static_cast<float>(gradient[k] + each);
  }
}

}  // namespace

void ObjectiveStats::Add(const ObjectiveStats& other) {
  loss += other.loss;
  logprob += other.logprob;
  entropy += other.entropy;
  k1 += other.k1;
  k2 += other.k2;
  k3 += other.k3;
  reference_kl += other.reference_kl;
  clipped_low += other.clipped_low;
  clipped_high += other.clipped_high;
  ratio += other.ratio;
  weight += other.weight;
  weight_square += other.weight_square;
  correction += other.correction;
  corrected += other.corrected;
  ratio_min = std::min(ratio_min, other.ratio_min);
  ratio_max = std::max(ratio_max, other.ratio_max);
  loss_tokens += other.loss_tokens;
}

KlPenalty KlPenaltyOf(ObjectiveSpec::Kl estimator, double d) {
  if (estimator == Spec::Kl::kK1) return {d, 1.0};
  if (estimator == Spec::Kl::kK2) return {0.5 * d * d, d};
  return {std::exp(-d) + d - 1.0, 1.0 - std::exp(-d)};
}

double TokenWeight(const ObjectiveSpec& spec, std::size_t sequence_tokens) {
  const auto whole = [](std::uint64_t n) {
    return static_cast<double>(std::max<std::uint64_t>(1, n));
  };
  switch (spec.aggregate) {
    case Spec::Aggregate::kTokenMean:
      return 1.0 / whole(spec.loss_tokens);
    case Spec::Aggregate::kSequenceMean:
      return 1.0 / (whole(spec.sequences) * whole(sequence_tokens));
    case Spec::Aggregate::kConstant:
      return 1.0 / (whole(spec.sequences) * whole(spec.longest));
  }
  return 0;
}

void AddSequence(const ObjectiveSpec& spec, const SequenceTerms& terms, std::span<float> dlogprob,
                 std::span<float> dentropy, ObjectiveStats& stats) {
  THRESHER_CHECK(!spec.NeedsReference() || terms.reference.size() == terms.logprob.size(),
                 "a KL penalty without a reference policy");
  std::ranges::fill(dlogprob, 0.0f);
  std::ranges::fill(dentropy, 0.0f);
  const Tokens tokens = LossTokens(spec, terms);
  if (tokens.row.empty()) return;
  stats.loss_tokens += tokens.row.size();
  for (std::size_t row : tokens.row) {
    stats.logprob += At(terms.logprob, row);
    stats.entropy += At(terms.entropy, row);
    if (!spec.HasEntropyBonus()) continue;
    stats.loss -= tokens.weight * spec.entropy * At(terms.entropy, row);
    dentropy[row] = static_cast<float>(-tokens.weight * spec.entropy);
  }
  if (spec.kind == Spec::Kind::kPolicyGradient) {
    return AddPolicy(spec, terms, tokens, dlogprob, stats);
  }
  const double weight = spec.coefficient * tokens.weight;
  for (std::size_t row : tokens.row) {
    stats.loss -= weight * At(terms.logprob, row);
    dlogprob[row] = static_cast<float>(-weight);
  }
}

ObjectiveSpec ObjectiveSpec::OfExamples() const {
  ObjectiveSpec spec;
  spec.kind = Kind::kSupervised;
  spec.coefficient = example_coefficient;
  spec.loss_tokens = example_tokens;
  return spec;
}

}  // namespace thresher::learner
