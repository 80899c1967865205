#pragma once

#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/head_filter.h"
#include "kernels/cuda/head_softmax.cuh"
//
#include "kernels/cpu/float_order.inl"

// One row on its way through the filters, by a block of threads: kernels/cpu/head_filter.inl with
// the vocabulary blocks divided over groups of 16 threads. Functions that do not say otherwise are
// called by all threads of the block, and end with what they wrote seen by all.
namespace thresher::kernels::cuda {

inline constexpr int kFilterThreads = 512;

// Shared memory: this, then doubles [blocks] (sums), then floats [blocks] (block_max).
struct FilterShared {
  RowFold<kFilterThreads> fold;
  std::int64_t reduce[kMostWarpsOfBlock];
  double total, count;
  float greatest;
};

// An id is kept as long as its score is at least `threshold` and its mass is above 0.
struct FilterRow {
  std::int64_t n, blocks;
  const float* logits;  // [n]
  float* score;         // [n]; -inf outside the mask
  float* mass;          // [n] in blocks that reach the threshold; undefined in the others
  float* block_max;     // [blocks], of the scores
  double* sums;         // [blocks]: one number of each block
  FilterShared* shared;
  float greatest, threshold;  // the same in all threads

  THRESHER_DEVICE bool Skips(std::int64_t block, float limit) const {
    return block_max[block] < limit;
  }
  THRESHER_DEVICE std::int64_t End(std::int64_t block) const {
    const std::int64_t end = (block + 1) * kVocabBlock;
    return end < n ? end : n;
  }
};

// step(block) for the vocabulary blocks of this thread's group.
template <class Step>
THRESHER_DEVICE void ForEachBlock(std::int64_t blocks, const Step& step) {
  const std::int64_t groups = blockDim.x / simt::kGroup;
  for (std::int64_t b = threadIdx.x / simt::kGroup; b < blocks; b += groups) step(b);
}

// The sum over the blocks that reach `limit` of part(b), which a group finds together; ascending,
// in double.
template <class Part>
THRESHER_DEVICE double SumOverBlocks(const FilterRow& row, float limit, const Part& part) {
  __syncthreads();
  ForEachBlock(row.blocks, [&](std::int64_t b) {
    const double sum = row.Skips(b, limit) ? 0.0 : static_cast<double>(part(b));
    if (simt::Lane() == 0) row.sums[b] = sum;
  });
  __syncthreads();
  PrefixSumInOrder(row.blocks, row.sums);
  __syncthreads();
  return row.sums[row.blocks - 1];
}

// What stands at or above a limit.
struct Above {
  double count, mass;
};

THRESHER_DEVICE Above SumAbove(const FilterRow& row, bool masses, float limit) {
  using namespace cuda_lanes;
  Above above{0, 0};
  above.count = SumOverBlocks(row, limit, [&](std::int64_t b) {
    F16 count = Zero();
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
      const M16 below = Lt(LoadN(row.score + j, row.n - j), Set1(limit));
      const F16 one = Select(below, Zero(), Set1(1.0f));
      count = Add(count, Select(FirstN(row.n - j), one, Zero()));
    }
    return ReduceAdd(count);
  });
  if (!masses) return above;
  above.mass = SumOverBlocks(row, limit, [&](std::int64_t b) {
    F16 mass = Zero();
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
      const M16 below = Lt(LoadN(row.score + j, row.n - j), Set1(limit));
      mass = Add(mass, Select(below, Zero(), LoadN(row.mass + j, row.n - j)));
    }
    return ReduceAdd(mass);
  });
  return above;
}

// Raises the threshold to the greatest limit at or above which there are `wanted` ids, or that much
// mass; leaves it if there is less. The steps of the CPU's bisection.
THRESHER_DEVICE void RaiseThreshold(bool masses, double wanted, FilterRow* row) {
  const auto enough = [&](const Above& at) { return (masses ? at.mass : at.count) >= wanted; };
  float low = row->threshold;
  float high = cuda_lanes::FromOrder(cuda_lanes::OrderOf(row->greatest) + 1);
  Above at_low = SumAbove(*row, masses, low), at_high{0, 0};
  if (!enough(at_low)) return;
  float middle = simt::Sub(row->greatest, 16.0f);
  if (!(middle > low)) middle = cuda_lanes::Between(low, high);
  while (middle != low && at_low.count - at_high.count > 1) {
    const Above at = SumAbove(*row, masses, middle);
    if (enough(at)) {
      low = middle;
      at_low = at;
    } else {
      high = middle;
      at_high = at;
    }
    middle = cuda_lanes::Between(low, high);
  }
  row->threshold = low;
}

// Penalty, bias and mask, on the logits.
THRESHER_DEVICE void AdjustLogits(const HeadRowFilter& f, const HeadLists& lists,
                                  const FilterRow& row) {
  for (std::int64_t j = threadIdx.x; j < row.n; j += blockDim.x) row.score[j] = row.logits[j];
  __syncthreads();
  if (f.repetition_penalty != 1.0f) {
    for (std::int64_t i = threadIdx.x; i < f.seen_count; i += blockDim.x) {
      const std::int32_t id = lists.seen[f.seen_begin + i];
      if (id < 0 || id >= row.n) continue;
      const float s = row.score[id];
      row.score[id] =
          s < 0.0f ? simt::Mul(s, f.repetition_penalty) : simt::Div(s, f.repetition_penalty);
    }
    __syncthreads();
  }
  for (std::int64_t i = threadIdx.x; i < f.bias_count; i += blockDim.x) {
    const std::int32_t id = lists.bias_ids[f.bias_begin + i];
    if (id < 0 || id >= row.n) continue;
    row.score[id] = simt::Add(row.score[id], lists.bias_values[f.bias_begin + i]);
  }
  __syncthreads();
  if (f.allowed_begin >= 0) {
    const std::uint64_t* allowed = lists.allowed + f.allowed_begin;
    for (std::int64_t j = threadIdx.x; j < row.n; j += blockDim.x) {
      if ((allowed[j / 64] >> (j % 64) & 1) == 0) row.score[j] = -__builtin_inff();
    }
  }
  __syncthreads();
}

THRESHER_DEVICE void ScoreRow(const HeadRowFilter& f, const HeadLists& lists, FilterRow* row) {
  using namespace cuda_lanes;
  AdjustLogits(f, lists, *row);
  const F16 divisor = Set1(TemperatureOf(f.temperature)), minus_inf = Set1(-__builtin_inff());
  ForEachBlock(row->blocks, [&](std::int64_t b) {
    F16 max = minus_inf;
    for (std::int64_t j = b * kVocabBlock; j < row->End(b); j += 16) {
      const std::int64_t left = row->n - j;
      const F16 s = Add(Div(LoadN(row->score + j, left), divisor), Zero());  // no -0
      StoreN(row->score + j, s, left);
      max = Max(max, Select(FirstN(left), s, minus_inf));
    }
    const float maximum = ReduceMax(max);
    if (simt::Lane() == 0) row->block_max[b] = maximum;
  });
  __syncthreads();
  if (threadIdx.x == 0) {
    float greatest = -__builtin_inff();
    for (std::int64_t b = 0; b < row->blocks; ++b) {
      if (row->block_max[b] > greatest) greatest = row->block_max[b];
    }
    row->shared->greatest = greatest;
  }
  __syncthreads();
  row->greatest = row->shared->greatest;
  // No score but -inf is below it.
  row->threshold = FromOrder(OrderOf(-__builtin_inff()) + 1);
}

// step(j, ids from j on) for every 16 ids of the blocks that reach the threshold.
template <class Step>
THRESHER_DEVICE void ForEachLive(const FilterRow& row, const Step& step) {
  ForEachBlock(row.blocks, [&](std::int64_t b) {
    if (row.Skips(b, row.threshold)) return;
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) step(j, row.n - j);
  });
  __syncthreads();
}

// Masses; ids below the threshold get 0.
THRESHER_DEVICE void WeighRow(const FilterRow& row) {
  using namespace cuda_lanes;
  ForEachLive(row, [&](std::int64_t j, std::int64_t left) {
    const F16 s = LoadN(row.score + j, left), m = ExpV(Sub(s, Set1(row.greatest)));
    StoreN(row.mass + j, Select(Lt(s, Set1(row.threshold)), Zero(), m), left);
  });
}

// Sets the masses of what the threshold or min-p drops to 0.
THRESHER_DEVICE void DropIds(float min_p, const FilterRow& row) {
  using namespace cuda_lanes;
  ForEachLive(row, [&](std::int64_t j, std::int64_t left) {
    F16 m = LoadN(row.mass + j, left);
    m = Select(Lt(m, Set1(min_p)), Zero(), m);
    m = Select(Lt(LoadN(row.score + j, left), Set1(row.threshold)), Zero(), m);
    StoreN(row.mass + j, m, left);
  });
}

THRESHER_DEVICE void ApplyFilters(const HeadRowFilter& f, FilterRow* row) {
  if (f.top_k > 0) RaiseThreshold(false, static_cast<double>(f.top_k), row);
  WeighRow(*row);
  if (f.top_p < 1.0f) {
    const double total = SumAbove(*row, true, row->threshold).mass;
    RaiseThreshold(true, static_cast<double>(f.top_p) * total, row);
  }
  DropIds(f.min_p, *row);
}

// Keeps the first id of the greatest score alone.
THRESHER_DEVICE void KeepGreatest(FilterRow* row) {
  row->threshold = row->greatest;
  std::int64_t first = row->n;
  for (std::int64_t j = threadIdx.x; j < row->n && first == row->n; j += blockDim.x) {
    if (row->score[j] == row->greatest) first = j;
  }
  first = BlockMin(first, row->shared->reduce);
  ForEachLive(*row, [&](std::int64_t j, std::int64_t left) {
    cuda_lanes::StoreN(row->mass + j, {j + simt::Lane() == first ? 1.0f : 0.0f}, left);
  });
}

}  // namespace thresher::kernels::cuda
