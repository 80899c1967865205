// The self-test of cuda-bf16-sm90-v1: it passes what is right and finds what is planted.
#include "kernels/cuda/self_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/gpu/device_testing.h"

namespace thresher::kernels::cuda {
namespace {

using ::testing::HasSubstr;

constexpr cudaStream_t kStream = nullptr;
constexpr std::size_t kScratchBytes = 2 << 20;  // enough for these shapes

class SelfTestOnDevice : public gpu::testing::DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    scratch_ = gpu::MakeDeviceMemory(kScratchBytes).value();
    const std::string refused = OpenBf16Device(kStream, scratch_.data(), kScratchBytes, &device_);
    if (!refused.empty()) GTEST_SKIP() << refused;
  }
  // A small test with something planted into the results of some forms and batches.
  Bf16Verdict RunPlanted(const std::function<void(Bf16Form, std::int64_t, float*)>& plant) {
    Bf16SelfTest test;
    test.shapes = {{70, 90, false}};
    test.batches = {1, 9, 20};
    test.after_product = plant;
    return RunBf16SelfTest(device_, kStream, test);
  }
  static void AddTo(float* y, float amount) {
    float value = 0;
    ASSERT_EQ(cudaMemcpy(&value, y, sizeof value, cudaMemcpyDeviceToHost), cudaSuccess);
    value += amount;
    ASSERT_EQ(cudaMemcpy(y, &value, sizeof value, cudaMemcpyHostToDevice), cudaSuccess);
  }
  static unsigned Without(std::initializer_list<Bf16Form> forms) {
    unsigned left = kAllBf16Forms;
    for (Bf16Form form : forms) left &= ~(1u << static_cast<int>(form));
    return left;
  }

  gpu::DeviceMemory scratch_;
  Bf16Device device_;
};
// Row 8 of the pool, output 5: an ordinary row.
constexpr std::int64_t kPlace = 8 * 70 + 5;

TEST_F(SelfTestOnDevice, EveryFormPasses) {
  Bf16SelfTest test;
  test.shapes = {{70, 600, false}, {100, 72, true}};
#if defined(THRESHER_CUDA_SIM)
  for (std::int64_t t = 1; t <= 64; t += t % 8 == 1 ? 6 : 1) test.batches.push_back(t);
  test.batches.push_back(130);
#else  // those of Qwen2.5-0.5B too
  for (const auto& [n, k] :
       {std::pair<std::int64_t, std::int64_t>{1152, 896}, {896, 896}, {9728, 896}, {896, 4864}}) {
    test.shapes.push_back({n, k, false});
    test.shapes.push_back({n, k, true});
  }
#endif
  const Bf16Verdict verdict = RunBf16SelfTest(device_, kStream, test);
  EXPECT_EQ(verdict.forms, kAllBf16Forms);
  EXPECT_EQ(verdict.error, "");
  EXPECT_EQ(verdict.weight_grad, "");
  for (const std::string& line : verdict.lines) EXPECT_THAT(line, HasSubstr(": ok, "));
}

TEST_F(SelfTestOnDevice, AFormWhoseBitsDifferIsNotUsed) {
  const Bf16Verdict verdict = RunPlanted([](Bf16Form form, std::int64_t t, float* y) {
    if (form == Bf16Form::kStream16 && t == 512) AddTo(y + kPlace, 1e-5f);
  });
  EXPECT_EQ(verdict.forms, Without({Bf16Form::kStream16}));
  EXPECT_THAT(verdict.lines[3],
              HasSubstr("stream16: not used: not the bits of tile, N 70, K 90: token 8 of 512, "
                        "output 5"));
}

TEST_F(SelfTestOnDevice, AFormWithARowThatDependsOnItsBatchIsNotUsed) {
  const Bf16Verdict verdict = RunPlanted([](Bf16Form form, std::int64_t t, float* y) {
    if (form == Bf16Form::kStream8 && t == 9) AddTo(y + 70, 1e-5f);
  });
  EXPECT_EQ(verdict.forms, Without({Bf16Form::kStream8}));
  EXPECT_THAT(verdict.lines[4],
              HasSubstr("a row's bits depend on its batch, N 70, K 90: token 1 of "
                        "9, output 0"));
}

TEST_F(SelfTestOnDevice, AFormOutsideItsBoundIsNotUsedAndAnotherBecomesTheReference) {
  const Bf16Verdict verdict = RunPlanted([](Bf16Form form, std::int64_t t, float* y) {
    if (form == Bf16Form::kTile && t == 512) AddTo(y + kPlace, 0.01f);
  });
  EXPECT_EQ(verdict.forms, Without({Bf16Form::kTile}));
  EXPECT_THAT(verdict.lines[0],
              HasSubstr("times its bound off the plain form, N 70, K 90: token 8"));
}

TEST_F(SelfTestOnDevice, NoFormLeftIsAnError) {
  const Bf16Verdict verdict = RunPlanted([](Bf16Form, std::int64_t t, float* y) {
    if (t == 512) AddTo(y + kPlace, std::numeric_limits<float>::quiet_NaN());
  });
  EXPECT_EQ(verdict.forms, 0u);
  EXPECT_THAT(verdict.error, HasSubstr("cuda-bf16-sm90-v1 cannot be used on this device: no form "
                                       "passed its self-test (tile: not used: inf times"));
}

TEST_F(SelfTestOnDevice, AGradientOfWeightsThatIsWrongIsNotUsed) {
  Bf16SelfTest test;  // no shapes: of the forms nothing is asked
  EXPECT_EQ(RunBf16SelfTest(device_, kStream, test).weight_grad, "");
  test.after_weight_grad = [](float*, float* cut) { AddTo(cut + 77, 1e-5f); };
  EXPECT_THAT(RunBf16SelfTest(device_, kStream, test).weight_grad, HasSubstr("cut into calls"));
  test.after_weight_grad = [](float* whole, float* cut) {
    for (float* dw : {whole, cut}) AddTo(dw + 77, 0.5f);
  };
  EXPECT_THAT(RunBf16SelfTest(device_, kStream, test).weight_grad,
              HasSubstr("times its bound off the plain form"));
}

TEST(SelfTestVerdict, TheReferenceIsTheFirstThatIsRightByItself) {
  std::array<Bf16Evidence, kBf16Forms> seen;
  seen[0].error = "its launch fails: no reason";
  seen[2].worst = 1.01;
  seen[3].differs[1] = seen[1].differs[3] = "somewhere";
  seen[4].differs[0] = "of a form that is not used";
  const Bf16Verdict verdict = JudgeBf16(seen);
  EXPECT_EQ(verdict.forms, 0b10010u);
  EXPECT_EQ(verdict.lines[0], "tile: not used: its launch fails: no reason");
  EXPECT_EQ(verdict.lines[1], "stream64: ok, 0 of its bound");
  EXPECT_EQ(verdict.lines[3], "stream16: not used: not the bits of stream64, somewhere");
  EXPECT_EQ(verdict.error, "");
}

TEST(SelfTestVerdict, NotANumberIsOutsideEveryBound) {
  std::array<Bf16Evidence, kBf16Forms> seen;
  for (Bf16Evidence& one : seen) one.worst = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(JudgeBf16(seen).forms, 0u);
}

}  // namespace
}  // namespace thresher::kernels::cuda
