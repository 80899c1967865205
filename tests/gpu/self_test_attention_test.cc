// The self-test of cuda-bf16-sm90-v1's attention: it passes what is right and finds what is
// planted.
#include "kernels/cuda/self_test_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/gpu/device_testing.h"

namespace thresher::kernels::cuda {
namespace {

using ::testing::HasSubstr;
using Form = Bf16AttentionForm;

class SelfTestOfAttention : public gpu::testing::DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    if (gpu::OpenDevice(0)->major != 9) GTEST_SKIP() << "compute capability is not 9.0";
  }
  using Plant = std::function<void(Form, std::int64_t, float*)>;
  static Bf16AttentionVerdict Run(const Plant& plant) {
    return RunBf16AttentionSelfTest(nullptr, {2, 1, 8, true, plant, nullptr});
  }
  static void AddTo(float* out, float amount) {
    float value = 0;
    ASSERT_EQ(cudaMemcpy(&value, out, sizeof value, cudaMemcpyDeviceToHost), cudaSuccess);
    value += amount;
    ASSERT_EQ(cudaMemcpy(out, &value, sizeof value, cudaMemcpyHostToDevice), cudaSuccess);
  }
};
constexpr std::int64_t kAll = 18;  // rows of the brief test

TEST_F(SelfTestOfAttention, EveryFormPasses) {
  const Bf16AttentionVerdict verdict =
      RunBf16AttentionSelfTest(nullptr, {3, 1, 16, false, nullptr, nullptr});
  EXPECT_EQ(verdict.forms, kAllBf16AttentionForms);
  EXPECT_EQ(verdict.error, "");
  for (const std::string& line : verdict.lines) EXPECT_THAT(line, HasSubstr(": ok, "));
}

TEST_F(SelfTestOfAttention, AFormWhoseBitsDifferIsNotUsed) {
  const auto verdict = Run([](Form form, std::int64_t t, float* out) {
    if (form == Form::kSplits16 && t == kAll) AddTo(out + 16 * 5 + 11, 1e-5f);
  });
  EXPECT_EQ(verdict.forms, kAllBf16AttentionForms - (1u << static_cast<int>(Form::kSplits16)));
  EXPECT_EQ(verdict.lines[3],
            "attention, splits16: not used: not the bits of rows, row 5, head 1, dimension 3");
  EXPECT_EQ(verdict.error, "");
}

TEST_F(SelfTestOfAttention, AFormWithARowThatDependsOnItsBatchIsNotUsed) {
  const auto verdict = Run([](Form form, std::int64_t t, float* out) {
    if (form == Form::kSplits8 && t == 3) AddTo(out + 16 * 2, 1e-5f);
  });
  EXPECT_EQ(verdict.forms, kAllBf16AttentionForms - (1u << static_cast<int>(Form::kSplits8)));
  EXPECT_EQ(verdict.lines[4],
            "attention, splits8: not used: a row's bits depend on its batch, row 2, head 0, "
            "dimension 0");
}

TEST_F(SelfTestOfAttention, WithoutTheFormOfRowsThereIsNone) {
  const auto verdict = Run([](Form form, std::int64_t t, float* out) {
    if (form == Form::kRows && t == kAll) AddTo(out + 4, 0.1f);
  });
  EXPECT_EQ(verdict.forms & 1, 0u);
  EXPECT_THAT(verdict.error, HasSubstr("attention, rows: not used: "));
  EXPECT_THAT(verdict.error, HasSubstr("times its bound off the plain form, row 0, head 0, "
                                       "dimension 4"));
}

TEST_F(SelfTestOfAttention, AGradientThatIsWrongIsNotUsed) {
  Bf16AttentionSelfTest test{2, 1, 8, true, nullptr, nullptr};
  EXPECT_EQ(TestBf16AttentionBackward(nullptr, test), "");
  test.after_grad = [](float*, float* apart) { AddTo(apart + 40, 1e-5f); };
  EXPECT_THAT(TestBf16AttentionBackward(nullptr, test), HasSubstr("depend on those beside it"));
  test.after_grad = [](float* whole, float* apart) {
    for (float* grads : {whole, apart}) AddTo(grads + 40, 1.0f);
  };
  EXPECT_THAT(TestBf16AttentionBackward(nullptr, test),
              HasSubstr("times its bound off the plain form"));
}

}  // namespace
}  // namespace thresher::kernels::cuda
