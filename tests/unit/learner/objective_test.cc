// The only test that needs libtorch's headers.
#include "learner/objective.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "common/base/random.h"
#include "tests/unit/learner/leaf_support.h"

namespace thresher::learner {
namespace {

using Values = std::vector<double>;

struct Tokens {
  Values logprob, behaviour, reference, advantage, weight;
  void Add(double lp, double old, double ref, double a, double w) {
    logprob.push_back(lp), behaviour.push_back(old), reference.push_back(ref);
    advantage.push_back(a), weight.push_back(w);
  }
};

// The formula of objective.h for one token, as in the papers.
double TokenLoss(const LossSpec& spec, double lp, double old, double ref, double a, double w) {
  if (spec.kind == LossSpec::Kind::kSupervised) return -w * lp;
  const double ratio = std::exp(lp - old);
  const double bounded = std::min(std::max(ratio, 1 - spec.clip_low), 1 + spec.clip_high);
  const double q = ref - lp;
  const double k3 = spec.kl > 0 ? std::exp(q) - q - 1 : 0;
  return w * (-std::min(ratio * a, bounded * a) + spec.kl * k3);
}

torch::Tensor Float(const Values& values) {
  torch::Tensor out = torch::empty({static_cast<std::int64_t>(values.size())}, torch::kFloat32);
  for (std::size_t i = 0; i < values.size(); ++i) {
    out.mutable_data_ptr<float>()[i] = static_cast<float>(values[i]);
  }
  return out;
}

struct Outcome {
  double loss = 0;
  std::vector<float> gradient;  // of logprob
  std::vector<bool> clipped;
};

Outcome Evaluate(const LossSpec& spec, const Tokens& tokens) {
  PinTorchOnce();
  ObjectiveInputs inputs{Float(tokens.logprob), Float(tokens.behaviour), Float(tokens.reference),
                         Float(tokens.advantage), Float(tokens.weight)};
  inputs.logprob.requires_grad_();
  ObjectiveOutputs result = Objective(spec, inputs);
  result.loss.backward();
  Outcome out;
  out.loss = result.loss.item<float>();
  const float* gradient = inputs.logprob.grad().const_data_ptr<float>();
  out.gradient.assign(gradient, gradient + tokens.logprob.size());
  if (result.clipped.defined()) {
    const bool* clipped = result.clipped.const_data_ptr<bool>();
    out.clipped.assign(clipped, clipped + tokens.logprob.size());
  }
  return out;
}

LossSpec Policy(double kl) {
  LossSpec spec;
  spec.kind = LossSpec::Kind::kPolicyGradient;
  spec.clip_low = 0.2;
  spec.clip_high = 0.28;
  spec.kl = kl;
  return spec;
}

Tokens RandomTokens(std::size_t count) {
  RandomSequence random(2, {}, RandomPurpose::kBootstrap);
  Tokens tokens;
  for (std::size_t i = 0; i < count; ++i) {
    const double lp = -3 * random.NextUniform();
    tokens.Add(lp, lp + random.NextUniform() - 0.5, lp + random.NextUniform() - 0.5,
               4 * random.NextUniform() - 2, i % 5 == 4 ? 0.0 : 0.25);
  }
  return tokens;
}

TEST(Objective, EqualsTheFormulaAndItsFiniteDifferencesInDouble) {
  LossSpec supervised;
  for (const LossSpec& spec : {supervised, Policy(0), Policy(0.1)}) {
    const Tokens t = RandomTokens(400);
    const Outcome got = Evaluate(spec, t);
    double loss = 0, magnitude = 0;
    for (std::size_t i = 0; i < t.logprob.size(); ++i) {
      auto at = [&](double lp) {
        return TokenLoss(spec, lp, t.behaviour[i], t.reference[i], t.advantage[i], t.weight[i]);
      };
      loss += at(t.logprob[i]);
      magnitude += std::abs(at(t.logprob[i]));
      constexpr double kStep = 1e-6;  // curvature 1e-12, rounding 1e-10
      const double slope = (at(t.logprob[i] + kStep) - at(t.logprob[i] - kStep)) / (2 * kStep);
      // Inputs rounded to fp32 (2^-24 of 3 in the exponent) and some ten operations.
      EXPECT_NEAR(got.gradient[i], slope, 2e-6 * (1 + std::abs(slope))) << i;
    }
    EXPECT_NEAR(got.loss, loss, magnitude * 2e-6);
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
    t.Add(-1.0 + std::log(c.ratio), -1.0, 0, c.advantage, 1.0);
    const Outcome got = Evaluate(Policy(0), t);
    EXPECT_NEAR(got.loss, c.loss, 1e-6) << c.ratio << " " << c.advantage;
    EXPECT_EQ(got.clipped[0], c.clipped) << c.ratio << " " << c.advantage;
    const double slope = c.clipped ? 0.0 : -c.ratio * c.advantage;
    EXPECT_NEAR(got.gradient[0], slope, 1e-6) << c.ratio << " " << c.advantage;
    if (c.clipped) {
      EXPECT_EQ(got.gradient[0], 0.0f);
    }
  }
}

TEST(Objective, PenaltyIsK3OfTheReference) {
  Tokens t;
  t.Add(-1.0, -1.0, -0.5, 0.0, 1.0);
  const Outcome got = Evaluate(Policy(0.3), t);
  EXPECT_NEAR(got.loss, 0.3 * (std::exp(0.5) - 0.5 - 1), 1e-7);
  EXPECT_NEAR(got.gradient[0], 0.3 * (1 - std::exp(0.5)), 1e-7);
  Tokens same;
  same.Add(-1.0, -1.0, -1.0, 0.0, 1.0);
  EXPECT_EQ(Evaluate(Policy(0.3), same).loss, 0.0);
  EXPECT_EQ(Evaluate(Policy(0.3), same).gradient[0], 0.0f);
}

TEST(Objective, MaskedTokensContributeExactlyNothingHoweverExtreme) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const LossSpec& spec : {LossSpec(), Policy(0), Policy(0.1)}) {
    Tokens plain = RandomTokens(10);
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
      t.logprob[4] = t.logprob[9] = lp;
      t.behaviour[4] = t.behaviour[9] = old;
      t.reference[4] = t.reference[9] = ref;
      const Outcome got = Evaluate(spec, t);
      EXPECT_EQ(got.loss, expected.loss) << lp << " " << old << " " << ref;
      EXPECT_EQ(got.gradient, expected.gradient) << lp << " " << old << " " << ref;
      EXPECT_EQ(got.gradient[4], 0.0f);
    }
  }
}

TEST(ObjectiveDeathTest, APenaltyNeedsAReference) {
  PinTorchOnce();
  ObjectiveInputs inputs{Float({-1}), Float({-1}), torch::Tensor(), Float({1}), Float({1})};
  EXPECT_DEATH((void)Objective(Policy(0.1), inputs), "without a reference");
}

}  // namespace
}  // namespace thresher::learner
