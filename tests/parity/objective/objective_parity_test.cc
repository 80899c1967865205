// An oracle written from the papers, not from learner/objective.cc: whole batches at once, float64,
// gradients by autograd.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <random>

#include "learner/objective.h"

namespace thresher::learner {
namespace {

using Spec = ObjectiveSpec;
using torch::Tensor;

struct Batch {
  std::vector<std::vector<float>> logprob, behaviour, old, reference;
  std::vector<std::vector<std::uint8_t>> in_loss;
  std::vector<double> advantage;
  std::vector<std::vector<double>> advantages;  // of each token; empty: of the sequence
  std::size_t longest = 0;
};

Batch RandomBatch(unsigned seed, double spread, bool by_token) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> unit(-1, 1);
  Batch batch;
  for (int sequence = 0; sequence < 7; ++sequence) {
    const std::size_t rows = 1 + random() % 12;
    batch.longest = std::max(batch.longest, rows);
    auto& l = batch.logprob.emplace_back();
    auto& b = batch.behaviour.emplace_back();
    auto& o = batch.old.emplace_back();
    auto& f = batch.reference.emplace_back();
    auto& m = batch.in_loss.emplace_back();
    for (std::size_t i = 0; i < rows; ++i) {
      l.push_back(static_cast<float>(-1.5 + unit(random)));
      b.push_back(l.back() + static_cast<float>(spread * unit(random)));
      o.push_back(l.back() + static_cast<float>(spread * unit(random)));
      f.push_back(l.back() + static_cast<float>(0.5 * unit(random)));
      m.push_back(random() % 4 != 0 || i == 0);
    }
    batch.advantage.push_back(2 * unit(random));
    if (!by_token) continue;
    auto& a = batch.advantages.emplace_back();
    for (std::size_t i = 0; i < rows; ++i) a.push_back(2 * unit(random));
  }
  return batch;
}

// [sequences, longest]; zeros behind a sequence's end.
template <typename T>
Tensor Padded(const std::vector<std::vector<T>>& rows, std::size_t longest) {
  Tensor out =
      torch::zeros({static_cast<long>(rows.size()), static_cast<long>(longest)}, torch::kFloat64);
  for (std::size_t s = 0; s < rows.size(); ++s) {
    for (std::size_t i = 0; i < rows[s].size(); ++i) {
      out[static_cast<long>(s)][static_cast<long>(i)] = static_cast<double>(rows[s][i]);
    }
  }
  return out;
}

struct Oracle {
  Tensor mask, log_ratio, drift, count;

  Tensor MeanOf(const Tensor& x) const {
    return ((x * mask).sum(1) / count).unsqueeze(1).expand_as(mask);
  }
  Tensor SumOf(const Tensor& x) const { return (x * mask).sum(1).unsqueeze(1).expand_as(mask); }
};

Tensor Aggregate(const Spec& spec, const Tensor& losses, const Tensor& mask) {
  switch (spec.aggregate) {
    case Spec::Aggregate::kTokenMean:
      return (losses * mask).sum() / mask.sum();
    case Spec::Aggregate::kSequenceMean:
      return ((losses * mask).sum(1) / mask.sum(1)).mean();
    case Spec::Aggregate::kConstant:
      return ((losses * mask).sum(1) / static_cast<double>(spec.longest)).mean();
  }
  return {};
}

Tensor OracleLoss(const Spec& spec, const Batch& batch, const Tensor& logprob) {
  Oracle at;
  at.mask = Padded(batch.in_loss, batch.longest);
  at.count = at.mask.sum(1);
  const Tensor behaviour = Padded(batch.behaviour, batch.longest);
  const bool recomputed = spec.old == Spec::Old::kRecomputed;
  const Tensor old = recomputed ? Padded(batch.old, batch.longest) : behaviour;
  Tensor advantage =
      torch::tensor(batch.advantage, torch::kFloat64).unsqueeze(1).expand_as(at.mask);
  if (!batch.advantages.empty()) advantage = Padded(batch.advantages, batch.longest);
  const Tensor log_ratio = logprob - old;

  Tensor ratio = torch::exp(log_ratio);
  if (spec.ratio == Spec::Ratio::kSequence) ratio = torch::exp(at.MeanOf(log_ratio));
  const Tensor bounded = torch::clamp(ratio, 1 - spec.clip_low, 1 + spec.clip_high);
  Tensor loss;
  if (spec.ratio == Spec::Ratio::kNone) {
    loss = -advantage * logprob;
  } else if (spec.surrogate == Spec::Surrogate::kClip) {
    loss = torch::max(-advantage * ratio, -advantage * bounded);
    if (spec.dual_clip > 0) {  // as verl writes it
      loss = torch::where(advantage < 0, torch::min(-advantage * spec.dual_clip, loss), loss);
    }
  } else if (spec.surrogate == Spec::Surrogate::kCispo) {
    loss = -bounded.detach() * advantage * logprob;
  } else {
    loss = -ratio * advantage;
  }
  const Tensor drift = (old - behaviour).detach();
  Tensor q = torch::exp(drift);
  if (spec.correction_level == Spec::Level::kSequence) q = torch::exp(at.SumOf(drift));
  if (spec.correction_level == Spec::Level::kGeometric) q = torch::exp(at.MeanOf(drift));
  if (spec.correction == Spec::Correction::kTruncated) {
    loss = loss * torch::clamp(q, 0, spec.correction_high);
  } else if (spec.correction == Spec::Correction::kMasked) {
    const Tensor inside = (q >= spec.correction_low) & (q <= spec.correction_high);
    loss = loss * q * inside;
  }
  if (spec.kl > 0) {
    const Tensor d = logprob - Padded(batch.reference, batch.longest);
    const bool k2 = spec.kl_estimator == Spec::Kl::kK2;
    loss = loss + spec.kl * (k2 ? 0.5 * d * d : torch::exp(-d) - 1 + d);
  }
  return Aggregate(spec, loss, at.mask);
}

std::string Name(const Spec& s) {
  return "aggregate " + std::to_string(int(s.aggregate)) + " ratio " +
         std::to_string(int(s.ratio)) + " surrogate " + std::to_string(int(s.surrogate)) + " old " +
         std::to_string(int(s.old)) + " correction " + std::to_string(int(s.correction)) + "/" +
         std::to_string(int(s.correction_level)) + " kl " + std::to_string(s.kl) + " dual " +
         std::to_string(s.dual_clip);
}

void ExpectEqual(Spec spec, const Batch& batch) {
  spec.sequences = batch.logprob.size();
  spec.longest = 17;
  for (const auto& mask : batch.in_loss) {
    for (auto flag : mask) spec.loss_tokens += flag;
  }
  Tensor logprob = Padded(batch.logprob, batch.longest).requires_grad_();
  const Tensor expected = OracleLoss(spec, batch, logprob);
  expected.backward();
  const Tensor slope = logprob.grad();
  ObjectiveStats stats;
  double largest = 1e-3;
  for (std::size_t s = 0; s < batch.logprob.size(); ++s) {
    std::vector<float> got(batch.logprob[s].size(), 7.0f);
    SequenceTerms terms{batch.logprob[s], batch.behaviour[s], batch.old[s],      batch.reference[s],
                        batch.logprob[s], batch.in_loss[s],   batch.advantage[s]};
    if (!batch.advantages.empty()) terms.advantages = batch.advantages[s];
    AddSequence(spec, terms, got, {}, stats);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double want = slope[static_cast<long>(s)][static_cast<long>(i)].item<double>();
      largest = std::max(largest, std::abs(want));
      // The derivative is handed on in fp32; all before is double.
      ASSERT_NEAR(got[i], want, 1e-7 * std::abs(want) + 1e-12) << Name(spec) << " row " << i;
    }
  }
  ASSERT_NEAR(stats.loss, expected.item<double>(), 1e-12 * (1 + std::abs(stats.loss)))
      << Name(spec);
}

TEST(ObjectiveParity, EveryCompositionEqualsItsPapersFormulaAndAutograd) {
  int compositions = 0;
  for (auto aggregate :
       {Spec::Aggregate::kTokenMean, Spec::Aggregate::kSequenceMean, Spec::Aggregate::kConstant}) {
    for (auto [ratio, surrogate] : {std::pair{Spec::Ratio::kToken, Spec::Surrogate::kClip},
                                    {Spec::Ratio::kToken, Spec::Surrogate::kCispo},
                                    {Spec::Ratio::kToken, Spec::Surrogate::kPlain},
                                    {Spec::Ratio::kSequence, Spec::Surrogate::kClip},
                                    {Spec::Ratio::kSequence, Spec::Surrogate::kCispo},
                                    {Spec::Ratio::kSequence, Spec::Surrogate::kPlain},
                                    {Spec::Ratio::kNone, Spec::Surrogate::kPlain}}) {
      for (auto [old, correction, level] :
           {std::tuple{Spec::Old::kBehaviour, Spec::Correction::kNone, Spec::Level::kToken},
            {Spec::Old::kRecomputed, Spec::Correction::kNone, Spec::Level::kToken},
            {Spec::Old::kRecomputed, Spec::Correction::kTruncated, Spec::Level::kToken},
            {Spec::Old::kRecomputed, Spec::Correction::kTruncated, Spec::Level::kSequence},
            {Spec::Old::kRecomputed, Spec::Correction::kTruncated, Spec::Level::kGeometric},
            {Spec::Old::kRecomputed, Spec::Correction::kMasked, Spec::Level::kToken},
            {Spec::Old::kRecomputed, Spec::Correction::kMasked, Spec::Level::kSequence},
            {Spec::Old::kRecomputed, Spec::Correction::kMasked, Spec::Level::kGeometric}}) {
        for (auto [kl, estimator, dual] : {std::tuple{0.0, Spec::Kl::kK3, 0.0},
                                           {0.04, Spec::Kl::kK3, 1.4},
                                           {0.3, Spec::Kl::kK2, 3.0}}) {
          Spec spec;
          spec.kind = Spec::Kind::kPolicyGradient;
          spec.aggregate = aggregate;
          spec.ratio = ratio;
          spec.surrogate = surrogate;
          spec.old = old;
          spec.correction = correction;
          spec.correction_level = level;
          spec.correction_low = 0.8;
          spec.correction_high = 1.2;
          spec.clip_low = 0.1;
          spec.clip_high = 0.15;
          spec.kl = kl;
          spec.kl_estimator = estimator;
          if (surrogate == Spec::Surrogate::kClip) spec.dual_clip = dual;
          for (unsigned seed = 0; seed < 4; ++seed) {
            ExpectEqual(spec, RandomBatch(seed, seed == 2 ? 0.9 : 0.3, seed == 3));
            if (::testing::Test::HasFatalFailure()) return;
          }
          ++compositions;
        }
      }
    }
  }
  EXPECT_EQ(compositions, 3 * 7 * 8 * 3);
}

// Policy and examples as one graph: c times the mean of -log p of the examples' tokens beside the
// policy's loss.
TEST(ObjectiveParity, SupervisedLossBesideThePolicys) {
  Batch examples = RandomBatch(11, 0.3, false);
  Spec spec;
  spec.kind = Spec::Kind::kPolicyGradient;
  spec.example_coefficient = 0.37;
  for (const auto& mask : examples.in_loss) {
    for (auto flag : mask) spec.example_tokens += flag;
  }
  const Tensor mask = Padded(examples.in_loss, examples.longest);
  Tensor logprob = Padded(examples.logprob, examples.longest).requires_grad_(true);
  const Tensor loss = -0.37 * (logprob * mask).sum() / mask.sum();
  loss.backward();
  ObjectiveStats stats;
  for (std::size_t s = 0; s < examples.logprob.size(); ++s) {
    SequenceTerms terms;
    terms.logprob = examples.logprob[s];
    terms.behaviour = examples.behaviour[s];
    terms.entropy = examples.logprob[s];
    terms.in_loss = examples.in_loss[s];
    std::vector<float> slope(examples.logprob[s].size());
    AddSequence(spec.OfExamples(), terms, slope, {}, stats);
    for (std::size_t i = 0; i < slope.size(); ++i) {
      const double exact =
          logprob.grad()[static_cast<long>(s)][static_cast<long>(i)].item<double>();
      EXPECT_NEAR(static_cast<double>(slope[i]), exact, 1e-7 * std::abs(exact));
    }
  }
  EXPECT_NEAR(stats.loss, loss.item<double>(), 1e-12);
}

}  // namespace
}  // namespace thresher::learner
