#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/head.h"
#include "kernels/cuda/head_softmax.cuh"
#include "kernels/cuda/product_stream.cuh"

// What follows a scan, a block of threads a row: log-probabilities and draws.
namespace thresher::kernels::cuda {
namespace {

constexpr int kFoldThreads = 128;
constexpr int kChooseThreads = static_cast<int>(kVocabBlock);

__global__ void __launch_bounds__(kFoldThreads)
    Fold(std::int64_t valid_vocab, const std::int32_t* targets, const HeadBlock* blocks,
         float* logprob, float* lse, float* entropy) {
  const std::int64_t t = blockIdx.x, count = BlocksOf(valid_vocab);
  const HeadBlock* of_row = blocks + t * count;
  auto* shared = simt::SharedMemory<RowFold<kFoldThreads>>();
  const HeadBlock row = entropy == nullptr ? FoldRow<kFoldThreads, false>(count, of_row, shared)
                                           : FoldRow<kFoldThreads, true>(count, of_row, shared);
  if (threadIdx.x != 0) return;
  const float total = LogSumExp(row);
  const std::int64_t target = targets[t];
  logprob[t] = target >= 0 && target < valid_vocab
                   ? simt::Sub(of_row[target / kVocabBlock].target, total)
                   : simt::FloatOf(0x7fc00000u);
  if (lse != nullptr) lse[t] = total;
  if (entropy != nullptr) {
    entropy[t] = simt::Sub(Log(row.sum), simt::Div(row.weighted, row.sum));
  }
}

// Shared memory of a block that draws; behind it the prefix sums of all blocks' masses.
struct DrawShared {
  RowFold<kChooseThreads> fold;
  std::int64_t reduce[kMostWarpsOfBlock];
  alignas(16) float stage[kStage];
  float z[kVocabBlock];
  double mass[kVocabBlock];
};

__device__ HeadPick PickBlock(std::int64_t count, const HeadBlock* blocks, bool greedy,
                              double uniform, DrawShared* shared) {
  auto* prefix = reinterpret_cast<double*>(shared + 1);
  const HeadBlock row = FoldRow<kChooseThreads, false>(count, blocks, &shared->fold);
  HeadPick pick{0.0, row.maximum, LogSumExp(row), 0.0f, 0};
  if (greedy) {
    std::int64_t first = count;
    for (std::int64_t b = threadIdx.x; b < count && first == count; b += blockDim.x) {
      if (blocks[b].maximum == row.maximum) first = b;
    }
    first = BlockMin(first, shared->reduce);
    pick.block = first == count ? 0 : static_cast<std::int32_t>(first);
  } else {
    const MassChoice choice = ChooseMass(
        count,
        [&](std::int64_t b) {
          const float scale = Exp(simt::Sub(blocks[b].maximum, row.maximum));
          return static_cast<double>(blocks[b].sum) * static_cast<double>(scale);
        },
        uniform, prefix, shared->reduce);
    pick.block = static_cast<std::int32_t>(choice.index);
    pick.fraction = choice.fraction;
  }
  pick.block_maximum = blocks[pick.block].maximum;
  return pick;
}

// The draw within the picked block of n ids: thread j has z of the j-th.
__device__ void DrawToken(const HeadPick& pick, std::int64_t n, float z, bool greedy,
                          DrawShared* shared, std::int32_t* token, float* logprob) {
  const std::int64_t j = threadIdx.x;
  std::int64_t id = 0;
  __syncthreads();
  shared->z[j] = z;
  if (greedy) {
    id = BlockMin(j < n && z == pick.maximum ? j : n, shared->reduce);
    if (id == n) id = 0;
  } else {
    const auto mass = [&](std::int64_t i) {
      return static_cast<double>(Exp(simt::Sub(shared->z[i], pick.block_maximum)));
    };
    id = ChooseMass(n, mass, pick.fraction, shared->mass, shared->reduce).index;
  }
  if (threadIdx.x != 0) return;
  *token = static_cast<std::int32_t>(pick.block * kVocabBlock + id);
  *logprob = simt::Sub(shared->z[id], pick.lse);
}

__device__ std::int64_t IdsOfBlock(const HeadRows& rows, std::int32_t block) {
  const std::int64_t left = rows.valid_vocab - block * kVocabBlock;
  return left < kVocabBlock ? left : kVocabBlock;
}

// The thread's plain logit of the picked block, computed once more.
__device__ float BlockLogit(const HeadRows& rows, std::int64_t t, std::int32_t block,
                            float* stage) {
  const std::int64_t last = (rows.valid_vocab - 1) / kGemmPanel;
  std::int64_t panel = block * (kVocabBlock / kGemmPanel) + threadIdx.x / 32;
  if (panel > last) panel = last;  // nobody asks for what is behind it
  const float* x = rows.hidden + t * rows.ldh;
  const char* w = static_cast<const char*>(rows.head.data);
  float logit[1] = {};
  const auto multiply = [&](auto type) {
    constexpr WeightType kType = decltype(type)::value;
    StreamColumn<kType, 1, BlockTeam>(x, 0, 1, w + panel * PanelBytesOf(kType, rows.d), rows.d,
                                      stage, logit);
  };
  if (rows.head.type == WeightType::kF32) {
    multiply(std::integral_constant<WeightType, WeightType::kF32>());
  } else if (rows.head.type == WeightType::kBf16) {
    multiply(std::integral_constant<WeightType, WeightType::kBf16>());
  } else {
    multiply(std::integral_constant<WeightType, WeightType::kF16>());
  }
  return logit[0];
}

__global__ void __launch_bounds__(kChooseThreads)
    Choose(HeadRows rows, const HeadBlock* blocks, HeadLogitStore store, const double* uniform,
           std::int32_t* token, float* logprob) {
  auto* shared = simt::SharedMemory<DrawShared>();
  const std::int64_t t = blockIdx.x, count = BlocksOf(rows.valid_vocab);
  const bool greedy = rows.temperature[t] == 0.0f;
  const HeadPick pick =
      PickBlock(count, blocks + t * count, greedy, greedy ? 0.0 : uniform[t], shared);
  const std::int64_t n = IdsOfBlock(rows, pick.block), j = threadIdx.x;
  const std::int64_t slot = store.data == nullptr ? -1 : store.slot == nullptr ? t : store.slot[t];
  float logit = 0;
  if (slot < 0) {
    logit = BlockLogit(rows, t, pick.block, shared->stage);
  } else if (j < n) {
    logit = store.data[slot * store.ld + pick.block * kVocabBlock + j];
  }
  DrawToken(pick, n, simt::Div(logit, TemperatureOf(rows.temperature[t])), greedy, shared,
            token + t, logprob + t);
}

__global__ void __launch_bounds__(kChooseThreads)
    Picks(HeadRows rows, const HeadBlock* blocks, const double* uniform, HeadPick* picks) {
  const std::int64_t t = blockIdx.x, count = BlocksOf(rows.valid_vocab);
  const bool greedy = rows.temperature[t] == 0.0f;
  const HeadPick pick = PickBlock(count, blocks + t * count, greedy, greedy ? 0.0 : uniform[t],
                                  simt::SharedMemory<DrawShared>());
  if (threadIdx.x == 0) picks[t] = pick;
}

__global__ void __launch_bounds__(kChooseThreads)
    Draws(HeadRows rows, const HeadPick* picks, const float* logits, std::int64_t ld,
          std::int32_t* token, float* logprob) {
  const std::int64_t t = blockIdx.x, j = threadIdx.x, n = IdsOfBlock(rows, picks[t].block);
  const float logit = j < n ? logits[t * ld + j] : 0.0f;
  DrawToken(picks[t], n, simt::Div(logit, TemperatureOf(rows.temperature[t])),
            rows.temperature[t] == 0.0f, simt::SharedMemory<DrawShared>(), token + t, logprob + t);
}

simt::Shape ShapeOf(const HeadRows& rows, std::int64_t prefixes) {
  return {static_cast<unsigned>(rows.t), kChooseThreads,
          sizeof(DrawShared) + static_cast<std::size_t>(prefixes) * sizeof(double)};
}

}  // namespace

cudaError_t HeadFold(cudaStream_t stream, const HeadRows& rows, const std::int32_t* targets,
                     const HeadBlock* blocks, float* logprob, float* lse, float* entropy) {
  if (rows.t == 0) return cudaSuccess;
  return simt::Launch(stream,
                      {static_cast<unsigned>(rows.t), kFoldThreads, sizeof(RowFold<kFoldThreads>)},
                      Fold, rows.valid_vocab, targets, blocks, logprob, lse, entropy);
}

cudaError_t HeadChoose(cudaStream_t stream, const HeadRows& rows, const HeadBlock* blocks,
                       const HeadLogitStore& store, const double* uniform, std::int32_t* token,
                       float* logprob) {
  if (rows.t == 0) return cudaSuccess;
  return simt::Launch(stream, ShapeOf(rows, HeadBlockCount(rows.valid_vocab)), Choose, rows, blocks,
                      store, uniform, token, logprob);
}

cudaError_t HeadPicks(cudaStream_t stream, const HeadRows& rows, const HeadBlock* blocks,
                      const double* uniform, HeadPick* picks) {
  if (rows.t == 0) return cudaSuccess;
  return simt::Launch(stream, ShapeOf(rows, HeadBlockCount(rows.valid_vocab)), Picks, rows, blocks,
                      uniform, picks);
}

cudaError_t HeadDraws(cudaStream_t stream, const HeadRows& rows, const HeadPick* picks,
                      const float* block_logits, std::int64_t ld, std::int32_t* token,
                      float* logprob) {
  if (rows.t == 0) return cudaSuccess;
  return simt::Launch(stream, ShapeOf(rows, 0), Draws, rows, picks, block_logits, ld, token,
                      logprob);
}

}  // namespace thresher::kernels::cuda
