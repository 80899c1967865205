#include "kernels/cuda/attention_bf16_forms.cuh"
#include "kernels/cuda/attention_bf16_operands.cuh"
#include "kernels/cuda/attention_bf16_split.cuh"
#include "kernels/cuda/convert_bf16.h"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

__global__ void OfQueries(AttentionBackwardArgs a, const std::uint16_t* dout, bool sizes,
                          float2* of_query) {
  ForEachUnitOfGroup(a.t * a.heads, [&](std::int64_t unit) {
    const std::int64_t t = unit / a.heads, head = unit % a.heads;
    const float* out = a.out + t * a.ldo + head * a.head_dim;
    const std::uint16_t* of_out = dout + unit * a.head_dim;
    float sum = 0;
    for (std::int64_t d = simt::Lane(); d < a.head_dim; d += simt::kGroup) {
      const float x = Bf16Value(of_out[d]), y = out[d];
      sum = sizes ? simt::Fma(std::fabs(x), std::fabs(y), sum) : simt::Fma(x, y, sum);
    }
    const float delta = cuda_lanes::ReduceAdd({sum});
    if (simt::Lane() == 0) of_query[unit] = {simt::Mul(a.lse[unit], kLog2E), delta};
  });
}

}  // namespace

std::size_t AttentionBackwardBf16ScratchBytes(std::int64_t t, std::int64_t heads,
                                              std::int64_t kv_heads, std::int64_t head_dim) {
  return static_cast<std::size_t>(t) *
         (static_cast<std::size_t>(2 * (heads + kv_heads) * head_dim) * sizeof(std::uint16_t) +
          static_cast<std::size_t>(heads) * sizeof(float2));
}

cudaError_t MakeGradOperands(cudaStream_t stream, const AttentionBackwardArgs& a,
                             const Sequences& sequences, void* scratch, bool sizes,
                             GradOperands* operands) {
  if (a.kv_heads <= 0 || a.heads <= 0 || a.heads % a.kv_heads != 0 ||
      !ServesAttentionBf16(a.head_dim) || !(a.scale > 0)) {
    return cudaErrorInvalidValue;
  }
  const std::int64_t width = a.heads * a.head_dim, kv_width = a.kv_heads * a.head_dim;
  GradOperands& to = *operands;
  to.q = static_cast<std::uint16_t*>(scratch);
  to.dout = to.q + a.t * width;
  to.k = to.dout + a.t * width;
  to.v = to.k + a.t * kv_width;
  to.of_query = reinterpret_cast<float2*>(to.v + a.t * kv_width);
  to.begin = sequences.begin;
  to.scale = a.scale, to.c = Bf16AttentionScale(a.scale);
  to.heads = static_cast<int>(a.heads), to.kv_heads = static_cast<int>(a.kv_heads);
  to.head_dim = static_cast<int>(a.head_dim);
  if (a.t == 0) return cudaSuccess;
  cudaError_t error = RoundToBf16(stream, a.t, width, a.q, a.ldq, to.q, width);
  if (error == cudaSuccess) error = RoundToBf16(stream, a.t, width, a.dout, a.lddo, to.dout, width);
  if (error == cudaSuccess) error = RoundToBf16(stream, a.t, kv_width, a.k, a.ldk, to.k, kv_width);
  if (error == cudaSuccess) error = RoundToBf16(stream, a.t, kv_width, a.v, a.ldv, to.v, kv_width);
  if (error != cudaSuccess) return error;
  return simt::Launch(stream, {BlocksFor(a.t * a.heads, kGroups), kBlock}, OfQueries, a, to.dout,
                      sizes, to.of_query);
}

}  // namespace thresher::kernels::cuda
