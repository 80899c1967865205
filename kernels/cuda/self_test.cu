#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cuda/self_test.h"
#include "kernels/cuda/self_test_kernels.h"

namespace thresher::kernels::cuda {
namespace {

constexpr std::int64_t kPool = 512;      // rows that batches are drawn from
constexpr std::int64_t kPlainRows = 48;  // of them, compared with the plain form
constexpr std::int64_t kRowStep = 37;    // from one row of a batch to the next in the pool; odd
constexpr std::uint32_t kNowhere = ~0u;

std::string Place(const Bf16SelfTest::Shape& shape, std::int64_t t, std::int64_t row,
                  std::int64_t output) {
  return "N " + std::to_string(shape.n) + ", K " + std::to_string(shape.k) +
         (shape.grad ? " (gradient)" : "") + ": token " + std::to_string(row) + " of " +
         std::to_string(t) + ", output " + std::to_string(output);
}

// The test of one shape.
class ShapeTest {
 public:
  ShapeTest(const Bf16Device& device, cudaStream_t stream, const Bf16SelfTest& test,
            const std::vector<std::int64_t>& batches, const Bf16SelfTest::Shape& shape,
            std::array<Bf16Evidence, kBf16Forms>* evidence)
      : device_(device),
        stream_(stream),
        test_(test),
        batches_(batches),
        shape_(shape),
        evidence_(*evidence),
        depth_(shape.grad ? shape.n : shape.k),
        outputs_(std::min<std::int64_t>(shape.grad ? shape.k : shape.n,
                                        64 * (device.multiprocessors + 1))) {}

  // An error of the runtime that is no form's own.
  cudaError_t Run() {
    Take();
    if (room_.error != cudaSuccess) return room_.error;
    cudaError_t error = FillForTest(stream_, pool_, /*seed=*/1, TestFill::kHard);
    if (error == cudaSuccess) error = FillForTest(stream_, w_, /*seed=*/2, TestFill::kOrdinary);
    if (error == cudaSuccess) error = RunPlain();
    for (int form = 0; form < kBf16Forms && error == cudaSuccess; ++form) {
      error = RunForm(static_cast<Bf16Form>(form));
    }
    return error;
  }

 private:
  void Take() {
    pool_ = room_.TakeRows(kPool, depth_);
    batch_ = room_.TakeRows(kPool, depth_);
    w_ = shape_.grad ? room_.TakeRows(depth_, outputs_) : room_.TakeRows(outputs_, depth_);
    plain_ = room_.Take<float>(kPlainRows * outputs_);
    magnitude_ = room_.Take<float>(kPlainRows * outputs_);
    y_ = room_.Take<float>(kPool * outputs_);
    for (float*& whole : whole_) whole = room_.Take<float>(kPool * outputs_);
    slots_ = room_.Take<std::uint32_t>(Slots());
  }
  // Where answers of the device are put: one for each batch, and one for each form.
  std::int64_t Slots() const { return static_cast<std::int64_t>(batches_.size()) + kBf16Forms + 2; }

  cudaError_t RunPlain() {
    Bf16Rows x = pool_;
    x.rows = kPlainRows;
    Bf16Output out;
    out.y = plain_;
    out.ldy = outputs_;
    const cudaError_t error = GemmBf16Plain(stream_, shape_.grad, x, w_, out);
    if (error != cudaSuccess) return error;
    return GemmBf16Magnitude(stream_, shape_.grad, x, w_, out, magnitude_);
  }

  cudaError_t Product(Bf16Form form, const Bf16Rows& x, float* y) {
    Bf16Output out;
    out.y = y;
    out.ldy = outputs_;
    cudaError_t error = GemmBf16By(device_, stream_, form, shape_.grad, x, w_, out);
    if (error != cudaSuccess || !test_.after_product) return error;
    error = cudaStreamSynchronize(stream_);
    if (error == cudaSuccess) test_.after_product(form, x.rows, y);
    return error;
  }

  // All that is asked of a form is put on the stream, the answers are read at once.
  cudaError_t RunForm(Bf16Form form) {
    Bf16Evidence& seen = evidence_[static_cast<std::size_t>(form)];
    if (!seen.error.empty()) return cudaSuccess;
    std::vector<std::uint32_t> slots(static_cast<std::size_t>(Slots()));
    cudaError_t error = Ask(form);
    if (error == cudaSuccess) {
      error = cudaMemcpyAsync(slots.data(), slots_, slots.size() * sizeof(std::uint32_t),
                              cudaMemcpyDeviceToHost, stream_);
    }
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
    if (error != cudaSuccess) {
      seen.error = std::string("its launch fails: ") + cudaGetErrorString(error);
      // A refused launch leaves the device usable; after anything worse the next call fails too.
      (void)cudaGetLastError();
      return cudaStreamSynchronize(stream_);
    }
    Read(form, slots);
    return cudaSuccess;
  }

  cudaError_t Ask(Bf16Form form) {
    float* whole = whole_[static_cast<std::size_t>(form)];
    cudaError_t error =
        cudaMemsetAsync(slots_, 0xff, static_cast<std::size_t>(Slots()) * 4, stream_);
    if (error == cudaSuccess) error = Product(form, pool_, whole);
    std::uint32_t* slot = slots_;
    if (error == cudaSuccess) {
      const double least = Bf16Bound(depth_, 0);
      error = WorstOverBound(stream_, kPlainRows * outputs_, whole, plain_, magnitude_,
                             Bf16Bound(depth_, 1) - least, least, slot);
    }
    slot += 2;
    for (int other = 0; other < static_cast<int>(form) && error == cudaSuccess; ++other) {
      const std::int64_t rows =
          evidence_[static_cast<std::size_t>(other)].error.empty() ? kPool : 0;
      error = FirstDifference(stream_, rows, outputs_, whole,
                              whole_[static_cast<std::size_t>(other)], 0, 1, kPool, slot + other);
    }
    slot += kBf16Forms;
    for (std::size_t i = 0; i < batches_.size() && error == cudaSuccess; ++i) {
      const std::int64_t t = batches_[i], first = t * 11 % kPool;
      batch_.rows = t;
      error = GatherRows(stream_, pool_, first, kRowStep, batch_);
      if (error == cudaSuccess) error = Product(form, batch_, y_);
      if (error == cudaSuccess) {
        error = FirstDifference(stream_, t, outputs_, y_, whole, first, kRowStep, kPool, slot + i);
      }
    }
    return error;
  }

  void Read(Bf16Form form, const std::vector<std::uint32_t>& slots) {
    Bf16Evidence& seen = evidence_[static_cast<std::size_t>(form)];
    const double worst = std::bit_cast<float>(slots[0]);
    if (!(worst <= seen.worst)) {
      seen.worst = worst;
      seen.worst_at = At(kPool, slots[1]);
    }
    for (std::size_t other = 0; other < static_cast<std::size_t>(form); ++other) {
      const std::uint32_t first = slots[2 + other];
      if (first == kNowhere) continue;
      for (auto [of, from] : {std::pair{static_cast<std::size_t>(form), other},
                              std::pair{other, static_cast<std::size_t>(form)}}) {
        std::string& differs = evidence_[of].differs[from];
        if (differs.empty()) differs = At(kPool, first);
      }
    }
    for (std::size_t i = 0; i < batches_.size(); ++i) {
      const std::uint32_t first = slots[2 + kBf16Forms + i];
      if (first != kNowhere && seen.impure.empty()) seen.impure = At(batches_[i], first);
    }
  }
  std::string At(std::int64_t t, std::int64_t index) const {
    return Place(shape_, t, index / outputs_, index % outputs_);
  }

  const Bf16Device& device_;
  cudaStream_t stream_;
  const Bf16SelfTest& test_;
  const std::vector<std::int64_t>& batches_;
  const Bf16SelfTest::Shape& shape_;
  std::array<Bf16Evidence, kBf16Forms>& evidence_;
  const std::int64_t depth_, outputs_;

  TestRoom room_;
  Bf16Rows pool_, batch_, w_;
  float *plain_ = nullptr, *magnitude_ = nullptr, *y_ = nullptr;
  std::array<float*, kBf16Forms> whole_{};  // each form's result of the whole pool
  std::uint32_t* slots_ = nullptr;
};

}  // namespace

std::vector<std::int64_t> DefaultBf16Batches() {
  std::vector<std::int64_t> batches;
  for (std::int64_t t = 1; t <= 64; ++t) batches.push_back(t);
  for (std::int64_t t : {65, 80, 96, 127, 128, 129, 160, 192, 255, 256, 257, 320, 384, 511, 512}) {
    batches.push_back(t);
  }
  return batches;
}

Bf16Verdict RunBf16SelfTest(const Bf16Device& device, cudaStream_t stream,
                            const Bf16SelfTest& test) {
  const std::vector<std::int64_t> batches =
      test.batches.empty() ? DefaultBf16Batches() : test.batches;
  std::array<Bf16Evidence, kBf16Forms> evidence;
  for (const Bf16SelfTest::Shape& shape : test.shapes) {
    const cudaError_t error = ShapeTest(device, stream, test, batches, shape, &evidence).Run();
    if (error == cudaSuccess) continue;
    Bf16Verdict verdict;
    verdict.error = std::string(kBf16KernelSet) + ": its self-test for N " +
                    std::to_string(shape.n) + ", K " + std::to_string(shape.k) +
                    " did not run: " + cudaGetErrorString(error);
    return verdict;
  }
  Bf16Verdict verdict = JudgeBf16(evidence);
  verdict.weight_grad = TestWeightGrad(device, stream, test.after_weight_grad);
  return verdict;
}

}  // namespace thresher::kernels::cuda
