#include "kernels/cuda/filter_row.cuh"
#include "kernels/cuda/head_filter.h"

namespace thresher::kernels::cuda {
namespace {

using cuda_lanes::F16;
using cuda_lanes::M16;

// Draws among the kept ids. block_mass: [kVocabBlock] doubles of shared memory.
__device__ std::int64_t ChooseKeptId(const FilterRow& row, double uniform, double* block_mass) {
  using namespace cuda_lanes;
  auto* reduce = row.shared->reduce;
  float* masses = row.block_max;  // from here on: the blocks' kept masses, no longer their maxima
  __syncthreads();
  ForEachBlock(row.blocks, [&](std::int64_t b) {
    F16 sum = Zero();
    if (!row.Skips(b, row.threshold)) {
      for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
        sum = Add(sum, LoadN(row.mass + j, row.n - j));
      }
    }
    const float mass = ReduceAdd(sum);
    simt::SyncGroup();  // all lanes have read the maximum
    if (simt::Lane() == 0) masses[b] = mass;
  });
  const MassChoice choice = ChooseMass(
      row.blocks, [&](std::int64_t b) { return static_cast<double>(masses[b]); }, uniform, row.sums,
      reduce);
  const float* in_block = row.mass + choice.index * kVocabBlock;
  const std::int64_t n = row.End(choice.index) - choice.index * kVocabBlock;
  const MassChoice id = ChooseMass(
      n, [&](std::int64_t j) { return static_cast<double>(in_block[j]); }, choice.fraction,
      block_mass, reduce);
  return choice.index * kVocabBlock + id.index;
}

// log of the sum over kept ids of exp(z - lse), relative to the greatest kept z. Called before
// ChooseKeptId.
__device__ float KeptMassLogProb(const FilterRow& row, float temperature, float lse) {
  using namespace cuda_lanes;
  const F16 divisor = Set1(TemperatureOf(temperature)), minus_inf = Set1(-__builtin_inff());
  __syncthreads();
  ForEachBlock(row.blocks, [&](std::int64_t b) {
    F16 max = minus_inf;
    if (!row.Skips(b, row.threshold)) {
      for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
        const M16 kept = Lt(Zero(), LoadN(row.mass + j, row.n - j));
        max = Max(max, Select(kept, Div(LoadN(row.logits + j, row.n - j), divisor), minus_inf));
      }
    }
    const float maximum = ReduceMax(max);
    if (simt::Lane() == 0) row.sums[b] = static_cast<double>(maximum);
  });
  __syncthreads();
  float maximum = -__builtin_inff();
  for (std::int64_t b = 0; b < row.blocks; ++b) {
    const auto of_block = static_cast<float>(row.sums[b]);
    if (of_block > maximum) maximum = of_block;
  }
  const double total = SumOverBlocks(row, row.threshold, [&](std::int64_t b) {
    F16 sum = Zero();
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
      const M16 kept = Lt(Zero(), LoadN(row.mass + j, row.n - j));
      const F16 z = Div(LoadN(row.logits + j, row.n - j), divisor);
      sum = Add(sum, Select(kept, ExpV(Sub(z, Set1(maximum))), Zero()));
    }
    return ReduceAdd(sum);
  });
  const float kept = simt::Add(simt::Sub(maximum, lse), cuda::Log(static_cast<float>(total)));
  return kept < 0.0f ? kept : 0.0f;
}

// lse of the kept scores. Called before ChooseKeptId.
__device__ float KeptScoreLse(const FilterRow& row) {
  using namespace cuda_lanes;
  const double total = SumOverBlocks(row, row.threshold, [&](std::int64_t b) {
    F16 sum = Zero();
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
      sum = Add(sum, LoadN(row.mass + j, row.n - j));
    }
    return ReduceAdd(sum);
  });
  return simt::Add(row.greatest, cuda::Log(static_cast<float>(total)));
}

// Called before ChooseKeptId.
__device__ void StoreKept(const FilterRow& row, std::uint64_t* kept) {
  for (std::int64_t word = threadIdx.x; word < (row.n + 63) / 64; word += blockDim.x) {
    std::uint64_t bits = 0;
    const std::int64_t begin = word * 64, end = begin + 64 < row.n ? begin + 64 : row.n;
    const bool skipped = row.Skips(begin / kVocabBlock, row.threshold);
    for (std::int64_t j = begin; j < end && !skipped; ++j) {
      bits |= std::uint64_t{row.mass[j] > 0.0f} << (j % 64);
    }
    kept[word] = bits;
  }
}

struct SampleCall {
  HeadChosenRows rows;
  const HeadRowFilter* filters;
  HeadLists lists;
  const double* uniform;
  float* scratch;
  HeadDraw* draws;
  std::uint64_t* kept;
};

__device__ FilterRow RowOf(const SampleCall& a, std::int64_t i, std::int64_t t,
                           FilterShared* shared) {
  const std::int64_t n = a.rows.valid_vocab, blocks = BlocksOf(n);
  const std::int64_t slot = a.rows.store.slot == nullptr ? t : a.rows.store.slot[t];
  auto* sums = reinterpret_cast<double*>(shared + 1);
  float* scratch = a.scratch + i * 2 * n;
  return {n,       blocks,      a.rows.store.data + slot * a.rows.store.ld,
          scratch, scratch + n, reinterpret_cast<float*>(sums + blocks + kVocabBlock),
          sums,    shared,      0,
          0};
}

__global__ void __launch_bounds__(kFilterThreads) Sample(SampleCall a) {
  const std::int64_t i = blockIdx.x, t = a.rows.row[i];
  if (t < 0) return;
  auto* shared = simt::SharedMemory<FilterShared>();
  FilterRow row = RowOf(a, i, t, shared);
  const HeadRowFilter f = a.filters[i];
  const float lse = LogSumExp(
      FoldRow<kFilterThreads, false>(row.blocks, a.rows.blocks + t * row.blocks, &shared->fold));
  ScoreRow(f, a.lists, &row);
  const float nan = simt::FloatOf(0x7fc00000u);
  HeadDraw draw{-1, nan, nan};
  if (cuda_lanes::IsFinite(lse) && cuda_lanes::IsFinite(row.greatest)) {
    if (f.temperature == 0.0f) {
      KeepGreatest(&row);
    } else {
      ApplyFilters(f, &row);
    }
    if (a.kept != nullptr) StoreKept(row, a.kept + i * ((row.n + 63) / 64));
    const bool moves_mass = f.repetition_penalty != 1.0f || f.bias_count > 0;
    const float kept = moves_mass ? KeptScoreLse(row) : KeptMassLogProb(row, f.temperature, lse);
    draw.token = static_cast<std::int32_t>(ChooseKeptId(row, a.uniform[i], row.sums + row.blocks));
    draw.logprob = simt::Sub(simt::Div(row.logits[draw.token], TemperatureOf(f.temperature)), lse);
    draw.kept_mass_logprob =
        moves_mass ? simt::Sub(draw.logprob, simt::Sub(row.score[draw.token], kept)) : kept;
  }
  if (threadIdx.x == 0) a.draws[i] = draw;
}

}  // namespace

std::size_t HeadFilterScratchBytes(std::int64_t rows, std::int64_t valid_vocab) {
  return static_cast<std::size_t>(rows * 2 * valid_vocab) * sizeof(float);
}

cudaError_t HeadSampleFiltered(cudaStream_t stream, const HeadChosenRows& rows,
                               const HeadRowFilter* filters, const HeadLists& lists,
                               const double* uniform, void* scratch, HeadDraw* draws,
                               std::uint64_t* kept) {
  if (rows.count == 0) return cudaSuccess;
  const auto blocks = static_cast<std::size_t>(HeadBlockCount(rows.valid_vocab));
  const std::size_t shared_bytes =
      sizeof(FilterShared) + (blocks + static_cast<std::size_t>(kVocabBlock)) * sizeof(double) +
      blocks * sizeof(float);
  return simt::Launch(
      stream, {static_cast<unsigned>(rows.count), kFilterThreads, shared_bytes}, Sample,
      SampleCall{rows, filters, lists, uniform, static_cast<float*>(scratch), draws, kept});
}

}  // namespace thresher::kernels::cuda
