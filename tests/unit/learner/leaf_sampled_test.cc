// Leaves of tokens that were drawn from less than the whole softmax.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/learner/leaf_support.h"

namespace thresher::learner {
namespace {

using model::PackedModel;

struct Setting {
  const char* name;
  SamplingParams sampling;
};

SamplingParams Params(std::uint32_t top_k, float top_p, float min_p, float penalty) {
  SamplingParams params;
  params.temperature = 0.7f;
  params.top_k = top_k;
  params.top_p = top_p;
  params.min_p = min_p;
  params.repetition_penalty = penalty;
  return params;
}

class SampledLeafTest : public ::testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    config_ = model::SmallConfig("qwen2", true);
    weights_ = model::LivelyWeights(config_, 3, 0.2);
    policy_ = Pack(weights_);
    std::uint32_t item = 40;
    for (auto [prompt, tokens] : {std::pair{7, 20}, {3, 1}, {1, 45}, {20, 14}}) {
      trajectories_.push_back(
          SampleTrajectory(*policy_, item, prompt, tokens, GetParam().sampling, item % 2));
      ++item;
    }
    // One that was drawn from the whole softmax stands among them.
    trajectories_.push_back(SampleTrajectory(*policy_, item, 4, 9, 1.0f, 0));
  }

  std::shared_ptr<const PackedModel> Pack(const std::vector<float>& weights) const {
    return PackedModel::Make(config_, weights, config_.vocab, true);
  }

  LeafWork Work() const {
    LeafWork work;
    double advantage = 1.0;
    for (const Trajectory& t : trajectories_) {
      work.sequences.push_back(PrepareSequence(t, advantage));
      advantage = advantage > 0 ? -0.6 : 1.3;
    }
    return work;
  }

  static ObjectiveSpec Spec(const LeafWork& work) {
    ObjectiveSpec spec;
    spec.kind = ObjectiveSpec::Kind::kPolicyGradient;
    spec.distribution = ObjectiveSpec::Distribution::kSampled;
    spec.loss_tokens = LossTokens(work);
    spec.sequences = work.sequences.size();
    return spec;
  }

  struct Outcome {
    LeafStats stats;
    std::vector<float> gradient;
  };
  Outcome Compute(const std::shared_ptr<const PackedModel>& policy, const LeafWork& work,
                  const ObjectiveSpec& spec, std::size_t tokens = 1u << 20,
                  bool recompute = false) const {
    Outcome out;
    out.gradient.assign(model::GradientSize(config_), 0.0f);
    LeafComputer computer(model::MakeCpuTrainingPass(config_));
    out.stats =
        computer.Compute(policy, nullptr, work, spec, {tokens, true, recompute}, out.gradient)
            .value();
    return out;
  }

  model::ModelConfig config_;
  std::vector<float> weights_;
  std::shared_ptr<const PackedModel> policy_;
  std::vector<Trajectory> trajectories_;
};

INSTANTIATE_TEST_SUITE_P(Filters, SampledLeafTest,
                         ::testing::Values(Setting{"TopP", Params(0, 0.9f, 0, 1)},
                                           Setting{"TopK", Params(20, 1, 0, 1)},
                                           Setting{"MinP", Params(0, 1, 0.05f, 1)},
                                           Setting{"Temperature", Params(0, 1, 0, 1)},
                                           Setting{"Penalty", Params(0, 1, 0, 1.2f)},
                                           Setting{"Reward", Params(0, 1, 0, 0.8f)},
                                           Setting{"All", Params(20, 0.9f, 0.02f, 1.2f)}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(SampledLeafTest, OnPolicyRatiosAreExactlyOneOverEitherDistribution) {
  const LeafWork work = Work();
  for (auto distribution :
       {ObjectiveSpec::Distribution::kFull, ObjectiveSpec::Distribution::kSampled}) {
    ObjectiveSpec spec = Spec(work);
    spec.distribution = distribution;
    const LeafStats stats = Compute(policy_, work, spec, 32).stats;
    EXPECT_EQ(stats.ratio_min, 1.0);
    EXPECT_EQ(stats.ratio_max, 1.0);
    EXPECT_EQ(stats.k3, 0.0);
    EXPECT_EQ(stats.loss_tokens, 89u);
    EXPECT_EQ(stats.audited_tokens, 89u);
    EXPECT_EQ(stats.mismatched_tokens, 0u);
    EXPECT_EQ(stats.outside_support, 0.0);
  }
}

TEST_P(SampledLeafTest, AnUlpInOneKeptMassIsFoundByTheAudit) {
  if (!GetParam().sampling.Filtered()) {  // nothing is cut, and nothing recorded
    EXPECT_TRUE(trajectories_[2].kept_mass_logprobs.empty());
    return;
  }
  float& kept = trajectories_[2].kept_mass_logprobs[6];
  kept = std::nextafter(kept, 1.0f);
  const LeafWork work = Work();
  ObjectiveSpec spec = Spec(work);
  EXPECT_EQ(Compute(policy_, work, spec).stats.mismatched_tokens, 1u);
  spec.distribution = ObjectiveSpec::Distribution::kFull;
  EXPECT_EQ(Compute(policy_, work, spec).stats.mismatched_tokens, 1u);
}

TEST_P(SampledLeafTest, NeitherCutNorRecomputationChangesABitOfTheGradient) {
  const LeafWork work = Work();
  const ObjectiveSpec spec = Spec(work);
  const Outcome whole = Compute(policy_, work, spec);
  for (std::size_t tokens : {1u, 30u, 50u}) {
    const Outcome cut = Compute(policy_, work, spec, tokens, tokens == 30);
    EXPECT_EQ(cut.gradient, whole.gradient) << tokens;
    EXPECT_NEAR(cut.stats.kept_mass, whole.stats.kept_mass, 1e-9);
  }
}

// Of tokens drawn under a penalty, the mean is the kept mass in the long run only.
TEST_P(SampledLeafTest, CountsTheMassThatIsKept) {
  const LeafWork work = Work();
  const LeafStats stats = Compute(policy_, work, Spec(work)).stats;
  const double kept = stats.kept_mass / static_cast<double>(stats.loss_tokens);
  const SamplingParams& sampling = GetParam().sampling;
  EXPECT_EQ(kept == 1.0, !sampling.Filtered());
  EXPECT_TRUE(kept <= 1.0 || sampling.repetition_penalty != 1.0f);
  EXPECT_GT(kept, 0.6);
  EXPECT_LT(kept, 1.7);
}

// Off policy by a step: along its gradient the loss has the gradient's length as slope, wherever
// the supports stay what they are. REINFORCE, for its loss is smooth in the log-probabilities.
TEST_P(SampledLeafTest, TheGradientIsTheSlopeOfTheLoss) {
  const LeafWork work = Work();
  ObjectiveSpec spec = Spec(work);
  spec.surrogate = ObjectiveSpec::Surrogate::kPlain;
  spec.ratio = ObjectiveSpec::Ratio::kNone;
  const Outcome at = Compute(policy_, work, spec);
  std::vector<float> gradient = at.gradient;
  model::FoldTiedGradient(config_, gradient);
  double square = 0;
  for (std::size_t i = 0; i < weights_.size(); ++i) square += double(gradient[i]) * gradient[i];
  const double length = std::sqrt(square);
  ASSERT_GT(length, 1e-3);
  const double step = 1e-4 / length;
  const auto loss_at = [&](double sign) {
    std::vector<float> moved = weights_;
    for (std::size_t i = 0; i < moved.size(); ++i) {
      moved[i] += static_cast<float>(sign * step * gradient[i] / length);
    }
    return Compute(Pack(moved), work, spec).stats;
  };
  const LeafStats up = loss_at(1), down = loss_at(-1);
  const double slope = (up.loss - down.loss) / (2 * step);
  // A support that changes within the step moves the loss by what it gains or loses: none did here.
  EXPECT_NEAR(slope, length, 0.02 * length) << at.stats.loss;
}

TEST_P(SampledLeafTest, OtherWeightsHaveOtherSupportsAndTheTokenIsAlwaysInside) {
  std::vector<float> moved = model::LivelyWeights(config_, 9, 0.2);
  const LeafWork work = Work();
  const Outcome out = Compute(Pack(moved), work, Spec(work));
  const SamplingParams& sampling = GetParam().sampling;
  if (sampling.top_k > 0 || sampling.top_p < 1 || sampling.min_p > 0) {
    EXPECT_GT(out.stats.outside_support, 3);
  } else {
    EXPECT_EQ(out.stats.outside_support, 0);
  }
  EXPECT_TRUE(std::isfinite(out.stats.loss));
  for (float g : out.gradient) ASSERT_TRUE(std::isfinite(g));
}

}  // namespace
}  // namespace thresher::learner
