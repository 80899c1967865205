#include "learner/objective.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "common/base/random.h"

namespace thresher::learner {
namespace {

using Spec = ObjectiveSpec;

struct Tokens {
  std::vector<float> logprob, behaviour, old, reference, entropy;
  std::vector<std::uint8_t> in_loss;
  double advantage = 1;
  std::vector<double> advantages;  // of each token; empty: `advantage`
  void Add(double lp, double b, double ref = 0, bool counts = true) {
    logprob.push_back(static_cast<float>(lp)), behaviour.push_back(static_cast<float>(b));
    reference.push_back(static_cast<float>(ref)), in_loss.push_back(counts);
    entropy.push_back(0.1f * static_cast<float>(logprob.size()));
  }
};

struct Outcome {
  ObjectiveStats stats;
  std::vector<float> gradient, of_entropy;
};

Outcome Evaluate(const Spec& spec, const Tokens& t) {
  Outcome out;
  out.gradient.assign(t.logprob.size(), 7.0f);
  out.of_entropy = out.gradient;
  AddSequence(
      spec,
      {t.logprob, t.behaviour, t.old, t.reference, t.entropy, t.in_loss, t.advantage, t.advantages},
      out.gradient, out.of_entropy, out.stats);
  return out;
}

Spec Policy(double kl = 0) {
  Spec spec;
  spec.kind = Spec::Kind::kPolicyGradient;
  spec.clip_low = 0.2;
  spec.clip_high = 0.28;
  spec.kl = kl;
  spec.loss_tokens = 1;
  spec.sequences = 1;
  return spec;
}

Tokens RandomTokens(std::size_t count, unsigned seed) {
  RandomSequence random(seed, {}, RandomPurpose::kBootstrap);
  Tokens tokens;
  for (std::size_t i = 0; i < count; ++i) {
    const double lp = -3 * random.NextUniform();
    tokens.Add(lp, lp + 0.6 * random.NextUniform() - 0.3, lp + random.NextUniform() - 0.5,
               i % 5 != 4);
    tokens.old.push_back(static_cast<float>(lp + 0.6 * random.NextUniform() - 0.3));
  }
  tokens.advantage = 4 * random.NextUniform() - 2;
  for (std::size_t i = 0; seed % 2 == 1 && i < count; ++i) {
    tokens.advantages.push_back(4 * random.NextUniform() - 2);
  }
  return tokens;
}

std::vector<Spec> Compositions() {
  std::vector<Spec> specs = {Spec()};
  for (auto [ratio, surrogate] : {std::pair{Spec::Ratio::kToken, Spec::Surrogate::kClip},
                                  {Spec::Ratio::kToken, Spec::Surrogate::kPlain},
                                  {Spec::Ratio::kSequence, Spec::Surrogate::kClip},
                                  {Spec::Ratio::kSequence, Spec::Surrogate::kPlain},
                                  {Spec::Ratio::kNone, Spec::Surrogate::kPlain}}) {
    for (auto correction :
         {Spec::Correction::kNone, Spec::Correction::kTruncated, Spec::Correction::kMasked}) {
      Spec spec = Policy(0.1);
      spec.ratio = ratio;
      spec.surrogate = surrogate;
      spec.correction = correction;
      spec.correction_low = 0.9;
      spec.correction_high = 1.1;
      if (correction != Spec::Correction::kNone) spec.old = Spec::Old::kRecomputed;
      specs.push_back(spec);
    }
  }
  for (Spec& spec : specs) spec.loss_tokens = 16;
  return specs;
}

// CISPO's weight is a constant of the gradient: it has no such slope.
TEST(Objective, DerivativesAreTheSlopesOfTheLoss) {
  constexpr float kStep = 0x1p-11f;
  for (const Spec& spec : Compositions()) {
    for (unsigned seed = 0; seed < 8; ++seed) {
      const Tokens t = RandomTokens(20, seed);
      const Outcome got = Evaluate(spec, t);
      for (std::size_t i = 0; i < t.logprob.size(); ++i) {
        const auto at = [&](float step) {
          Tokens moved = t;
          moved.logprob[i] += step;
          return Evaluate(spec, moved).stats;
        };
        const ObjectiveStats before = at(-kStep), behind = at(kStep);
        const double run = double(t.logprob[i] + kStep) - (t.logprob[i] - kStep);
        const double slope = (behind.loss - before.loss) / run;
        // A bound that lies between is a kink.
        const auto clipped = [](const ObjectiveStats& s) { return s.clipped_low + s.clipped_high; };
        if (clipped(before) != clipped(behind)) continue;
        // Third derivatives over such a step.
        EXPECT_NEAR(got.gradient[i], slope, 1e-6 * (0.05 + std::abs(slope))) << i;
      }
    }
  }
}

TEST(Objective, AnAdvantageOfEachTokenIsThatOfTheSequenceWhereAllAreEqual) {
  for (const Spec& spec : Compositions()) {
    Tokens t = RandomTokens(20, 2);
    const Outcome whole = Evaluate(spec, t);
    t.advantages.assign(20, t.advantage);
    t.advantage = 7;  // is not looked at
    const Outcome each = Evaluate(spec, t);
    EXPECT_EQ(each.stats.loss, whole.stats.loss);
    EXPECT_EQ(each.gradient, whole.gradient);
    t.advantages[3] += 1;
    if (spec.kind == Spec::Kind::kSupervised) continue;
    EXPECT_NE(Evaluate(spec, t).stats.loss, whole.stats.loss);
  }
}

TEST(Objective, ClipsOnlyWhereTheClippedBranchIsTheSmallerOne) {
  struct Case {
    double ratio, advantage, loss;
    bool clipped;
  };
  // Bounds 0.8 and 1.28: separate, so that one in the other's place would show.
  const Case cases[] = {
      {2.0, 1.5, -1.28 * 1.5, true},    // A > 0, above: no more reward for going further
      {1.25, 1.5, -1.25 * 1.5, false},  // A > 0, inside; beyond 1 + clip_low
      {0.5, 1.5, -0.5 * 1.5, false},    // A > 0, below: the way back is open
      {0.5, -1.5, 0.8 * 1.5, true},     // A < 0, below
      {0.85, -1.5, 0.85 * 1.5, false},  // A < 0, inside
      {2.0, -1.5, 2.0 * 1.5, false},    // A < 0, above: punished in full
      {2.0, 0.0, 0.0, false},
  };
  for (const Case& c : cases) {
    Tokens t;
    t.Add(-1.0 + std::log(c.ratio), -1.0);
    t.advantage = c.advantage;
    const Outcome got = Evaluate(Policy(), t);
    EXPECT_NEAR(got.stats.loss, c.loss, 1e-6) << c.ratio << " " << c.advantage;
    EXPECT_EQ(got.stats.clipped_low, c.clipped && c.ratio < 1) << c.ratio << " " << c.advantage;
    EXPECT_EQ(got.stats.clipped_high, c.clipped && c.ratio > 1) << c.ratio << " " << c.advantage;
    const double slope = c.clipped ? 0.0 : -c.ratio * c.advantage;
    EXPECT_NEAR(got.gradient[0], slope, 1e-6) << c.ratio << " " << c.advantage;
    if (c.clipped) {
      EXPECT_EQ(got.gradient[0], 0.0f);
    }
  }
}

TEST(Objective, TheDualBoundLimitsPunishment) {
  Spec spec = Policy();
  spec.dual_clip = 3;
  for (double ratio : {2.0, 5.0}) {
    for (double advantage : {1.0, -1.0}) {
      Tokens t;
      t.Add(-1.0 + std::log(ratio), -1.0);
      t.advantage = advantage;
      const Outcome got = Evaluate(spec, t);
      const bool bounded = ratio > 3 && advantage < 0;
      const double loss = advantage > 0 ? -1.28 : bounded ? 3.0 : ratio;
      EXPECT_NEAR(got.stats.loss, loss, 1e-6);
      EXPECT_EQ(got.gradient[0] == 0, bounded || advantage > 0);
    }
  }
}

TEST(Objective, CispoKeepsTheGradientOfEveryToken) {
  Spec spec = Policy();
  spec.surrogate = Spec::Surrogate::kCispo;
  for (auto [ratio, weight] : {std::pair{0.1, 0.8}, {1.1, 1.1}, {9.0, 1.28}}) {
    for (double advantage : {2.0, -0.5}) {
      Tokens t;
      t.Add(-1.0 + std::log(ratio), -1.0);
      t.advantage = advantage;
      EXPECT_NEAR(Evaluate(spec, t).gradient[0], -weight * advantage, 1e-6);
    }
  }
}

// GSPO, eq. 7: one ratio for the sequence, its geometric mean.
TEST(Objective, ASequencesRatioIsSharedByItsTokens) {
  Spec spec = Policy();
  spec.ratio = Spec::Ratio::kSequence;
  spec.aggregate = Spec::Aggregate::kSequenceMean;
  Tokens t;
  for (double drift : {0.3, -0.1, 0.1}) t.Add(-1 + drift, -1);
  t.Add(5, -900, 0, false);
  t.advantage = 2;
  const Outcome got = Evaluate(spec, t);
  const double ratio = std::exp(0.1);
  EXPECT_NEAR(got.stats.loss, -2 * ratio, 1e-6);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(got.gradient[i], -2 * ratio / 3, 1e-6);
  EXPECT_EQ(got.gradient[3], 0.0f);
}

TEST(Objective, OnPolicyEveryRatioIsExactlyOne) {
  for (auto old : {Spec::Old::kBehaviour, Spec::Old::kRecomputed}) {
    for (auto ratio : {Spec::Ratio::kToken, Spec::Ratio::kSequence, Spec::Ratio::kNone}) {
      Spec spec = Policy();
      spec.ratio = ratio;
      spec.old = old;
      if (ratio == Spec::Ratio::kNone) spec.surrogate = Spec::Surrogate::kPlain;
      if (old == Spec::Old::kRecomputed) spec.correction = Spec::Correction::kMasked;
      spec.correction_low = spec.correction_high = 1;
      Tokens t = RandomTokens(30, 9);
      t.old.clear();
      t.behaviour = t.logprob;
      const ObjectiveStats stats = Evaluate(spec, t).stats;
      EXPECT_EQ(stats.ratio_min, 1.0);
      EXPECT_EQ(stats.ratio_max, 1.0);
      EXPECT_EQ(stats.corrected, 0);
      EXPECT_EQ(stats.k3, 0);
      EXPECT_EQ(stats.weight * stats.weight / stats.weight_square, 24);  // ESS: all of them
    }
  }
}

TEST(Objective, WithoutKeptOldOnesTheRecomputedPolicyIsTheOneThatIsTrained) {
  Spec spec = Policy();
  spec.old = Spec::Old::kRecomputed;
  spec.correction = Spec::Correction::kTruncated;
  spec.correction_high = 1.5;
  Tokens t;
  t.Add(-1 + std::log(1.2), -1);
  t.Add(-1 + std::log(4.0), -1);
  const Outcome got = Evaluate(spec, t);
  EXPECT_EQ(got.stats.ratio_max, 1.0);
  EXPECT_NEAR(got.gradient[0], -1.2, 1e-6);
  EXPECT_NEAR(got.gradient[1], -1.5, 1e-6);
  EXPECT_EQ(got.stats.corrected, 1);
}

TEST(Objective, TokensWeighByTheAggregate) {
  Spec spec = Policy();
  spec.loss_tokens = 50;
  spec.sequences = 5;
  spec.longest = 20;
  EXPECT_EQ(TokenWeight(spec, 10), 1.0 / 50);
  spec.aggregate = Spec::Aggregate::kSequenceMean;
  EXPECT_EQ(TokenWeight(spec, 10), 1.0 / 50);
  EXPECT_EQ(TokenWeight(spec, 4), 1.0 / 20);
  spec.aggregate = Spec::Aggregate::kConstant;
  EXPECT_EQ(TokenWeight(spec, 4), 1.0 / 100);
}

TEST(Objective, PenaltiesAreOfTheReference) {
  Tokens t;
  t.Add(-1.0, -1.0, -0.5);
  t.advantage = 0;
  const Outcome k3 = Evaluate(Policy(0.3), t);
  EXPECT_NEAR(k3.stats.loss, 0.3 * (std::exp(0.5) - 0.5 - 1), 1e-12);
  EXPECT_NEAR(k3.gradient[0], 0.3 * (1 - std::exp(0.5)), 1e-7);
  Spec spec = Policy(0.3);
  spec.kl_estimator = Spec::Kl::kK2;
  EXPECT_NEAR(Evaluate(spec, t).stats.loss, 0.3 * 0.125, 1e-12);
  EXPECT_NEAR(Evaluate(spec, t).gradient[0], 0.3 * -0.5, 1e-7);
  Tokens same;
  same.Add(-1.0, -1.0, -1.0);
  same.advantage = 0;
  EXPECT_EQ(Evaluate(Policy(0.3), same).stats.loss, 0.0);
  EXPECT_EQ(Evaluate(Policy(0.3), same).gradient[0], 0.0f);
}

TEST(Objective, TheEntropyBonusWeighsAsTheLossDoes) {
  Spec spec = Policy();
  spec.loss_tokens = 4;
  spec.entropy = 0.5;
  Tokens t;
  for (bool counts : {true, false, true}) t.Add(-1, -1, 0, counts);
  t.advantage = 0;
  const Outcome got = Evaluate(spec, t);
  EXPECT_NEAR(got.stats.loss, -0.5 / 4 * (0.1 + 0.3), 1e-8);
  EXPECT_EQ(got.of_entropy, (std::vector<float>{-0.125f, 0, -0.125f}));
  spec.entropy = 0;
  EXPECT_EQ(Evaluate(spec, t).of_entropy, (std::vector<float>{0, 0, 0}));
}

TEST(Objective, MaskedTokensContributeExactlyNothingHoweverExtreme) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Spec& spec : Compositions()) {
    const Tokens plain = RandomTokens(10, 2);
    const Outcome expected = Evaluate(spec, plain);
    // logprob, behaviour, reference: overflowing ratios and penalties, and 0 x infinity.
    for (auto [lp, old, ref] : {std::array{-1.0, -1e30, -1.0},
                                {-1.0, -200.0, -1.0},
                                {-200.0, -200.0, 0.0},
                                {-1.0, -infinity, -1.0},
                                {-1.0, 1e30, -1e30},
                                {-1.0, -1.0, infinity},
                                {-infinity, -1.0, -1.0}}) {
      Tokens t = plain;
      for (std::size_t i : {4, 9}) {
        t.logprob[i] = static_cast<float>(lp);
        t.behaviour[i] = t.old[i] = static_cast<float>(old);
        t.reference[i] = static_cast<float>(ref);
      }
      const Outcome got = Evaluate(spec, t);
      EXPECT_EQ(got.stats.loss, expected.stats.loss) << lp << " " << old << " " << ref;
      EXPECT_EQ(got.gradient, expected.gradient) << lp << " " << old << " " << ref;
      EXPECT_EQ(got.gradient[4], 0.0f);
    }
  }
}

TEST(Objective, ASequenceWithoutLossTokensAddsNothing) {
  Tokens t;
  t.Add(-1, -2, -3, false);
  for (const Spec& spec : Compositions()) {
    const Outcome got = Evaluate(spec, t);
    EXPECT_EQ(got.stats.loss, 0);
    EXPECT_EQ(got.stats.loss_tokens, 0u);
    EXPECT_EQ(got.gradient[0], 0.0f);
  }
}

TEST(Objective, WhatIsNoNumberIsNotHidden) {
  Tokens t;
  t.Add(-1, std::nan(""));
  const Outcome got = Evaluate(Policy(), t);
  EXPECT_TRUE(std::isnan(got.gradient[0]));
  EXPECT_TRUE(std::isnan(got.stats.loss));
}

TEST(ObjectiveDeathTest, APenaltyNeedsAReference) {
  Tokens t;
  t.Add(-1, -1);
  t.reference.clear();
  EXPECT_DEATH((void)Evaluate(Policy(0.1), t), "without a reference");
}

}  // namespace
}  // namespace thresher::learner
