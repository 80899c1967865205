#include "kernels/cuda/rope.h"

#define THRESHER_VARIANT cuda_lanes
#define THRESHER_VEC_SIMT
#include "kernels/cpu/rope.inl"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

__global__ void Apply(std::int64_t t, std::int64_t heads, std::int64_t head_dim,
                      const std::int32_t* positions, const float* cos, const float* sin, float* x,
                      std::int64_t ldx, bool inverse) {
  ForEachUnitOfGroup(t * heads, [=](std::int64_t unit) {
    const std::int64_t i = unit / heads, h = unit % heads;
    if (positions[i] < 0) return;
    cuda_lanes::RopeApply(1, 1, head_dim, positions + i, cos, sin, x + i * ldx + h * head_dim, ldx,
                          inverse);
  });
}

}  // namespace

cudaError_t RopeApply(cudaStream_t stream, std::int64_t t, std::int64_t heads,
                      std::int64_t head_dim, const std::int32_t* positions, const float* cos,
                      const float* sin, float* x, std::int64_t ldx, bool inverse) {
  if (t * heads == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(t * heads, kGroups), kBlock}, Apply, t, heads, head_dim,
                      positions, cos, sin, x, ldx, inverse);
}

}  // namespace thresher::kernels::cuda
