// Parameters and sums of gradients on a device: bit for bit what the CPU computes.
#include "common/model/resident_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "common/gpu/device.h"
#include "common/model/cuda/cuda_training_pass.h"
#include "kernels/cpu/square_sum.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/model/small_model.h"
#ifdef THRESHER_CUDA_SIM
#include "tests/support/cuda_sim/cuda_sim.h"
#endif

namespace thresher::model {
namespace {

using kernels::testing::Random;
using kernels::testing::SameBits;
using Floats = std::vector<float>;

constexpr kernels::AdamWFactors kFactors{0.9f,    0.95f, 0.1f,  0.05f, 0.7f,
                                         3.1e-3f, 4.47f, 1e-8f, 0.999f};

struct Parameters {
  Floats masters, first, second;
};

// The CPU's AdamW.
void Move(const ModelConfig& config, const Floats& gradient, Parameters& p) {
  for (const ParameterInfo& info : ParameterList(config)) {
    kernels::AdamWFactors factors = kFactors;
    if (!info.decay) factors.keep = 1.0f;
    kernels::AdamWUpdate(static_cast<std::int64_t>(info.count), factors,
                         gradient.data() + info.offset, p.masters.data() + info.offset,
                         p.first.data() + info.offset, p.second.data() + info.offset);
  }
}

class ResidentParametersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto device = gpu::OpenDevice(0);
    if (!device.ok()) GTEST_SKIP() << device.status().message();
  }

  void Open(const ModelConfig& config, std::int32_t valid_vocab = 0) {
    config_ = config;
    CudaTrainingOptions options;
    auto made = DeviceParameters::Make(config, {0, valid_vocab, {}});
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    device_ = options.parameters = std::move(made).value();
    auto pass = MakeCudaTrainingPass(config, options);
    ASSERT_TRUE(pass.ok()) << pass.status().ToString();
    pass_ = std::move(pass).value();
    host_pass_ = MakeCpuTrainingPass(config);
    valid_ = valid_vocab == 0 ? config.vocab : valid_vocab;
  }

  Parameters Lively(std::uint64_t seed) const {
    Parameters p;
    p.masters = LivelyWeights(config_, seed);
    const auto count = static_cast<std::int64_t>(p.masters.size());
    p.first = Random(count, 11, 1e-3f);
    p.second = Random(count, 12, 1e-6f);
    for (float& value : p.second) value = std::abs(value);
    return p;
  }

  Status Set(const Parameters& p) { return device_->Set(p.masters, p.first, p.second); }

  void ExpectHolds(const Parameters& p) {
    Parameters read{Floats(p.masters.size()), Floats(p.masters.size()), Floats(p.masters.size())};
    ASSERT_TRUE(device_->ReadMasters(read.masters).ok());
    ASSERT_TRUE(device_->ReadMoments(read.first, read.second).ok());
    EXPECT_TRUE(SameBits(read.masters, p.masters));
    EXPECT_TRUE(SameBits(read.first, p.first));
    EXPECT_TRUE(SameBits(read.second, p.second));
    const auto published = device_->ReadPublished();
    ASSERT_TRUE(published.ok());
    const std::string expected = PublishedElements(config_, p.masters);
    EXPECT_TRUE(std::ranges::equal(*published, std::as_bytes(std::span(expected))));
  }

  TrainRows Rows(std::uint64_t seed) const {
    TrainRows rows;
    for (int length : {9, 1 + static_cast<int>(seed % 20)}) {
      const auto tokens = RandomTokens(seed, length + 1, valid_);
      rows.token.insert(rows.token.end(), tokens.begin(), tokens.end() - 1);
      rows.target.insert(rows.target.end(), tokens.begin() + 1, tokens.end());
      for (int i = 0; i < length; ++i) rows.position.push_back(i);
      rows.temperature.resize(rows.token.size(), seed % 2 == 0 ? 1.0f : 0.8f);
    }
    return rows;
  }

  // A leaf of two micro-batches; their log-probabilities.
  Floats Leaf(TrainingPass& pass, std::shared_ptr<const PackedModel> policy,
              std::span<float> gradient, std::uint64_t seed) {
    Floats logprobs;
    EXPECT_TRUE(pass.BeginLeaf(std::move(policy), gradient).ok());
    for (std::uint64_t part : {2 * seed, 2 * seed + 1}) {
      const TrainRows rows = Rows(part);
      const auto result = pass.LogProbs(rows, false);
      EXPECT_TRUE(result.ok()) << result.status().ToString();
      logprobs.insert(logprobs.end(), result->logprob.begin(), result->logprob.end());
      const auto count = static_cast<std::int64_t>(rows.size());
      EXPECT_TRUE(pass.Backward(Random(count, static_cast<unsigned>(part)), {}).ok());
    }
    EXPECT_TRUE(pass.EndLeaf().ok());
    return logprobs;
  }

  // The sum of leaves [begin, end) by the CPU.
  Floats HostSum(const std::shared_ptr<const PackedModel>& policy, std::size_t begin,
                 std::size_t end, Floats& logprobs) {
    if (end - begin == 1) {
      Floats gradient(GradientSize(config_), 0.0f);
      const Floats of = Leaf(*host_pass_, policy, gradient, begin);
      logprobs.insert(logprobs.end(), of.begin(), of.end());
      FoldTiedGradient(config_, gradient);
      gradient.resize(ParameterCount(config_));
      return gradient;
    }
    Floats left = HostSum(policy, begin, (begin + end) / 2, logprobs);
    const Floats right = HostSum(policy, (begin + end) / 2, end, logprobs);
    for (std::size_t i = 0; i < left.size(); ++i) left[i] += right[i];
    return left;
  }

  // The sum of `leaves` on the device, which is compared with the CPU's and returned.
  Floats Sum(const Parameters& p, std::size_t leaves) {
    const auto policy = PackedModel::Make(config_, p.masters, valid_, true);
    Floats expected_logprobs, logprobs;
    const Floats expected = HostSum(policy, 0, leaves, expected_logprobs);
    EXPECT_TRUE(device_->BeginSum(leaves).ok());
    for (std::size_t leaf = 0; leaf < leaves; ++leaf) {
      const Floats of = Leaf(*pass_, nullptr, {}, leaf);
      logprobs.insert(logprobs.end(), of.begin(), of.end());
    }
    EXPECT_TRUE(SameBits(logprobs, expected_logprobs));
    Floats sum(expected.size());
    EXPECT_TRUE(device_->ReadSum(sum).ok());
    EXPECT_TRUE(SameBits(sum, expected)) << leaves << " leaves";
    return expected;
  }

  ModelConfig config_;
  std::int32_t valid_ = 0;
  std::shared_ptr<DeviceParameters> device_;
  std::unique_ptr<TrainingPass> pass_, host_pass_;
};

TEST_F(ResidentParametersTest, StepsHaveTheBitsOfTheCpuForEveryFamilyAndType) {
  using kernels::WeightType;
  struct Model {
    const char* family;
    bool tied;
    WeightType type;
  };
  for (const Model& model :
       {Model{"llama", true, WeightType::kF32}, Model{"qwen2", false, WeightType::kBf16},
        Model{"qwen3", true, WeightType::kBf16}, Model{"llama3", false, WeightType::kF16}}) {
    SCOPED_TRACE(std::string(model.family) + " " + WeightTypeName(model.type));
    ModelConfig config = SmallConfig(model.family, model.tied);
    config.dtype = model.type;
    Open(config, config.vocab - 2);
    Parameters p = Lively(3);
    ASSERT_TRUE(Set(p).ok());
    ExpectHolds(p);
    for (int step = 0; step < 2; ++step) {
      const Floats gradient = Sum(p, 2);
      Move(config, gradient, p);
      ASSERT_TRUE(device_->Step(kFactors).ok());
      ExpectHolds(p);
    }
  }
}

TEST_F(ResidentParametersTest, LeavesAddUpInTheFixedTree) {
  Open(SmallConfig("qwen2", true));
  const Parameters p = Lively(4);
  ASSERT_TRUE(Set(p).ok());
  // Fewer than before, too: what waited then is not in the sum.
  for (std::size_t leaves : {1, 2, 8, 4, 1}) {
    (void)Sum(p, leaves);
    device_->DropSum();
  }
  ExpectHolds(p);
}

TEST_F(ResidentParametersTest, ASumIsReplacedMeasuredAndUsed) {
  Open(SmallConfig("llama", false));
  for (std::size_t leaves : {1, 2}) {
    Parameters p = Lively(5);
    ASSERT_TRUE(Set(p).ok());
    (void)Sum(p, leaves);
    const auto count = static_cast<std::int64_t>(p.masters.size());
    const Floats other = Random(count, 77, 0.1f);
    ASSERT_TRUE(device_->WriteSum(other).ok());
    const auto sums = device_->SquareSums(1000);
    ASSERT_TRUE(sums.ok());
    ASSERT_EQ(sums->size(), static_cast<std::size_t>((count + 999) / 1000));
    for (std::size_t b = 0; b < sums->size(); ++b) {
      const std::int64_t at = static_cast<std::int64_t>(b) * 1000;
      EXPECT_EQ((*sums)[b],
                kernels::SquareSum(std::min<std::int64_t>(1000, count - at), other.data() + at));
    }
    const auto on_device = device_->OnDevice();
    ASSERT_TRUE(on_device.ok());
    EXPECT_EQ(on_device->values.size(), p.masters.size());
    EXPECT_GE(on_device->scratch.size(), (p.masters.size() + 1) / 2);
    Move(config_, other, p);
    ASSERT_TRUE(device_->Step(kFactors).ok());
    ExpectHolds(p);
    ASSERT_TRUE(device_->ClearMoments().ok());
    std::ranges::fill(p.first, 0.0f);
    std::ranges::fill(p.second, 0.0f);
    ExpectHolds(p);
  }
}

TEST_F(ResidentParametersTest, ComesBackAfterItsMemoryWasGivenBack) {
  Open(SmallConfig("qwen3", true));
  Parameters p = Lively(6);
  ASSERT_TRUE(Set(p).ok());
  (void)Sum(p, 2);
  device_->DropSum();
#ifdef THRESHER_CUDA_SIM
  const std::size_t held = cuda_sim::UsedBytes();
#endif
  device_->Release();
  pass_->Release();
#ifdef THRESHER_CUDA_SIM
  EXPECT_LT(cuda_sim::UsedBytes() + 5 * p.masters.size() * sizeof(float), held);
#endif
  p = Lively(7);
  ASSERT_TRUE(Set(p).ok());
  (void)Sum(p, 4);
}

#ifdef THRESHER_CUDA_SIM
TEST_F(ResidentParametersTest, NoMemoryIsAnErrorThatLeavesNoneTaken) {
  Open(SmallConfig("llama", true));
  const Parameters p = Lively(8);
  const std::size_t vector = p.masters.size() * sizeof(float), before = cuda_sim::UsedBytes();
  cuda_sim::LimitMemory(before + 5 * vector / 2);
  EXPECT_EQ(Set(p).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(cuda_sim::UsedBytes(), before);
  cuda_sim::LimitMemory(before + 5 * vector);
  EXPECT_TRUE(Set(p).ok());
  EXPECT_EQ(device_->BeginSum(4).code(), StatusCode::kResourceExhausted);
  EXPECT_LE(cuda_sim::UsedBytes(), before + 4 * vector);
  cuda_sim::LimitMemory(0);
  EXPECT_TRUE(device_->BeginSum(4).ok());
}
#endif

TEST_F(ResidentParametersTest, CallsInAnotherOrderEndTheProcess) {
  Open(SmallConfig("llama", true));
  EXPECT_DEATH((void)device_->BeginSum(2), "without masters");
  const Parameters p = Lively(9);
  ASSERT_TRUE(Set(p).ok());
  EXPECT_DEATH((void)device_->BeginSum(3), "power of two");
  EXPECT_DEATH((void)pass_->BeginLeaf(nullptr, {}), "a leaf more than the sum has");
  EXPECT_DEATH((void)device_->SquareSums(10), "without all its leaves");
  ASSERT_TRUE(device_->BeginSum(2).ok());
  (void)Leaf(*pass_, nullptr, {}, 0);
  EXPECT_DEATH((void)device_->Step(kFactors), "without all its leaves");
  EXPECT_DEATH(device_->Release(), "beside a sum");
}

}  // namespace
}  // namespace thresher::model
