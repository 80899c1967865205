#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_element.h"
#include "kernels/cuda/gemm_forms.cuh"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

__global__ void Product(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                        std::int64_t ldx, PackedMatrix w, const float* bias, float* y,
                        std::int64_t ldy) {
  ForEachUnitOfThread(t * n, [=](std::int64_t unit) {
    const std::int64_t row = unit / n, column = unit % n;
    y[row * ldy + column] = GemmElement(k, x + row * ldx, w.data, w.type, column, bias);
  });
}

__global__ void WeightGrad(std::int64_t t, std::int64_t n, std::int64_t k, const float* dy,
                           std::int64_t lddy, const float* x, std::int64_t ldx, float* dw) {
  ForEachUnitOfThread(n * k, [=](std::int64_t unit) {
    dw[unit] = WeightGradElement(t, dy + unit / k, lddy, x + unit % k, ldx, dw[unit]);
  });
}

__global__ void BiasSum(std::int64_t t, std::int64_t n, const float* dy, std::int64_t lddy,
                        float* dbias) {
  ForEachUnitOfThread(n, [=](std::int64_t column) {
    float sum = dbias[column];
    for (std::int64_t i = 0; i < t; ++i) sum = simt::Add(sum, dy[i * lddy + column]);
    dbias[column] = sum;
  });
}

GemmForm FormFor(std::int64_t t, std::int64_t n) {
  constexpr std::int64_t kFewRows = 64;  // the weights pass through L2 four times
  constexpr std::int64_t kEnoughTiles = 64;
  return t <= kFewRows || GemmTileCount(t, n) < kEnoughTiles ? GemmForm::kStream : GemmForm::kTile;
}

}  // namespace

cudaError_t Gemm(cudaStream_t stream, std::int64_t t, std::int64_t n, std::int64_t k,
                 const float* x, std::int64_t ldx, PackedMatrix w, const float* bias, float* y,
                 std::int64_t ldy, GemmForm form) {
  if (t * n == 0) return cudaSuccess;
  const GemmCall call{t, n, k, x, ldx, w, bias, y, ldy};
  if (form == GemmForm::kAuto) form = FormFor(t, n);
  if (form == GemmForm::kStream) return GemmStream(stream, call);
  if (form == GemmForm::kTile) return GemmTile(stream, call);
  return simt::Launch(stream, {BlocksFor(t * n, kBlock), kBlock}, Product, t, n, k, x, ldx, w, bias,
                      y, ldy);
}

cudaError_t GemmAccumulateWeightGrad(cudaStream_t stream, std::int64_t t, std::int64_t n,
                                     std::int64_t k, const float* dy, std::int64_t lddy,
                                     const float* x, std::int64_t ldx, float* dw, GemmForm form) {
  if (t * n * k == 0) return cudaSuccess;
  if (form != GemmForm::kElement) return WeightGradTile(stream, t, n, k, dy, lddy, x, ldx, dw);
  return simt::Launch(stream, {BlocksFor(n * k, kBlock), kBlock}, WeightGrad, t, n, k, dy, lddy, x,
                      ldx, dw);
}

cudaError_t BiasGrad(cudaStream_t stream, std::int64_t t, std::int64_t n, const float* dy,
                     std::int64_t lddy, float* dbias) {
  if (t * n == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(n, kBlock), kBlock}, BiasSum, t, n, dy, lddy, dbias);
}

}  // namespace thresher::kernels::cuda
