// The head of a training pass on a device, whose rows pass in parts.
#include "common/model/cuda/device_training_head.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using gpu::testing::OnDevice;
using kernels::testing::Floats;
using kernels::testing::Random;
using kernels::testing::SameBits;

class DeviceHead : public gpu::testing::DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    if (gpu::OpenDevice(0)->major != 9) GTEST_SKIP() << "compute capability is not 9.0";
    shape_ = SmallConfig("qwen2", true);
    shape_.dtype = kernels::WeightType::kBf16;
    shape_.width = 16;
    packed_ = PackedModel::Make(shape_, LivelyWeights(shape_, 3), kValid, true);
    stream_ = gpu::MakeStream().value();
    products_ =
        DeviceProducts::Make(shape_, {DeviceKernelSet::kBf16, true, {1}}, stream_.get()).value();
    weights_ = DeviceWeights::Make(shape_, DeviceKernelSet::kBf16, true).value();
    const auto staging =
        DeviceArray<std::byte>::Make(WeightStagingBytes(shape_, DeviceKernelSet::kBf16)).value();
    ASSERT_TRUE(weights_->Upload(PackedWeights::Of(*packed_), staging, stream_.get()).ok());
    ASSERT_TRUE(products_.Reserve(shape_, kRows).ok());
    ASSERT_TRUE(gpu::Await(stream_, "copy of weights").ok());
    for (std::int64_t t = 0; t < kRows; ++t) {
      temperature_.push_back(t % 3 == 0 ? 1.0f : 0.7f);
      target_.push_back(static_cast<std::int32_t>(t * 7 % kValid));
    }
  }

  struct Gradients {
    Floats dhidden, dhead;
  };
  // In consecutive calls of the rows up to each of `ends`.
  Gradients Run(bool with_entropy, const std::vector<std::int64_t>& ends) {
    const OnDevice<float> hidden(hidden_), temperature(temperature_), dlogprob(dlogprob_),
        dentropy(dentropy_), dhidden(Floats(hidden_.size(), kernels::testing::kNaN)),
        dhead(Floats(static_cast<std::size_t>(shape_.vocab * shape_.width), 0.0f));
    const OnDevice<std::int32_t> target(target_);
    std::int64_t t = 0;
    for (std::int64_t end : ends) {
      DeviceTrainingHead head(shape_, DeviceKernelSet::kBf16, {});
      const DeviceHeadRows rows{end - t, hidden.data() + t * shape_.width, temperature.data() + t,
                                target.data() + t};
      EXPECT_TRUE(head.LogProbs(*weights_, products_, rows, stream_.get()).ok());
      EXPECT_TRUE(head.Backward(*weights_, products_, rows, dlogprob.data() + t,
                                with_entropy ? dentropy.data() + t : nullptr,
                                dhidden.data() + t * shape_.width, dhead.data(), stream_.get())
                      .ok());
      EXPECT_TRUE(gpu::Await(stream_, "gradient of the head").ok());
      t = end;
    }
    return {dhidden.Read(), dhead.Read()};
  }

  static constexpr std::int64_t kRows = kHeadRows + 70;
  static constexpr std::int32_t kValid = 33;
  ModelConfig shape_;
  std::shared_ptr<const PackedModel> packed_;
  gpu::Stream stream_;
  DeviceProducts products_;
  std::unique_ptr<DeviceWeights> weights_;
  Floats hidden_ = Random(kRows * 16, 1), dlogprob_ = Random(kRows, 2),
         dentropy_ = Random(kRows, 3);
  Floats temperature_;
  std::vector<std::int32_t> target_;
};

TEST_F(DeviceHead, MoreRowsThanAPartHaveTheBitsOfTheirParts) {
  Gradients before;
  for (bool with_entropy : {false, true}) {
    const Gradients whole = Run(with_entropy, {kRows}),
                    parts = Run(with_entropy, {kHeadRows, kRows});
    EXPECT_TRUE(SameBits(whole.dhidden, parts.dhidden)) << with_entropy;
    EXPECT_TRUE(SameBits(whole.dhead, parts.dhead)) << with_entropy;
    EXPECT_FALSE(SameBits(whole.dhidden, before.dhidden));
    before = whole;
  }
}

}  // namespace
}  // namespace thresher::model
