#include "learner/adamw.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/base/random.h"

namespace thresher::learner {
namespace {

constexpr std::size_t kCount = 24;

OptimizerConfig Options() {
  OptimizerConfig options;
  options.beta1 = 0.9;
  options.beta2 = 0.95;
  options.epsilon = 1e-8;
  options.weight_decay = 0.1;
  return options;
}

// Two parameters: a matrix [4, 4] that decays and a norm [8] that does not.
std::vector<model::ParameterInfo> Parameters() {
  model::ParameterInfo matrix{"matrix", {4, 4}, 0, 16, true};
  model::ParameterInfo norm{"norm", {8}, 16, 8, false};
  return {matrix, norm};
}

std::vector<float> Random(std::uint64_t item, double scale) {
  RandomSequence random(6, TrajectoryId{Stream::kTrain, 0, item, 0}, RandomPurpose::kBootstrap);
  std::vector<float> out(kCount);
  for (float& v : out) v = static_cast<float>(scale * (random.NextUniform() - 0.5));
  return out;
}

// The paper's algorithm 2 with its decoupled decay, in double.
struct Oracle {
  std::vector<double> w, m = std::vector<double>(kCount), v = std::vector<double>(kCount);
  int t = 0;
  void Step(const std::vector<float>& gradient, double rate, double scale) {
    ++t;
    for (std::size_t i = 0; i < kCount; ++i) {
      const double g = scale * gradient[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.95 * v[i] + 0.05 * g * g;
      const double m_hat = m[i] / (1 - std::pow(0.9, t));
      const double v_hat = v[i] / (1 - std::pow(0.95, t));
      const double decay = i < 16 ? 0.1 : 0.0;
      w[i] -= rate * (m_hat / (std::sqrt(v_hat) + 1e-8) + decay * w[i]);
    }
  }
};

TEST(AdamW, FollowsTheDoubleOracle) {
  AdamW optimizer(Options(), Parameters());
  std::vector<float> weights = Random(0, 2.0);
  Oracle oracle;
  oracle.w.assign(weights.begin(), weights.end());
  constexpr double kRate = 1e-2;
  for (std::uint64_t step = 1; step <= 50; ++step) {
    const std::vector<float> gradient = Random(step, step % 2 == 0 ? 1e-3 : 3.0);
    optimizer.Step(weights, gradient, kRate, 0.7);
    oracle.Step(gradient, kRate, 0.7);
    for (std::size_t i = 0; i < kCount; ++i) {
      // A step rounds the weight (|w| < 2) and a quotient (|m / v| < 4.5, times the rate) a few
      // times in fp32; the moments' own chains of 2^-24 each are forgotten within 1 / (1 - b2) = 20
      // steps.
      const double bound = static_cast<double>(step) * (2 * 0x1p-24 + kRate * 4.5 * 40 * 0x1p-24);
      ASSERT_NEAR(weights[i], oracle.w[i], bound) << "step " << step << " element " << i;
    }
  }
  EXPECT_EQ(optimizer.state().steps, 50u);
}

TEST(AdamW, DecaysOnlyWhatAsksForIt) {
  AdamW optimizer(Options(), Parameters());
  std::vector<float> weights(kCount, 2.0f);
  optimizer.Step(weights, std::vector<float>(kCount, 0.0f), 0.5, 1.0);
  for (std::size_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(weights[i], i < 16 ? 2.0f * static_cast<float>(1.0 - 0.5 * 0.1) : 2.0f) << i;
  }
}

TEST(AdamW, TheFirstStepMovesByTheLearningRateAgainstTheGradient) {
  OptimizerConfig options = Options();
  options.weight_decay = 0;
  AdamW optimizer(options, Parameters());
  std::vector<float> weights(kCount, 0.0f);
  std::vector<float> gradient(kCount, 5.0f);
  gradient[3] = -0.01f;
  optimizer.Step(weights, gradient, 1e-3, 1.0);
  EXPECT_NEAR(weights[0], -1e-3, 1e-9);
  EXPECT_NEAR(weights[3], 1e-3, 2e-9);  // epsilon over 0.01: a part in a million
}

TEST(AdamW, ARestoredStateContinuesBitForBit) {
  AdamW straight(Options(), Parameters());
  std::vector<float> weights = Random(0, 2.0);
  std::vector<float> resumed_weights;
  AdamW resumed(Options(), Parameters());
  for (std::uint64_t step = 1; step <= 20; ++step) {
    if (step == 8) {
      resumed.Restore(straight.state());
      resumed_weights = weights;
    }
    const std::vector<float> gradient = Random(step, 1.0);
    straight.Step(weights, gradient, 1e-2, 1.0);
    if (step >= 8) resumed.Step(resumed_weights, gradient, 1e-2, 1.0);
  }
  EXPECT_EQ(resumed_weights, weights);
  EXPECT_EQ(resumed.state().steps, straight.state().steps);
  EXPECT_EQ(resumed.state().first_moment, straight.state().first_moment);
  EXPECT_EQ(resumed.state().second_moment, straight.state().second_moment);
}

TEST(AdamWDeathTest, RefusesOtherSizes) {
  AdamW optimizer(Options(), Parameters());
  std::vector<float> weights(kCount), few(kCount - 1);
  EXPECT_DEATH(optimizer.Step(few, weights, 1, 1), "sizes differ");
  EXPECT_DEATH(optimizer.Step(weights, few, 1, 1), "sizes differ");
  AdamW::State state = optimizer.state();
  state.second_moment.pop_back();
  EXPECT_DEATH(optimizer.Restore(state), "another size");
}

TEST(AdamW, IsTheSameBitsOnAnyNumberOfThreads) {
  // Parameters that begin and end inside of the parts that threads take.
  const std::size_t counts[] = {100000, 3, 70000};
  std::vector<model::ParameterInfo> parameters;
  std::size_t total = 0;
  for (std::size_t count : counts) {
    parameters.push_back({"p", {static_cast<std::int64_t>(count)}, total, count, count > 10});
    total += count;
  }
  OptimizerConfig options;
  options.beta1 = 0.9;
  options.beta2 = 0.95;
  options.epsilon = 1e-8;
  options.weight_decay = 0.1;
  std::vector<float> gradient(total), alone(total, 0.5f);
  for (std::size_t i = 0; i < total; ++i) gradient[i] = std::sin(static_cast<float>(i));
  AdamW straight(options, parameters);
  for (int step = 0; step < 3; ++step) straight.Step(alone, gradient, 1e-2, 0.7);
  for (int threads : {1, 3}) {
    WorkerPool pool(WorkerPoolOptions{.threads = threads});
    AdamW divided(options, parameters);
    std::vector<float> weights(total, 0.5f);
    for (int step = 0; step < 3; ++step) divided.Step(weights, gradient, 1e-2, 0.7, &pool);
    EXPECT_EQ(weights, alone);
    EXPECT_EQ(divided.state().second_moment, straight.state().second_moment);
  }
}

}  // namespace
}  // namespace thresher::learner
