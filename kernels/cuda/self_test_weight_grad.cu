#include <bit>

#include "kernels/cuda/self_test_kernels.h"
#include "kernels/cuda/weight_grad_bf16.h"

namespace thresher::kernels::cuda {
namespace {

constexpr std::int64_t kTokens = 450, kCut = 192, kOutputs = 200, kInputs = 330;
constexpr std::int64_t kValues = kOutputs * kInputs;
constexpr std::uint32_t kNowhere = ~0u;

// dw of seeded tokens: in one call, in two, and by the plain form, of the values and their sizes.
class WeightGradTest {
 public:
  WeightGradTest(const Bf16Device& device, cudaStream_t stream) : device_(device), stream_(stream) {
    error_ = room_.error;
  }

  std::string Run(const std::function<void(float*, float*)>& after) {
    Begin();
    Fill(TestFill::kMagnitudes);
    Then([&] { return WeightGradBf16Plain(stream_, dy_, x_, magnitude_, kInputs); });
    Fill(TestFill::kOrdinary);
    Then([&] { return WeightGradBf16Plain(stream_, dy_, x_, plain_, kInputs); });
    Add(whole_, 0, kTokens);
    Add(cut_, 0, kCut);
    Add(cut_, kCut, kTokens - kCut);
    Then([&] { return cudaStreamSynchronize(stream_); });
    if (error_ == cudaSuccess && after) after(whole_, cut_);
    return Answer();
  }

 private:
  template <class Step>
  void Then(const Step& step) {
    if (error_ == cudaSuccess) error_ = step();
  }
  void Begin() {
    for (float* sums : {whole_, cut_, plain_, magnitude_}) {
      Then([&] { return cudaMemsetAsync(sums, 0, kValues * sizeof(float), stream_); });
    }
    Then([&] { return cudaMemsetAsync(slots_, 0xff, 3 * sizeof *slots_, stream_); });
  }
  void Fill(TestFill how) {
    Then([&] { return FillForTest(stream_, dy_, 3, how); });
    Then([&] { return FillForTest(stream_, x_, 4, how); });
  }
  void Add(float* to, std::int64_t first, std::int64_t rows) {
    const auto part = [=](Bf16Rows of) {
      return Bf16Rows{of.data + first * of.ld, rows, of.columns, of.ld};
    };
    Then([&] { return WeightGradBf16(device_, stream_, part(dy_), part(x_), to, kInputs); });
  }
  std::string Answer() {
    // The magnitude is itself a chain of roundings: 1 + 2^-8 covers it.
    const double least = Bf16WeightGradBound(kTokens, 0);
    const double factor = (Bf16WeightGradBound(kTokens, 1) - least) * (1 + 0x1p-8);
    Then([&] {
      return WorstOverBound(stream_, kValues, whole_, plain_, magnitude_, factor, least, slots_);
    });
    Then([&] { return FirstDifference(stream_, 1, kValues, cut_, whole_, 0, 1, 1, slots_ + 2); });
    std::uint32_t seen[3] = {};
    Then([&] {
      return cudaMemcpyAsync(seen, slots_, sizeof seen, cudaMemcpyDeviceToHost, stream_);
    });
    Then([&] { return cudaStreamSynchronize(stream_); });
    if (error_ != cudaSuccess) return std::string("it does not run: ") + cudaGetErrorString(error_);
    const float worst = std::bit_cast<float>(seen[0]);
    if (!(worst <= 1)) return std::to_string(worst) + " times its bound off the plain form";
    if (seen[2] != kNowhere) return "its bits depend on how the tokens are cut into calls";
    return "";
  }

  const Bf16Device& device_;
  cudaStream_t stream_;
  TestRoom room_;
  const Bf16Rows dy_ = room_.TakeRows(kTokens, kOutputs), x_ = room_.TakeRows(kTokens, kInputs);
  float* const whole_ = room_.Take<float>(kValues);
  float* const cut_ = room_.Take<float>(kValues);
  float* const plain_ = room_.Take<float>(kValues);
  float* const magnitude_ = room_.Take<float>(kValues);
  std::uint32_t* const slots_ = room_.Take<std::uint32_t>(3);
  cudaError_t error_ = cudaSuccess;
};

}  // namespace

std::string TestWeightGrad(const Bf16Device& device, cudaStream_t stream,
                           const std::function<void(float* whole, float* cut)>& after) {
  return WeightGradTest(device, stream).Run(after);
}

}  // namespace thresher::kernels::cuda
