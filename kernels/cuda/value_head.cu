#include "kernels/cuda/value_head.h"

#define THRESHER_VARIANT cuda_lanes
#define THRESHER_VEC_SIMT
#include "kernels/cpu/value_head.inl"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

__global__ void Forward(std::int64_t t, std::int64_t d, const float* hidden, std::int64_t ldh,
                        const float* weight, const float* bias, float* value) {
  ForEachUnitOfGroup(t, [=](std::int64_t i) {
    cuda_lanes::ValueHeadForward(1, d, hidden + i * ldh, ldh, weight, bias, value + i);
  });
}

__global__ void BackwardOfInput(ValueHeadBackwardArgs args) {
  ForEachUnitOfGroup(args.t, [=](std::int64_t i) {
    ValueHeadBackwardArgs row = args;
    row.t = 1;
    row.dvalue += i;
    row.dhidden += i * args.lddh;
    row.dweight = row.dbias = nullptr;
    cuda_lanes::ValueHeadBackward(row);
  });
}

// One chain over tokens for each column, and one for the bias behind them.
__global__ void BackwardOfHead(ValueHeadBackwardArgs args) {
  ForEachUnitOfThread(args.d + 1, [=](std::int64_t c) {
    float* to = c < args.d ? args.dweight : args.dbias;
    if (to == nullptr) return;
    if (c < args.d) to += c;
    float sum = *to;
    for (std::int64_t i = 0; i < args.t; ++i) {
      const float g = args.dvalue[i];
      if (g == 0.0f) continue;
      sum = c < args.d ? __fmaf_rn(g, args.hidden[i * args.ldh + c], sum) : __fadd_rn(sum, g);
    }
    *to = sum;
  });
}

}  // namespace

cudaError_t ValueHeadForward(cudaStream_t stream, std::int64_t t, std::int64_t d,
                             const float* hidden, std::int64_t ldh, const float* weight,
                             const float* bias, float* value) {
  if (t == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(t, kGroups), kBlock}, Forward, t, d, hidden, ldh, weight,
                      bias, value);
}

cudaError_t ValueHeadBackward(cudaStream_t stream, const ValueHeadBackwardArgs& args) {
  if (args.t == 0) return cudaSuccess;
  if (args.dhidden != nullptr) {
    const cudaError_t error =
        simt::Launch(stream, {BlocksFor(args.t, kGroups), kBlock}, BackwardOfInput, args);
    if (error != cudaSuccess) return error;
  }
  if (args.dweight == nullptr && args.dbias == nullptr) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(args.d + 1, kBlock), kBlock}, BackwardOfHead, args);
}

}  // namespace thresher::kernels::cuda
