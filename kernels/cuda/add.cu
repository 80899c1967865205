#include "kernels/cuda/add.h"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

__global__ void AddEach(std::int64_t n, float* sum, const float* other, bool other_first) {
  ForEachUnitOfThread(n, [=](std::int64_t i) {
    const float own = sum[i], theirs = other[i];
    sum[i] = other_first ? simt::Add(theirs, own) : simt::Add(own, theirs);
  });
}

}  // namespace

cudaError_t Add(cudaStream_t stream, std::int64_t n, float* sum, const float* other,
                bool other_first) {
  if (n == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(n, kBlock), kBlock}, AddEach, n, sum, other, other_first);
}

}  // namespace thresher::kernels::cuda
