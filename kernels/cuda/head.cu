#include "kernels/cuda/group_loop.cuh"
#include "kernels/cuda/head.h"
#include "kernels/cuda/head_softmax.cuh"
#include "kernels/cuda/product_stream.cuh"
#include "kernels/cuda/product_tile.cuh"

// The scans: blocks of rows x vocabulary.
namespace thresher::kernels::cuda {
namespace {

constexpr int kScanThreads = kTileBlock;
constexpr std::int64_t kFewRows = 16;  // that stream the weights
static_assert(kScanThreads == kVocabBlock && kVocabBlock % kGemmPanel == 0);
static_assert(ProductShape<8>::kColumns == kVocabBlock);

struct ScanCall {
  HeadRows rows;
  const std::int32_t* targets;
  HeadBlock* blocks;
  HeadLogitStore store;
};

// Softmax of row t over the block at v0, by a group of threads; logits: its n plain logits.
__device__ void FinishBlock(const ScanCall& a, std::int64_t t, std::int64_t v0, std::int64_t n,
                            const float* logits) {
  const std::int64_t target = a.targets == nullptr ? -1 : a.targets[t] - v0;
  const HeadBlock block = BlockSoftmax(n, logits, TemperatureOf(a.rows.temperature[t]), target);
  if (simt::Lane() == 0) {
    a.blocks[t * BlocksOf(a.rows.valid_vocab) + v0 / kVocabBlock] = block;
  }
  if (a.store.data == nullptr) return;
  const std::int64_t slot = a.store.slot == nullptr ? t : a.store.slot[t];
  if (slot < 0) return;
  float* to = a.store.data + slot * a.store.ld + v0;
  for (std::int64_t j = simt::Lane(); j < n; j += simt::kGroup) to[j] = logits[j];
}

// The groups of the block divide its rows. logits: [rows, kVocabBlock] of shared memory.
__device__ void FinishRows(const ScanCall& a, std::int64_t t0, std::int64_t rows, std::int64_t v0,
                           const float* logits) {
  const std::int64_t left = a.rows.valid_vocab - v0, n = left < kVocabBlock ? left : kVocabBlock;
  __syncthreads();
  for (int r = static_cast<int>(threadIdx.x) / simt::kGroup; r < rows;
       r += kScanThreads / simt::kGroup) {
    FinishBlock(a, t0 + r, v0, n, logits + r * kVocabBlock);
  }
}

// Block x: vocabulary block x for all (at most kRows) rows; a warp a panel.
template <WeightType kType, int kRows>
__global__ void __launch_bounds__(kScanThreads) ScanStream(ScanCall a) {
  float* stage = simt::SharedMemory<float>();
  float* logits = stage + kRows * kStage;
  const std::int64_t v0 = std::int64_t{blockIdx.x} * kVocabBlock, k = a.rows.d;
  // A panel behind the last one is not there: its warp streams the last.
  std::int64_t panel = v0 / kGemmPanel + threadIdx.x / 32;
  const std::int64_t last = (a.rows.valid_vocab - 1) / kGemmPanel;
  if (panel > last) panel = last;
  float total[kRows];
  StreamColumn<kType, kRows, BlockTeam>(
      a.rows.hidden, a.rows.ldh, a.rows.t,
      static_cast<const char*>(a.rows.head.data) + panel * PanelBytesOf(kType, k), k, stage, total);
#pragma unroll
  for (int r = 0; r < kRows; ++r) logits[r * kVocabBlock + threadIdx.x] = total[r];
  FinishRows(a, 0, a.rows.t, v0, logits);
}

// Block (x, y): rows [64x, 64x + 64), vocabulary block y.
template <WeightType kType>
__global__ void __launch_bounds__(kScanThreads) ScanTiles(ScanCall a) {
  using Shape = ProductShape<8>;
  float* logits = simt::SharedMemory<float>();
  const std::int64_t t0 = std::int64_t{blockIdx.x} * Shape::kRows, left = a.rows.t - t0;
  const std::int64_t v0 = std::int64_t{blockIdx.y} * kVocabBlock, panel0 = v0 / kGemmPanel;
  const ProductInput in{
      a.rows.hidden + t0 * a.rows.ldh,
      a.rows.ldh,
      left,
      static_cast<const char*>(a.rows.head.data) + panel0 * PanelBytesOf(kType, a.rows.d),
      (a.rows.valid_vocab + kGemmPanel - 1) / kGemmPanel - panel0,
      PanelBytesOf(kType, a.rows.d),
      a.rows.d};
  MultiplyTile<Shape, kType>(
      in, logits + Shape::kRows * kVocabBlock, [&](const float(&chain)[8][8], bool first, bool) {
#pragma unroll
        for (int r = 0; r < 8; ++r) {
#pragma unroll
          for (int c = 0; c < 8; ++c) {
            float* at = logits + Shape::Row(r) * kVocabBlock + Shape::Column(c);
            *at = first ? chain[r][c] : simt::Add(*at, chain[r][c]);
          }
        }
      });
  FinishRows(a, t0, left < Shape::kRows ? left : Shape::kRows, v0, logits);
}

// Logits [T, v_end - v_begin] that have been computed: a group a row and block.
__global__ void ScanComputed(ScanCall a, std::int64_t v_begin, std::int64_t v_end,
                             const float* logits, std::int64_t ld) {
  const std::int64_t blocks = (v_end - v_begin + kVocabBlock - 1) / kVocabBlock;
  ForEachUnitOfGroup(a.rows.t * blocks, [&](std::int64_t unit) {
    const std::int64_t t = unit / blocks, v0 = v_begin + unit % blocks * kVocabBlock;
    FinishBlock(a, t, v0, v_end - v0 < kVocabBlock ? v_end - v0 : kVocabBlock,
                logits + t * ld + v0 - v_begin);
  });
}

template <WeightType kType, int kRows>
cudaError_t LaunchStream(cudaStream_t stream, const ScanCall& a) {
  return simt::Launch(stream,
                      {static_cast<unsigned>(HeadBlockCount(a.rows.valid_vocab)), kScanThreads,
                       kRows * (kStage + kVocabBlock) * sizeof(float)},
                      ScanStream<kType, kRows>, a);
}

template <WeightType kType>
cudaError_t ScanOf(cudaStream_t stream, const ScanCall& a) {
  const std::int64_t t = a.rows.t;
  if (t == 1) return LaunchStream<kType, 1>(stream, a);
  if (t <= 4) return LaunchStream<kType, 4>(stream, a);
  if (t <= kFewRows) return LaunchStream<kType, kFewRows>(stream, a);
  using Shape = ProductShape<8>;
  return simt::Launch(stream,
                      {static_cast<unsigned>((t + Shape::kRows - 1) / Shape::kRows), kScanThreads,
                       (Shape::kRows * kVocabBlock + Shape::kFloats) * sizeof(float),
                       static_cast<unsigned>(HeadBlockCount(a.rows.valid_vocab))},
                      ScanTiles<kType>, a);
}

}  // namespace

cudaError_t HeadScan(cudaStream_t stream, const HeadRows& rows, const std::int32_t* targets,
                     HeadBlock* blocks, const HeadLogitStore& store) {
  if (rows.valid_vocab < 1 || rows.valid_vocab > rows.v) return cudaErrorInvalidValue;
  if (rows.t == 0) return cudaSuccess;
  const ScanCall call{rows, targets, blocks, store};
  switch (rows.head.type) {
    case WeightType::kF32:
      return ScanOf<WeightType::kF32>(stream, call);
    case WeightType::kBf16:
      return ScanOf<WeightType::kBf16>(stream, call);
    case WeightType::kF16:
      return ScanOf<WeightType::kF16>(stream, call);
  }
  return cudaErrorInvalidValue;
}

cudaError_t HeadScanLogits(cudaStream_t stream, const HeadRows& rows, const std::int32_t* targets,
                           std::int64_t v_begin, std::int64_t v_end, const float* logits,
                           std::int64_t ld, HeadBlock* blocks, const HeadLogitStore& store) {
  if (v_begin < 0 || v_begin % kVocabBlock != 0 || v_end > rows.valid_vocab ||
      (v_end % kVocabBlock != 0 && v_end != rows.valid_vocab)) {
    return cudaErrorInvalidValue;
  }
  if (rows.t == 0 || v_begin >= v_end) return cudaSuccess;
  const std::int64_t units = rows.t * HeadBlockCount(v_end - v_begin);
  return simt::Launch(stream, {BlocksFor(units, kGroups), kBlock}, ScanComputed,
                      ScanCall{rows, targets, blocks, store}, v_begin, v_end, logits, ld);
}

}  // namespace thresher::kernels::cuda
