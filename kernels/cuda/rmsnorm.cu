#include "kernels/cuda/rmsnorm.h"

#define THRESHER_VARIANT cuda_lanes
#define THRESHER_VEC_SIMT
#include "kernels/cpu/rmsnorm.inl"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

__global__ void Forward(std::int64_t t, std::int64_t d, const float* x, const float* weight,
                        float eps, float* y, float* inv_rms) {
  ForEachUnitOfGroup(t, [=](std::int64_t i) {
    cuda_lanes::RmsNormForward(1, d, x + i * d, weight, eps, y + i * d,
                               inv_rms == nullptr ? nullptr : inv_rms + i);
  });
}

__global__ void BackwardOfInput(std::int64_t t, std::int64_t d, const float* x, const float* weight,
                                const float* inv_rms, const float* dy, float* dx) {
  ForEachUnitOfGroup(t, [=](std::int64_t i) {
    cuda_lanes::RmsNormBackward(1, d, x + i * d, weight, inv_rms + i, dy + i * d, dx + i * d,
                                nullptr);
  });
}

// One chain over tokens for each column.
__global__ void BackwardOfWeight(std::int64_t t, std::int64_t d, const float* x,
                                 const float* inv_rms, const float* dy, float* dweight) {
  ForEachUnitOfThread(d, [=](std::int64_t c) {
    float sum = dweight[c];
    for (std::int64_t i = 0; i < t; ++i) {
      sum = __fmaf_rn(dy[i * d + c], __fmul_rn(x[i * d + c], inv_rms[i]), sum);
    }
    dweight[c] = sum;
  });
}

__global__ void ForwardOfHeads(std::int64_t t, std::int64_t heads, std::int64_t head_dim, float* x,
                               std::int64_t ldx, const float* weight, float eps, float* inv_rms,
                               std::int64_t ld_inv) {
  ForEachUnitOfGroup(t * heads, [=](std::int64_t unit) {
    const std::int64_t i = unit / heads, h = unit % heads;
    float* head = x + i * ldx + h * head_dim;
    cuda_lanes::RmsNormForward(1, head_dim, head, weight, eps, head,
                               inv_rms == nullptr ? nullptr : inv_rms + i * ld_inv + h);
  });
}

__global__ void BackwardOfHeads(std::int64_t t, std::int64_t heads, std::int64_t head_dim,
                                const float* x, std::int64_t ldx, const float* weight,
                                const float* inv_rms, std::int64_t ld_inv, float* dy,
                                std::int64_t lddy) {
  ForEachUnitOfGroup(t * heads, [=](std::int64_t unit) {
    const std::int64_t i = unit / heads, h = unit % heads;
    float* at = dy + i * lddy + h * head_dim;
    cuda_lanes::RmsNormBackward(1, head_dim, x + i * ldx + h * head_dim, weight,
                                inv_rms + i * ld_inv + h, at, at, nullptr);
  });
}

__global__ void BackwardOfHeadWeight(std::int64_t t, std::int64_t heads, std::int64_t head_dim,
                                     const float* x, std::int64_t ldx, const float* inv_rms,
                                     std::int64_t ld_inv, const float* dy, std::int64_t lddy,
                                     float* dweight) {
  ForEachUnitOfThread(head_dim, [=](std::int64_t c) {
    float sum = dweight[c];
    for (std::int64_t i = 0; i < t; ++i) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t at = h * head_dim + c;
        const float x_hat = __fmul_rn(x[i * ldx + at], inv_rms[i * ld_inv + h]);
        sum = __fmaf_rn(dy[i * lddy + at], x_hat, sum);
      }
    }
    dweight[c] = sum;
  });
}

}  // namespace

cudaError_t RmsNormForward(cudaStream_t stream, std::int64_t t, std::int64_t d, const float* x,
                           const float* weight, float eps, float* y, float* inv_rms) {
  if (t == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(t, kGroups), kBlock}, Forward, t, d, x, weight, eps, y,
                      inv_rms);
}

cudaError_t RmsNormBackward(cudaStream_t stream, std::int64_t t, std::int64_t d, const float* x,
                            const float* weight, const float* inv_rms, const float* dy, float* dx,
                            float* dweight) {
  if (t == 0) return cudaSuccess;
  if (dweight != nullptr && d > 0) {
    const cudaError_t error = simt::Launch(stream, {BlocksFor(d, kBlock), kBlock}, BackwardOfWeight,
                                           t, d, x, inv_rms, dy, dweight);
    if (error != cudaSuccess) return error;
  }
  return simt::Launch(stream, {BlocksFor(t, kGroups), kBlock}, BackwardOfInput, t, d, x, weight,
                      inv_rms, dy, dx);
}

cudaError_t RmsNormHeads(cudaStream_t stream, std::int64_t t, std::int64_t heads,
                         std::int64_t head_dim, float* x, std::int64_t ldx, const float* weight,
                         float eps, float* inv_rms, std::int64_t ld_inv) {
  if (t * heads == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(t * heads, kGroups), kBlock}, ForwardOfHeads, t, heads,
                      head_dim, x, ldx, weight, eps, inv_rms, ld_inv);
}

cudaError_t RmsNormHeadsBackward(cudaStream_t stream, std::int64_t t, std::int64_t heads,
                                 std::int64_t head_dim, const float* x, std::int64_t ldx,
                                 const float* weight, const float* inv_rms, std::int64_t ld_inv,
                                 float* dy, std::int64_t lddy, float* dweight) {
  if (t * heads == 0) return cudaSuccess;
  const cudaError_t error =
      simt::Launch(stream, {BlocksFor(head_dim, kBlock), kBlock}, BackwardOfHeadWeight, t, heads,
                   head_dim, x, ldx, inv_rms, ld_inv, dy, lddy, dweight);
  if (error != cudaSuccess) return error;
  return simt::Launch(stream, {BlocksFor(t * heads, kGroups), kBlock}, BackwardOfHeads, t, heads,
                      head_dim, x, ldx, weight, inv_rms, ld_inv, dy, lddy);
}

}  // namespace thresher::kernels::cuda
