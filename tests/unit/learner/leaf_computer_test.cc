#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/unit/learner/leaf_support.h"

namespace thresher::learner {
namespace {

using model::ModelConfig;
using model::PackedModel;

constexpr std::size_t kWhole = 1u << 20;  // a micro-batch that takes the whole leaf

struct Shape {
  const char* family;
  bool tied;
};

class LeafComputerTest : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    config_ = model::SmallConfig(GetParam().family, GetParam().tied);
    weights_ = model::LivelyWeights(config_, 3);
    policy_ = Pack(weights_);
    int index = 0;
    for (auto [prompt, tokens] : {std::pair{7, 20}, {3, 1}, {1, 45}, {20, 14}, {2, 2}}) {
      trajectories_.push_back(SampleTrajectory(*policy_, static_cast<std::uint32_t>(40 + index),
                                               prompt, tokens, index % 2 ? 0.7f : 1.0f,
                                               static_cast<std::uint32_t>(index % 2)));
      ++index;
    }
  }

  std::shared_ptr<const PackedModel> Pack(const std::vector<float>& weights) const {
    return PackedModel::Make(config_, weights, config_.vocab, true);
  }

  LeafWork Work() const {
    LeafWork work;
    float advantage = 1.0f;
    for (const Trajectory& t : trajectories_) {
      work.sequences.push_back(PrepareSequence(t, advantage));
      advantage = advantage > 0 ? -0.6f : 1.3f;
    }
    return work;
  }

  static ObjectiveSpec PolicySpec(const LeafWork& work) {
    ObjectiveSpec spec;
    spec.kind = ObjectiveSpec::Kind::kPolicyGradient;
    spec.loss_tokens = LossTokens(work);
    spec.sequences = work.sequences.size();
    return spec;
  }

  static ObjectiveSpec SupervisedSpec(const LeafWork& work) {
    ObjectiveSpec spec = PolicySpec(work);
    spec.kind = ObjectiveSpec::Kind::kSupervised;
    return spec;
  }

  LeafComputer NewComputer() const { return LeafComputer(model::MakeCpuTrainingPass(config_)); }

  struct Outcome {
    LeafStats stats;
    std::vector<float> gradient;
  };
  Outcome Compute(std::shared_ptr<const PackedModel> policy, const LeafWork& work,
                  const ObjectiveSpec& spec, std::size_t micro_batch_tokens = kWhole,
                  std::shared_ptr<const PackedModel> reference = nullptr) const {
    Outcome out;
    out.gradient.assign(model::GradientSize(config_), 0.0f);
    out.stats = NewComputer()
                    .Compute(policy, reference, work, spec, {micro_batch_tokens, true, recompute_},
                             out.gradient)
                    .value();
    return out;
  }

  // For every tensor, the derivative of the loss along its own gradient is the gradient's length.
  void ExpectGradientIsTheSlope(const LeafWork& work, const ObjectiveSpec& spec,
                                std::shared_ptr<const PackedModel> reference) const {
    std::vector<float> gradient = Compute(policy_, work, spec, kWhole, reference).gradient;
    model::FoldTiedGradient(config_, gradient);
    for (const model::ParameterInfo& info : model::ParameterList(config_)) {
      double square = 0;
      for (std::size_t i = info.offset; i < info.offset + info.count; ++i) {
        square += static_cast<double>(gradient[i]) * gradient[i];
      }
      const double length = std::sqrt(square);
      if (info.name.find("k_proj.bias") != std::string::npos) {
        // The softmax does not see a constant added to all scores of a query.
        continue;
      }
      ASSERT_GT(length, 1e-5) << info.name;
      // A step that moves the loss by about 2e-3: its fp32 noise, near 1e-6, is then below 0.1 %.
      const double step = std::min(2e-3 / length, 5e-3);
      auto loss_at = [&](double sign) {
        std::vector<float> moved = weights_;
        for (std::size_t i = info.offset; i < info.offset + info.count; ++i) {
          moved[i] += static_cast<float>(sign * step * gradient[i] / length);
        }
        return Compute(Pack(moved), work, spec, kWhole, reference).stats.loss;
      };
      const double slope = (loss_at(1) - loss_at(-1)) / (2 * step);
      // The rest is curvature and, with a small gradient, noise over the longest step.
      EXPECT_NEAR(slope, length, 0.02 * length + 1e-4) << info.name;
    }
  }

  ModelConfig config_;
  std::vector<float> weights_;
  std::shared_ptr<const PackedModel> policy_;
  std::vector<Trajectory> trajectories_, trajectories_kept_;
  bool recompute_ = false;
};

INSTANTIATE_TEST_SUITE_P(Shapes, LeafComputerTest,
                         ::testing::Values(Shape{"llama", true}, Shape{"qwen2", false},
                                           Shape{"qwen3", true}),
                         [](const auto& info) {
                           return std::string(info.param.family) +
                                  (info.param.tied ? "Tied" : "Untied");
                         });

TEST_P(LeafComputerTest, OnPolicyRatiosAreExactlyOneAndTheAuditFindsNothing) {
  const LeafWork work = Work();
  const LeafStats stats = Compute(policy_, work, PolicySpec(work), 32).stats;
  EXPECT_EQ(stats.ratio_min, 1.0);
  EXPECT_EQ(stats.ratio_max, 1.0);
  EXPECT_EQ(stats.k3, 0.0);
  EXPECT_EQ(stats.clipped_low + stats.clipped_high, 0.0);
  EXPECT_EQ(stats.loss_tokens, 82u);
  EXPECT_EQ(stats.audited_tokens, 82u);
  EXPECT_EQ(stats.mismatched_tokens, 0u);
  EXPECT_TRUE(stats.mismatches_by_actor.empty());
}

TEST_P(LeafComputerTest, AnUlpInOneLogprobIsCountedAndNamesItsActor) {
  float& logprob = trajectories_[3].logprobs[6];  // of actor 1
  logprob = std::nextafter(logprob, 0.0f);
  const LeafWork work = Work();
  const LeafStats stats = Compute(policy_, work, PolicySpec(work)).stats;
  EXPECT_EQ(stats.mismatched_tokens, 1u);
  EXPECT_EQ(stats.mismatches_by_actor, (std::map<std::uint32_t, std::uint64_t>{{1, 1}}));
}

TEST_P(LeafComputerTest, OtherWeightsAreFoundByTheAudit) {
  std::vector<float> moved = weights_;
  moved[weights_.size() / 2] *= 1.5f;
  const LeafWork work = Work();
  EXPECT_GT(Compute(Pack(moved), work, PolicySpec(work)).stats.mismatched_tokens, 0u);
}

TEST_P(LeafComputerTest, TheCutIntoMicroBatchesChangesNoBitOfTheGradient) {
  const LeafWork work = Work();
  const auto reference = Pack(model::LivelyWeights(config_, 8));
  ObjectiveSpec spec = PolicySpec(work);
  spec.kl = 0.05;
  const Outcome whole = Compute(policy_, work, spec, kWhole, reference);
  for (std::size_t tokens : {1u, 16u, 30u, 50u, 80u}) {
    const Outcome cut = Compute(policy_, work, spec, tokens, reference);
    EXPECT_EQ(cut.gradient, whole.gradient) << tokens;
    EXPECT_EQ(cut.stats.loss_tokens, whole.stats.loss_tokens);
    EXPECT_EQ(cut.stats.rows, whole.stats.rows);
    // Statistics are sums of floats a micro-batch.
    EXPECT_NEAR(cut.stats.loss, whole.stats.loss, 1e-5);
  }
}

TEST_P(LeafComputerTest, ActivationsComputedAgainChangeNoBit) {
  const LeafWork work = Work();
  const ObjectiveSpec spec = PolicySpec(work);
  const Outcome kept = Compute(policy_, work, spec);
  recompute_ = true;
  for (std::size_t tokens : {kWhole, std::size_t{40}}) {
    const Outcome again = Compute(policy_, work, spec, tokens);
    EXPECT_EQ(again.gradient, kept.gradient);
    EXPECT_EQ(again.stats.mismatched_tokens, 0u);
  }
}

// What an actor draws from 16-bit weights the learner finds again, in each kernel set; and the
// gradient of a product that rounds its inputs is close to that of one that does not.
TEST_P(LeafComputerTest, SixteenBitWeightsAreOnePolicyOnBothSides) {
  config_.dtype = kernels::WeightType::kBf16;
  const auto policy = Pack(weights_);
  std::vector<std::vector<float>> gradients;
  model::ForEachKernelSet([&](kernels::KernelSet set) {
    for (std::size_t i = 0; i < trajectories_.size(); ++i) {
      trajectories_[i] = SampleTrajectory(*policy, static_cast<std::uint32_t>(70 + i), 5, 17, 1.0f,
                                          static_cast<std::uint32_t>(i % 2));
    }
    const LeafWork work = Work();
    const Outcome out = Compute(policy, work, PolicySpec(work), 32);
    EXPECT_EQ(out.stats.audited_tokens, 85u);
    EXPECT_EQ(out.stats.mismatched_tokens, 0u) << kernels::KernelSetName(set);
    EXPECT_EQ(out.stats.ratio_min, 1.0);
    EXPECT_EQ(out.stats.ratio_max, 1.0);
    if (gradients.empty()) trajectories_kept_ = trajectories_;
    trajectories_ = trajectories_kept_;  // the gradients of one work
    const LeafWork same = Work();
    gradients.push_back(Compute(policy, same, SupervisedSpec(same)).gradient);
  });
  for (std::size_t i = 1; i < gradients.size(); ++i) {
    double difference = 0, square = 0;
    for (std::size_t k = 0; k < gradients[0].size(); ++k) {
      difference += std::pow(double(gradients[i][k]) - gradients[0][k], 2);
      square += std::pow(double(gradients[0][k]), 2);
    }
    EXPECT_NE(gradients[i], gradients[0]);
    // Each product's input is off by 2^-9 at most; these weights amplify it from layer to layer.
    EXPECT_LT(std::sqrt(difference / square), 0.1);
  }
}

TEST_P(LeafComputerTest, ScratchOfEarlierLeavesChangesNoBit) {
  const LeafWork work = Work();
  LeafWork small;
  small.sequences = {work.sequences[1]};
  const ObjectiveSpec spec = PolicySpec(work);
  const Outcome fresh = Compute(policy_, small, spec);
  LeafComputer used = NewComputer();
  std::vector<float> gradient(model::GradientSize(config_), 0.0f);
  ASSERT_TRUE(used.Compute(policy_, nullptr, work, spec, {kWhole}, gradient).ok());
  gradient.assign(gradient.size(), 0.0f);
  ASSERT_TRUE(used.Compute(policy_, nullptr, small, spec, {kWhole}, gradient).ok());
  EXPECT_EQ(gradient, fresh.gradient);
}

TEST_P(LeafComputerTest, SupervisedLossIsMinusTheMeanLogprob) {
  LeafWork work = Work();
  const model::WorkspacePtr workspace = model::NewWorkspace();
  double sum = 0, sequence_mean = 0;
  for (const TrainSequence& s : work.sequences) {
    const int rows = static_cast<int>(s.in_loss.size());
    const auto pages = model::PageTable(0, 1, rows);
    model::KvCache cache(config_, static_cast<std::int32_t>(pages.size()));
    model::RowBatch batch;
    model::Append(s.tokens, 0, rows, pages, batch);
    const std::vector<float> hidden = model::HiddenOf(*policy_, batch, cache);
    const std::vector<std::int32_t> target(s.tokens.begin() + 1, s.tokens.end());
    const std::vector<float> temperature(target.size(),
                                         1.0f);  // supervised: of the data, not a sample
    const auto result = model::LogProb(*policy_, hidden, target, temperature, *workspace);
    double own = 0, count = 0;
    for (std::size_t i = 0; i < target.size(); ++i) {
      if (!s.in_loss[i]) continue;
      own += result.logprob[i];
      ++count;
    }
    sum += own;
    sequence_mean += own / count / static_cast<double>(work.sequences.size());
  }
  ObjectiveSpec spec = SupervisedSpec(work);
  const double mean = sum / static_cast<double>(LossTokens(work));
  const LeafStats stats = Compute(policy_, work, spec).stats;
  // 121 additions of fp32 products: 121 x 2^-24 at most.
  EXPECT_NEAR(stats.loss, -mean, std::abs(mean) * 1e-5);
  EXPECT_NEAR(stats.logprob, sum, std::abs(sum) * 1e-12);
  spec.aggregate = ObjectiveSpec::Aggregate::kSequenceMean;
  EXPECT_NEAR(Compute(policy_, work, spec).stats.loss, -sequence_mean,
              std::abs(sequence_mean) * 1e-5);
}

TEST_P(LeafComputerTest, SupervisedGradientIsTheSlopeOfTheLoss) {
  const LeafWork work = Work();
  ExpectGradientIsTheSlope(work, SupervisedSpec(work), nullptr);
}

TEST_P(LeafComputerTest, PolicyGradientIsTheSlopeOfTheLoss) {
  // Off policy by a little, some ratios clipped, a reference, both aggregates.
  for (Trajectory& t : trajectories_) {
    for (std::size_t i = 0; i < t.logprobs.size(); ++i) {
      t.logprobs[i] += 0.07f * static_cast<float>(static_cast<int>(i % 7) - 3);
    }
  }
  const LeafWork work = Work();
  const auto reference = Pack(model::LivelyWeights(config_, 3, 0.31));
  ObjectiveSpec spec = PolicySpec(work);
  spec.clip_low = 0.12;
  spec.clip_high = 0.17;
  spec.kl = 0.3;
  spec.entropy = 0.2;
  spec.aggregate = ObjectiveSpec::Aggregate::kSequenceMean;
  const LeafStats stats = Compute(policy_, work, spec, kWhole, reference).stats;
  EXPECT_GT(stats.clipped_low + stats.clipped_high, 3);
  ExpectGradientIsTheSlope(work, spec, reference);
}

// Two of the sequences are examples of a supervised loss beside the policy's.
LeafWork WithExamples(LeafWork work) {
  for (std::size_t s : {1u, 0u}) {
    work.examples.push_back(work.sequences[s]);
    work.examples.back().has_behaviour.assign(work.examples.back().in_loss.size(), 0);
    work.examples.back().temperature = 1;
  }
  return work;
}

ObjectiveSpec WithExampleLoss(ObjectiveSpec spec, const LeafWork& work) {
  LeafWork alone;
  alone.sequences = work.examples;
  spec.example_tokens = LossTokens(alone);
  spec.example_coefficient = 0.4;
  return spec;
}

TEST_P(LeafComputerTest, ExamplesAddTheirSupervisedLossAndTouchNoNumberOfThePolicy) {
  const LeafWork work = WithExamples(Work());
  const ObjectiveSpec spec = WithExampleLoss(PolicySpec(work), work);
  LeafWork policy_alone = work, examples_alone;
  policy_alone.examples.clear();
  examples_alone.sequences = work.examples;
  const Outcome both = Compute(policy_, work, spec);
  const Outcome policy = Compute(policy_, policy_alone, PolicySpec(work));
  const Outcome supervised = Compute(policy_, examples_alone, SupervisedSpec(examples_alone));
  EXPECT_NEAR(both.stats.loss, policy.stats.loss + 0.4 * supervised.stats.loss, 1e-12);
  EXPECT_EQ(both.stats.example_tokens, supervised.stats.loss_tokens);
  EXPECT_NEAR(both.stats.example_logprob, supervised.stats.logprob, 1e-9);
  EXPECT_EQ(both.stats.loss_tokens, policy.stats.loss_tokens);
  EXPECT_EQ(both.stats.audited_tokens, policy.stats.audited_tokens);
  EXPECT_EQ(both.stats.entropy, policy.stats.entropy);
  EXPECT_EQ(both.stats.ratio_max, 1.0);
  double largest = 0, apart = 0;
  for (std::size_t i = 0; i < both.gradient.size(); ++i) {
    const double sum = static_cast<double>(policy.gradient[i]) + 0.4 * supervised.gradient[i];
    largest = std::max(largest, std::abs(sum));
    apart = std::max(apart, std::abs(sum - both.gradient[i]));
  }
  // Sums of some hundred fp32 products in another order.
  EXPECT_LT(apart, 1e-4 * largest);
  EXPECT_GT(largest, 0);
}

TEST_P(LeafComputerTest, TheCutOfExamplesChangesNoBitOfTheGradient) {
  const LeafWork work = WithExamples(Work());
  const ObjectiveSpec spec = WithExampleLoss(PolicySpec(work), work);
  const Outcome whole = Compute(policy_, work, spec);
  for (std::size_t tokens : {1u, 16u, 30u, 50u}) {
    const Outcome cut = Compute(policy_, work, spec, tokens);
    EXPECT_EQ(cut.gradient, whole.gradient) << tokens;
    EXPECT_EQ(cut.stats.rows, whole.stats.rows);
  }
}

TEST_P(LeafComputerTest, TheGradientWithExamplesIsTheSlopeOfTheLoss) {
  const LeafWork work = WithExamples(Work());
  ObjectiveSpec spec = WithExampleLoss(PolicySpec(work), work);
  spec.entropy = 0.1;
  ExpectGradientIsTheSlope(work, spec, nullptr);
}

TEST_P(LeafComputerTest, TokensOutsideTheLossContributeExactlyNothing) {
  // The middle of the longest answer was written by the policy and is not trained on.
  Trajectory& t = trajectories_[2];
  t.segments = {{0, 1, Role::kPrompt, false},
                {1, 10, Role::kPolicy, true},
                {10, 30, Role::kPolicy, false},
                {30, 46, Role::kPolicy, true}};
  const LeafWork plain = Work();
  const ObjectiveSpec spec = PolicySpec(plain);
  const Outcome expected = Compute(policy_, plain, spec);
  const float infinity = std::numeric_limits<float>::infinity();
  for (float extreme : {-1e30f, 1e30f, -100.0f, -infinity, infinity}) {
    LeafWork work = plain;
    for (std::size_t row = 9; row < 29; ++row) work.sequences[2].behaviour_logprob[row] = extreme;
    const Outcome got = Compute(policy_, work, spec);
    EXPECT_EQ(got.gradient, expected.gradient) << extreme;
    EXPECT_EQ(got.stats.loss, expected.stats.loss) << extreme;
    EXPECT_EQ(got.stats.ratio_max, 1.0) << extreme;
  }
}

TEST_P(LeafComputerTest, AZeroAdvantageGivesNoGradient) {
  LeafWork work = Work();
  for (TrainSequence& s : work.sequences) s.advantage = 0;
  const Outcome got = Compute(policy_, work, PolicySpec(work));
  EXPECT_EQ(got.gradient, std::vector<float>(got.gradient.size(), 0.0f));
}

TEST_P(LeafComputerTest, AnEmptyLeafLeavesTheGradientAlone) {
  const Outcome got = Compute(policy_, LeafWork(), ObjectiveSpec());
  EXPECT_EQ(got.gradient, std::vector<float>(got.gradient.size(), 0.0f));
  EXPECT_EQ(got.stats.loss_tokens, 0u);
  EXPECT_EQ(got.stats.loss, 0.0);
}

}  // namespace
}  // namespace thresher::learner
