#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/bf16_rows.h"
#include "kernels/cuda/gemm_bf16.h"

// Parts of the self-test: its memory, and what it computes on the device. Slots are zeroed, or set
// to ~0 where a smallest value is sought, by the caller.
namespace thresher::kernels::cuda {

// Device memory for the time of a test. `error`: of the first piece that there was no room for.
class TestRoom {
 public:
  TestRoom() = default;
  ~TestRoom() {
    for (void* piece : pieces_) (void)cudaFree(piece);
  }
  TestRoom(const TestRoom&) = delete;
  template <class T>
  T* Take(std::int64_t count) {
    void* piece = nullptr;
    if (error == cudaSuccess) {
      error = cudaMalloc(&piece, static_cast<std::size_t>(count) * sizeof(T));
    }
    if (piece != nullptr) pieces_.push_back(piece);
    return static_cast<T*>(piece);
  }
  Bf16Rows TakeRows(std::int64_t rows, std::int64_t columns) {
    const std::int64_t ld = Bf16RowStride(columns);
    return {Take<std::uint16_t>(rows * ld), rows, columns, ld};
  }
  cudaError_t error = cudaSuccess;

 private:
  std::vector<void*> pieces_;
};

// Seeded values of size in [2^-8, 1), the columns behind too.
//   kMagnitudes: the same without their signs
//   kHard: of every 16 rows one is zeros, then negative zeros and denormals, large, cancelling, and
//   small ones, one value, NaN, infinity
enum class TestFill { kOrdinary, kMagnitudes, kHard };
cudaError_t FillForTest(cudaStream_t stream, Bf16Rows matrix, std::uint32_t seed, TestFill fill);

// Row i of `to` = row (first + i * step) % from.rows of `from`; the same columns and ld.
cudaError_t GatherRows(cudaStream_t stream, Bf16Rows from, std::int64_t first, std::int64_t step,
                       Bf16Rows to);

// slot[0] = the bits of the largest |y - plain| / (factor * magnitude + least) of `count` values,
// rounded up; infinite where only one of them is a NaN, or infinities differ. slot[1] = the first
// index that has it; it begins as ~0.
cudaError_t WorstOverBound(cudaStream_t stream, std::int64_t count, const float* y,
                           const float* plain, const float* magnitude, double factor, double least,
                           std::uint32_t* slot);

// *slot = the smallest index of y [rows, columns] whose bits are not those of row (first + row *
// step) % pool of `expected`; NaNs are equal. *slot begins as ~0.
cudaError_t FirstDifference(cudaStream_t stream, std::int64_t rows, std::int64_t columns,
                            const float* y, const float* expected, std::int64_t first,
                            std::int64_t step, std::int64_t pool, std::uint32_t* slot);

// The part of the self-test (self_test.h) on WeightGradBf16: empty, or what failed.
std::string TestWeightGrad(const Bf16Device& device, cudaStream_t stream,
                           const std::function<void(float* whole, float* cut)>& after);

}  // namespace thresher::kernels::cuda
