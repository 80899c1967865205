// Leaves on a device: log-probabilities and gradients with the bits of the CPU.
#include "common/model/training_pass.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/gpu/device.h"
#include "common/model/cuda/cuda_training_pass.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using kernels::testing::SameBits;

struct Leaf {
  std::vector<LogProbResult> results;  // of its micro-batches
  std::vector<float> reference, gradient;
};

class DeviceTrainingPass : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto device = gpu::OpenDevice(0);
    if (!device.ok()) GTEST_SKIP() << device.status().message();
  }

  // Sequences of these lengths, one after another.
  static TrainRows Rows(const std::vector<int>& lengths, const ModelConfig& shape, int valid) {
    TrainRows rows;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      const auto tokens = RandomTokens(s + 40, lengths[s] + 1, valid);
      for (int i = 0; i < lengths[s]; ++i) {
        rows.token.push_back(tokens[static_cast<std::size_t>(i)]);
        rows.target.push_back(tokens[static_cast<std::size_t>(i) + 1]);
        rows.position.push_back(i);
        rows.temperature.push_back(s % 2 == 0 ? 1.0f : 0.7f);
      }
    }
    EXPECT_LE(lengths.front(), shape.context);
    return rows;
  }

  static Leaf Run(TrainingPass& pass, const ModelConfig& shape,
                  const std::shared_ptr<const PackedModel>& policy,
                  const std::shared_ptr<const PackedModel>& reference,
                  const std::vector<TrainRows>& parts, bool recompute) {
    Leaf leaf;
    leaf.gradient.assign(GradientSize(shape), 0.0f);
    EXPECT_TRUE(pass.BeginLeaf(policy, leaf.gradient).ok());
    for (const TrainRows& rows : parts) {
      const auto before = pass.ReferenceLogProbs(reference, rows);
      EXPECT_TRUE(before.ok());
      leaf.reference.insert(leaf.reference.end(), before->begin(), before->end());
      auto result = pass.LogProbs(rows, recompute);
      EXPECT_TRUE(result.ok()) << result.status().ToString();
      leaf.results.push_back(std::move(result).value());
      const auto count = static_cast<std::int64_t>(rows.size());
      const auto dlogprob = kernels::testing::Random(count, 5);
      // An entropy term in every micro-batch but the first.
      const auto dentropy = kernels::testing::Random(leaf.results.size() == 1 ? 0 : count, 6);
      EXPECT_TRUE(pass.Backward(dlogprob, dentropy).ok());
    }
    EXPECT_TRUE(pass.EndLeaf().ok());
    return leaf;
  }

  static void ExpectSame(const Leaf& a, const Leaf& b) {
    EXPECT_TRUE(SameBits(a.gradient, b.gradient));
    EXPECT_TRUE(SameBits(a.reference, b.reference));
    ASSERT_EQ(a.results.size(), b.results.size());
    for (std::size_t i = 0; i < a.results.size(); ++i) {
      EXPECT_TRUE(SameBits(a.results[i].logprob, b.results[i].logprob));
      EXPECT_TRUE(SameBits(a.results[i].lse, b.results[i].lse));
      EXPECT_TRUE(SameBits(a.results[i].entropy, b.results[i].entropy));
    }
  }
};

TEST_F(DeviceTrainingPass, GivesTheBitsOfTheCpuForEveryFamily) {
  for (const char* family : {"llama", "qwen2", "qwen3"}) {
    for (bool tied : {true, false}) {
      SCOPED_TRACE(std::string(family) + (tied ? " tied" : ""));
      ModelConfig shape = SmallConfig(family, tied);
      if (!tied) shape.dtype = kernels::WeightType::kBf16;
      const std::int32_t valid = shape.vocab - 2;
      const auto policy = PackedModel::Make(shape, LivelyWeights(shape, 3), valid, true);
      const auto reference = PackedModel::Make(shape, LivelyWeights(shape, 4), valid, false);
      const std::vector<TrainRows> parts = {Rows({17, 70, 1}, shape, valid),
                                            Rows({33}, shape, valid)};
      const auto host = MakeCpuTrainingPass(shape);
      auto device = MakeCudaTrainingPass(shape, {});
      ASSERT_TRUE(device.ok()) << device.status().ToString();
      const Leaf expected = Run(*host, shape, policy, reference, parts, false);
      ExpectSame(expected, Run(**device, shape, policy, reference, parts, false));
      ExpectSame(expected, Run(**device, shape, policy, reference, parts, true));
    }
  }
}

TEST_F(DeviceTrainingPass, GivesTheBitsOfTheCpuForACritic) {
  for (bool tied : {true, false}) {
    const ModelConfig shape = SmallConfig("qwen2", tied);
    const auto critic = PackedModel::Make(shape, LivelyWeights(shape, 3), shape.vocab, true);
    const std::vector<TrainRows> parts = {Rows({17, 20, 1}, shape, shape.vocab),
                                          Rows({9}, shape, shape.vocab)};
    const auto head = kernels::testing::Random(shape.width + 1, 7);
    struct Outcome {
      std::vector<float> values, gradient, head_gradient;
    };
    // Of a trunk of its own, of one that is not moved, and beside a policy's gradient.
    enum class Kind { kOwn, kAbove, kShared };
    const auto run = [&](TrainingPass& pass, Kind kind, TapeKind tape) {
      Outcome out;
      out.gradient.assign(GradientSize(shape), 0.0f);
      out.head_gradient.assign(head.size(), 0.25f);
      EXPECT_TRUE(pass.BeginLeaf(critic, {}).ok());
      EXPECT_TRUE(pass.Hidden(parts[0], std::nullopt).ok());
      out.values = pass.Values(head).value();
      EXPECT_TRUE(pass.EndLeaf().ok());
      EXPECT_TRUE(pass.BeginLeaf(critic, out.gradient).ok());
      for (const TrainRows& rows : parts) {
        const auto count = static_cast<std::int64_t>(rows.size());
        std::vector<float> dlogprob;
        if (kind == Kind::kShared) {
          EXPECT_TRUE(pass.LogProbs(rows, tape == TapeKind::kLayerInputs).ok());
          const auto random = kernels::testing::Random(count, 5);
          dlogprob.assign(random.begin(), random.end());
        } else {
          EXPECT_TRUE(pass.Hidden(rows, tape).ok());
        }
        const auto values = pass.Values(head).value();
        out.values.insert(out.values.end(), values.begin(), values.end());
        auto dvalue = kernels::testing::Random(count, 6);
        for (std::size_t t = 0; t < dvalue.size(); t += 4) dvalue[t] = 0;
        const float trunk = kind == Kind::kAbove ? 0.0f : kind == Kind::kShared ? 0.3f : 1.0f;
        EXPECT_TRUE(pass.ValueBackward({head, dvalue, trunk, out.head_gradient}).ok());
        EXPECT_TRUE(pass.Backward(dlogprob, {}).ok());
      }
      EXPECT_TRUE(pass.EndLeaf().ok());
      return out;
    };
    const auto host = MakeCpuTrainingPass(shape);
    auto device = MakeCudaTrainingPass(shape, {});
    ASSERT_TRUE(device.ok()) << device.status().ToString();
    for (Kind kind : {Kind::kOwn, Kind::kAbove, Kind::kShared}) {
      const Outcome expected = run(*host, kind, TapeKind::kAllActivations);
      for (TapeKind tape : {TapeKind::kAllActivations, TapeKind::kLayerInputs}) {
        const Outcome got = run(**device, kind, tape);
        EXPECT_TRUE(SameBits(expected.values, got.values));
        EXPECT_TRUE(SameBits(expected.gradient, got.gradient));
        EXPECT_TRUE(SameBits(expected.head_gradient, got.head_gradient));
      }
      const bool moved = std::ranges::any_of(expected.gradient, [](float g) { return g != 0; });
      EXPECT_EQ(moved, kind != Kind::kAbove);
    }
  }
}

TEST_F(DeviceTrainingPass, TakesOtherWeightsInTheNextLeaf) {
  const ModelConfig shape = SmallConfig("llama", true);
  const auto host = MakeCpuTrainingPass(shape);
  auto device = MakeCudaTrainingPass(shape, {});
  ASSERT_TRUE(device.ok());
  const std::vector<TrainRows> parts = {Rows({20, 5}, shape, shape.vocab)};
  for (std::uint64_t seed : {3, 8}) {
    const auto policy = PackedModel::Make(shape, LivelyWeights(shape, seed), shape.vocab, true);
    const auto reference =
        PackedModel::Make(shape, LivelyWeights(shape, seed + 1), shape.vocab, false);
    ExpectSame(Run(*host, shape, policy, reference, parts, false),
               Run(**device, shape, policy, reference, parts, false));
  }
}

}  // namespace
}  // namespace thresher::model
