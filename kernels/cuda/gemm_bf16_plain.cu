#include <cmath>

#include "kernels/cuda/gemm_bf16.h"
#include "kernels/cuda/gemm_bf16_kernel.cuh"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

// The product's weight of output n and place k of the sum.
THRESHER_DEVICE float WeightAt(const Bf16Rows& w, bool grad, std::int64_t n, std::int64_t k) {
  return Bf16Value(grad ? w.data[k * w.ld + n] : w.data[n * w.ld + k]);
}

__global__ void Plain(Bf16Rows x, Bf16Rows w, bool grad, std::int64_t outputs, std::int64_t chunk,
                      Bf16Output out) {
  const std::int64_t depth = x.columns;
  ForEachUnitOfThread(x.rows * outputs, [=](std::int64_t unit) {
    const std::int64_t token = unit / outputs, output = unit % outputs;
    float total = 0;
    for (std::int64_t k = 0; k < depth;) {
      const bool first = k == 0;
      const std::int64_t end = k + chunk < depth ? k + chunk : depth;
      float sum = 0;
      for (; k < end; ++k) {
        sum = simt::Fma(Bf16Value(x.data[token * x.ld + k]), WeightAt(w, grad, output, k), sum);
      }
      total = first ? sum : simt::Add(total, sum);
    }
    StoreOne(out, token, output, total);
  });
}

__global__ void Magnitude(Bf16Rows x, Bf16Rows w, bool grad, std::int64_t outputs, Bf16Output out,
                          float* magnitude) {
  ForEachUnitOfThread(x.rows * outputs, [=](std::int64_t unit) {
    const std::int64_t token = unit / outputs, output = unit % outputs;
    float total = 0;
    for (std::int64_t k = 0; k < x.columns;) {
      float sum = 0;
      for (const std::int64_t end = k + kBf16ChunkUnit; k < end && k < x.columns; ++k) {
        const float a = Bf16Value(x.data[token * x.ld + k]);
        sum = simt::Fma(std::fabs(a), std::fabs(WeightAt(w, grad, output, k)), sum);
      }
      total = simt::Add(total, sum);
    }
    if (out.bias != nullptr) total = simt::Add(total, std::fabs(out.bias[output]));
    if (out.base != nullptr) {
      total = simt::Add(total, std::fabs(out.base[token * out.ldbase + output]));
    }
    magnitude[unit] = total * (1 + 0x1p-8f);
  });
}

std::int64_t OutputsOf(const Bf16Rows& w, bool grad) { return grad ? w.columns : w.rows; }

}  // namespace

cudaError_t GemmBf16Plain(cudaStream_t stream, bool grad, Bf16Rows x, Bf16Rows w,
                          const Bf16Output& out) {
  const std::int64_t outputs = OutputsOf(w, grad);
  if (x.columns < 1 || x.columns != (grad ? w.rows : w.columns)) return cudaErrorInvalidValue;
  if (x.rows * outputs == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(x.rows * outputs, kBlock), kBlock}, Plain, x, w, grad,
                      outputs, Bf16Chunk(x.columns), out);
}

cudaError_t GemmBf16Magnitude(cudaStream_t stream, bool grad, Bf16Rows x, Bf16Rows w,
                              const Bf16Output& out, float* magnitude) {
  const std::int64_t outputs = OutputsOf(w, grad);
  if (x.columns < 1 || x.columns != (grad ? w.rows : w.columns)) return cudaErrorInvalidValue;
  if (x.rows * outputs == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(x.rows * outputs, kBlock), kBlock}, Magnitude, x, w, grad,
                      outputs, out, magnitude);
}

}  // namespace thresher::kernels::cuda
