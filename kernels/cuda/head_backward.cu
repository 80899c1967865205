#include "kernels/cuda/gemm_forms.cuh"
#include "kernels/cuda/group_loop.cuh"
#include "kernels/cuda/head_backward.h"
#include "kernels/cuda/head_softmax.cuh"
#include "kernels/cuda/product_tile.cuh"

namespace thresher::kernels::cuda {
namespace {

using Shape = ProductShape<16>;

// A part of the vocabulary: ids [v0, v0 + n), v0 a multiple of kVocabBlock.
struct Part {
  std::int64_t v0, n;
  float* dlogits;  // [T, ld]
  std::int64_t ld;
};

// The gradient with respect to a logit of row t; see HeadBackwardArgs for the formula.
__device__ float LogitGrad(const HeadBackwardArgs& a, std::int64_t t, std::int64_t id,
                           float logit) {
  const bool with_entropy = a.dentropy != nullptr;
  const float divisor = TemperatureOf(a.temperature[t]);
  const float log_p = simt::Sub(simt::Div(logit, divisor), a.lse[t]), p = Exp(log_p);
  const float is_target = id == a.targets[t] ? 1.0f : 0.0f;
  const float from_logprob = simt::Mul(a.dlogprob[t], simt::Sub(is_target, p));
  const float surprise = simt::Mul(p, simt::Add(log_p, with_entropy ? a.entropy[t] : 0.0f));
  const float dentropy = with_entropy ? a.dentropy[t] : 0.0f;
  return simt::Div(simt::Fma(-dentropy, surprise, from_logprob), divisor);
}

// Block (x, y): tile x of the rows, y of the part's ids. Between chunks of D the logits lie in
// dlogits itself.
template <WeightType kType>
__global__ void __launch_bounds__(kTileBlock) LogitGrads(HeadBackwardArgs a, Part part) {
  const std::int64_t row0 = std::int64_t{blockIdx.x} * Shape::kRows;
  const std::int64_t column0 = std::int64_t{blockIdx.y} * Shape::kColumns;
  const std::int64_t panel0 = (part.v0 + column0) / kGemmPanel;
  const std::int64_t panel_bytes = PanelBytesOf(kType, a.d);
  const ProductInput in{a.hidden + row0 * a.ldh,
                        a.ldh,
                        a.t - row0,
                        static_cast<const char*>(a.packed_head.data) + panel0 * panel_bytes,
                        (part.v0 + part.n + kGemmPanel - 1) / kGemmPanel - panel0,
                        panel_bytes,
                        a.d};
  MultiplyTile<Shape, kType>(
      in, simt::SharedMemory<float>(), [&](const float(&chain)[8][8], bool first, bool last) {
        const auto put = [&](std::int64_t t, std::int64_t column, int r, int c) {
          float* at = part.dlogits + t * part.ld + column;
          const float logit = first ? chain[r][c] : simt::Add(*at, chain[r][c]);
          *at = last ? LogitGrad(a, t, part.v0 + column, logit) : logit;
        };
        ForEachInTile<Shape>(row0, a.t, column0, part.n, put);
      });
}

// Block (x, y): tile x of the rows, y of D. dhidden (+)= a chain for each vocabulary block of the
// part, ascending.
template <WeightType kType>
__global__ void __launch_bounds__(kTileBlock) HiddenGrads(HeadBackwardArgs a, Part part) {
  const std::int64_t row0 = std::int64_t{blockIdx.x} * Shape::kRows;
  const std::int64_t column0 = std::int64_t{blockIdx.y} * Shape::kColumns;
  const std::int64_t panel0 = column0 / kGemmPanel, panel_bytes = PanelBytesOf(kType, a.v);
  constexpr std::int64_t kDepthBytes = kGemmPanel * (kType == WeightType::kF32 ? 4 : 2);
  const ProductInput in{part.dlogits + row0 * part.ld,
                        part.ld,
                        a.t - row0,
                        static_cast<const char*>(a.packed_head_transposed.data) +
                            panel0 * panel_bytes + part.v0 * kDepthBytes,
                        (a.d + kGemmPanel - 1) / kGemmPanel - panel0,
                        panel_bytes,
                        part.n};
  MultiplyTile<Shape, kType, kVocabBlock>(
      in, simt::SharedMemory<float>(), [&](const float(&chain)[8][8], bool first, bool) {
        const auto add = [&](std::int64_t t, std::int64_t column, int r, int c) {
          float* at = a.dhidden + t * a.lddh + column;
          *at = first && part.v0 == 0 ? chain[r][c] : simt::Add(*at, chain[r][c]);
        };
        ForEachInTile<Shape>(row0, a.t, column0, a.d, add);
      });
}

__global__ void LogitGradsInPlace(HeadBackwardArgs a, Part part) {
  ForEachUnitOfThread(a.t * part.n, [=](std::int64_t unit) {
    const std::int64_t t = unit / part.n, id = part.v0 + unit % part.n;
    float* at = part.dlogits + t * part.ld + unit % part.n;
    *at = id < a.valid_vocab ? LogitGrad(a, t, id, *at) : 0.0f;
  });
}

simt::Shape TilesOf(std::int64_t rows, std::int64_t columns) {
  return {static_cast<unsigned>((rows + Shape::kRows - 1) / Shape::kRows), kTileBlock,
          Shape::kFloats * sizeof(float),
          static_cast<unsigned>((columns + Shape::kColumns - 1) / Shape::kColumns)};
}

using PartKernel = void (*)(HeadBackwardArgs, Part);

PartKernel LogitGradsOf(WeightType type) {
  if (type == WeightType::kF32) return LogitGrads<WeightType::kF32>;
  return type == WeightType::kBf16 ? LogitGrads<WeightType::kBf16> : LogitGrads<WeightType::kF16>;
}

PartKernel HiddenGradsOf(WeightType type) {
  if (type == WeightType::kF32) return HiddenGrads<WeightType::kF32>;
  return type == WeightType::kBf16 ? HiddenGrads<WeightType::kBf16> : HiddenGrads<WeightType::kF16>;
}

cudaError_t PartBackward(cudaStream_t stream, const HeadBackwardArgs& a, const Part& part) {
  cudaError_t error =
      simt::Launch(stream, TilesOf(a.t, part.n), LogitGradsOf(a.packed_head.type), a, part);
  if (error == cudaSuccess && a.dhidden != nullptr) {
    error = simt::Launch(stream, TilesOf(a.t, a.d), HiddenGradsOf(a.packed_head_transposed.type), a,
                         part);
  }
  if (error == cudaSuccess && a.dhead != nullptr) {
    error = WeightGradTile(stream, a.t, part.n, a.d, part.dlogits, part.ld, a.hidden, a.ldh,
                           a.dhead + part.v0 * a.d);
  }
  return error;
}

}  // namespace

cudaError_t HeadLogitGrads(cudaStream_t stream, const HeadBackwardArgs& args, std::int64_t v0,
                           std::int64_t n, float* logits, std::int64_t ld) {
  if (args.t * n == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(args.t * n, kBlock), kBlock}, LogitGradsInPlace, args,
                      Part{v0, n, logits, ld});
}

std::size_t HeadBackwardLeastScratchBytes(std::int64_t t) {
  return static_cast<std::size_t>(t * kVocabBlock) * sizeof(float);
}

std::size_t HeadBackwardScratchBytes(std::int64_t t, std::int64_t valid_vocab) {
  constexpr std::int64_t kBlocks = 16;  // 4096 ids: tiles enough for a device even of few rows
  const std::int64_t all = HeadBlockCount(valid_vocab);
  return HeadBackwardLeastScratchBytes(t) * static_cast<std::size_t>(all < kBlocks ? all : kBlocks);
}

cudaError_t HeadBackward(cudaStream_t stream, const HeadBackwardArgs& args, void* scratch,
                         std::size_t scratch_bytes) {
  if (args.valid_vocab < 1 || args.valid_vocab > args.v) return cudaErrorInvalidValue;
  if (args.t == 0 || args.d == 0) return cudaSuccess;
  std::int64_t blocks =
      static_cast<std::int64_t>(scratch_bytes / HeadBackwardLeastScratchBytes(args.t));
  if (blocks < 1) return cudaErrorInvalidValue;
  const std::int64_t all = HeadBlockCount(args.valid_vocab);
  if (blocks > all) blocks = all;
  const std::int64_t step = blocks * kVocabBlock;
  for (std::int64_t v0 = 0; v0 < args.valid_vocab; v0 += step) {
    const std::int64_t left = args.valid_vocab - v0;
    const Part part{v0, left < step ? left : step, static_cast<float*>(scratch), step};
    const cudaError_t error = PartBackward(stream, args, part);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace thresher::kernels::cuda
