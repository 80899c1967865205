#include "kernels/cuda/embedding.h"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

__global__ void Forward(std::int64_t t, std::int64_t d, std::int64_t v, const std::int32_t* ids,
                        const float* table, float* y) {
  ForEachUnitOfThread(t * d, [=](std::int64_t unit) {
    const std::int64_t id = ids[unit / d];
    y[unit] = id >= 0 && id < v ? table[id * d + unit % d] : __int_as_float(0x7fc00000);
  });
}

// A column a thread, which goes through the tokens in order: one chain for each element.
__global__ void Backward(std::int64_t t, std::int64_t d, std::int64_t v, const std::int32_t* ids,
                         const float* dy, float* dtable) {
  ForEachUnitOfThread(d, [=](std::int64_t c) {
    for (std::int64_t i = 0; i < t; ++i) {
      const std::int64_t id = ids[i];
      if (id < 0 || id >= v) continue;
      float* at = dtable + id * d + c;
      *at = __fadd_rn(*at, dy[i * d + c]);
    }
  });
}

}  // namespace

cudaError_t EmbeddingForward(cudaStream_t stream, std::int64_t t, std::int64_t d, std::int64_t v,
                             const std::int32_t* ids, const float* table, float* y) {
  if (t * d == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(t * d, kBlock), kBlock}, Forward, t, d, v, ids, table, y);
}

cudaError_t EmbeddingBackward(cudaStream_t stream, std::int64_t t, std::int64_t d, std::int64_t v,
                              const std::int32_t* ids, const float* dy, float* dtable) {
  if (t * d == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(d, kBlock), kBlock}, Backward, t, d, v, ids, dy, dtable);
}

}  // namespace thresher::kernels::cuda
