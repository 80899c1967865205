#include "kernels/cuda/swiglu.h"

#define THRESHER_VARIANT cuda_lanes
#define THRESHER_VEC_SIMT
#include "kernels/cpu/swiglu.inl"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

// step(row, first column, columns) for every 16 columns of every row.
template <class Step>
__device__ void ForEachPart(std::int64_t t, std::int64_t f, const Step& step) {
  const std::int64_t parts = (f + 15) / 16;
  ForEachUnitOfGroup(t * parts, [&](std::int64_t unit) {
    const std::int64_t c = unit % parts * 16;
    step(unit / parts, c, f - c < 16 ? f - c : 16);
  });
}

__global__ void Forward(std::int64_t t, std::int64_t f, const float* gate, std::int64_t ldg,
                        const float* up, std::int64_t ldu, float* y, std::int64_t ldy) {
  ForEachPart(t, f, [=](std::int64_t i, std::int64_t c, std::int64_t n) {
    cuda_lanes::SwigluForward(1, n, gate + i * ldg + c, ldg, up + i * ldu + c, ldu, y + i * ldy + c,
                              ldy);
  });
}

__global__ void Backward(std::int64_t t, std::int64_t f, const float* gate, std::int64_t ldg,
                         const float* up, std::int64_t ldu, const float* dy, std::int64_t lddy,
                         float* dgate, std::int64_t lddg, float* dup, std::int64_t lddu, float* y,
                         std::int64_t ldy) {
  ForEachPart(t, f, [=](std::int64_t i, std::int64_t c, std::int64_t n) {
    cuda_lanes::SwigluBackward(1, n, gate + i * ldg + c, ldg, up + i * ldu + c, ldu,
                               dy + i * lddy + c, lddy, dgate + i * lddg + c, lddg,
                               dup + i * lddu + c, lddu, y == nullptr ? nullptr : y + i * ldy + c,
                               ldy);
  });
}

}  // namespace

cudaError_t SwigluForward(cudaStream_t stream, std::int64_t t, std::int64_t f, const float* gate,
                          std::int64_t ldg, const float* up, std::int64_t ldu, float* y,
                          std::int64_t ldy) {
  const std::int64_t units = t * ((f + 15) / 16);
  if (units == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(units, kGroups), kBlock}, Forward, t, f, gate, ldg, up,
                      ldu, y, ldy);
}

cudaError_t SwigluBackward(cudaStream_t stream, std::int64_t t, std::int64_t f, const float* gate,
                           std::int64_t ldg, const float* up, std::int64_t ldu, const float* dy,
                           std::int64_t lddy, float* dgate, std::int64_t lddg, float* dup,
                           std::int64_t lddu, float* y, std::int64_t ldy) {
  const std::int64_t units = t * ((f + 15) / 16);
  if (units == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(units, kGroups), kBlock}, Backward, t, f, gate, ldg, up,
                      ldu, dy, lddy, dgate, lddg, dup, lddu, y, ldy);
}

}  // namespace thresher::kernels::cuda
