#pragma once

// The head: blocks of rows x blocks of vocabulary. ScanBlocks is the one place where the softmax
// over the vocabulary is computed, for log-probabilities and for sampling alike.
#include "kernels/cpu/gemm.inl"
#include "kernels/cpu/head.h"
#include "kernels/cpu/math.inl"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

inline constexpr std::int64_t kHeadRows = 48;  // a multiple of every kGemmRows; logits 48 KiB

THRESHER_INLINE std::int64_t MinOf(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
THRESHER_INLINE float TemperatureOf(float t) { return t == 0.0f ? 1.0f : t; }
THRESHER_INLINE float LogSumExp(const HeadBlock& row) { return row.maximum + LogScalar(row.sum); }

// y = x / divisor for n values; may be in place.
static void Divide(std::int64_t n, const float* x, float divisor, float* y) {
  if (divisor == 1.0f) {
    if (x != y) __builtin_memcpy(y, x, static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  for (std::int64_t j = 0; j < n; j += 16) {
    StoreN(y + j, Div(LoadN(x + j, n - j), Set1(divisor)), n - j);
  }
}

// Plain logits [rows, kVocabBlock] of the block that begins at id v0; returns how many ids it has.
static std::int64_t BlockLogits(const HeadRows& a, std::int64_t t0, std::int64_t rows,
                                std::int64_t v0, float* logits) {
  const std::int64_t n = MinOf(kVocabBlock, a.valid_vocab - v0);
  GemmPacked(rows, n, a.d, a.hidden + t0 * a.ldh, a.ldh, PackedFrom(a.head, a.d, v0), nullptr,
             logits, kVocabBlock);
  return n;
}

// The same divided by the rows' temperatures.
static std::int64_t BlockZ(const HeadRows& a, std::int64_t t0, std::int64_t rows, std::int64_t v0,
                           float* z) {
  const std::int64_t n = BlockLogits(a, t0, rows, v0, z);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = z + r * kVocabBlock;
    Divide(n, row, TemperatureOf(a.temperature[t0 + r]), row);
  }
  return n;
}

// Maximum, sum and weighted sum of n values z.
static HeadBlock BlockSoftmax(std::int64_t n, const float* z) {
  const F16 minus_inf = Set1(-__builtin_inff());
  F16 max = minus_inf;
  for (std::int64_t j = 0; j < n; j += 16) {
    max = Max(max, Select(FirstN(n - j), LoadN(z + j, n - j), minus_inf));
  }
  const float maximum = ReduceMax(max);
  F16 sum = Zero(), weighted = Zero();
  for (std::int64_t j = 0; j < n; j += 16) {
    const F16 shifted = Sub(LoadN(z + j, n - j), Set1(maximum));
    const F16 mass = ExpV(shifted);
    const M16 mask = FirstN(n - j);
    sum = Add(sum, Select(mask, mass, Zero()));
    weighted = Add(weighted, Select(mask, Mul(mass, shifted), Zero()));
  }
  return {maximum, ReduceAdd(sum), ReduceAdd(weighted), 0.0f};
}

static void FoldBlock(const HeadBlock& block, HeadBlock* row) {
  const float joint = row->maximum > block.maximum ? row->maximum : block.maximum;
  const float old_shift = row->maximum - joint;
  const float new_shift = block.maximum - joint;
  const float old_scale = ExpScalar(old_shift);
  const float new_scale = ExpScalar(new_shift);
  row->weighted = old_scale * (row->weighted + row->sum * old_shift) +
                  new_scale * (block.weighted + block.sum * new_shift);
  row->sum = row->sum * old_scale + block.sum * new_scale;
  row->maximum = joint;
}

// The online softmax of a row: its blocks folded ascending.
static HeadBlock FoldRow(std::int64_t blocks, const HeadBlock* block) {
  HeadBlock row = block[0];
  for (std::int64_t b = 1; b < blocks; ++b) FoldBlock(block[b], &row);
  return row;
}

static void ScanBlocks(const HeadRows& a, const std::int32_t* targets, std::int64_t block_begin,
                       std::int64_t block_end, HeadBlock* blocks, float* const* logits) {
  const std::int64_t count = HeadBlockCount(a.valid_vocab);
  float* z = Scratch(ScratchSlot::kLogits, kHeadRows * kVocabBlock);
  for (std::int64_t b = block_begin; b < block_end; ++b) {
    const std::int64_t v0 = b * kVocabBlock;
    for (std::int64_t t0 = 0; t0 < a.t; t0 += kHeadRows) {
      const std::int64_t rows = MinOf(kHeadRows, a.t - t0);
      const std::int64_t n = BlockLogits(a, t0, rows, v0, z);
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t t = t0 + r;
        float* row = z + r * kVocabBlock;
        if (logits != nullptr && logits[t] != nullptr) {
          __builtin_memcpy(logits[t] + v0, row, static_cast<std::size_t>(n) * sizeof(float));
        }
        Divide(n, row, TemperatureOf(a.temperature[t]), row);
        HeadBlock& block = blocks[t * count + b];
        block = BlockSoftmax(n, row);
        if (targets != nullptr && targets[t] >= v0 && targets[t] < v0 + n) {
          block.target = row[targets[t] - v0];
        }
      }
    }
  }
}

static void FoldTargets(const HeadRows& a, const std::int32_t* targets, const HeadBlock* blocks,
                        float* logprob, float* lse, float* entropy) {
  const std::int64_t count = HeadBlockCount(a.valid_vocab);
  for (std::int64_t t = 0; t < a.t; ++t) {
    const HeadBlock* block = blocks + t * count;
    const HeadBlock row = FoldRow(count, block);
    const float total = LogSumExp(row);
    logprob[t] = block[targets[t] / kVocabBlock].target - total;
    if (lse != nullptr) lse[t] = total;
    if (entropy != nullptr) entropy[t] = LogScalar(row.sum) - row.weighted / row.sum;
  }
}

// A block and how far into its mass (0..1) the draw lies.
struct BlockChoice {
  std::int64_t block;
  double fraction;
};

static BlockChoice ChooseBlock(std::int64_t blocks, const HeadBlock* mass, float maximum,
                               double uniform) {
  double total = 0;
  for (std::int64_t b = 0; b < blocks; ++b) {
    total += double(mass[b].sum) * double(ExpScalar(mass[b].maximum - maximum));
  }
  const double threshold = uniform * total;
  double before = 0;
  BlockChoice last{0, 1.0};  // rounding may leave the threshold at the total: the last mass then
  for (std::int64_t b = 0; b < blocks; ++b) {
    const double m = double(mass[b].sum) * double(ExpScalar(mass[b].maximum - maximum));
    if (before + m > threshold) return {b, (threshold - before) / m};
    if (m > 0) last.block = b;
    before += m;
  }
  return last;
}

// The first of n ids whose cumulated mass exceeds fraction x all of it.
static std::int64_t ChooseMass(std::int64_t n, const float* mass, double fraction) {
  double total = 0;
  for (std::int64_t j = 0; j < n; ++j) total += double(mass[j]);
  const double threshold = fraction * total;
  double cumulated = 0;
  std::int64_t last = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    cumulated += double(mass[j]);
    if (cumulated > threshold) return j;
    if (mass[j] > 0) last = j;
  }
  return last;
}

// The same for a block of n values z.
static std::int64_t ChooseInBlock(std::int64_t n, const float* z, float maximum, double fraction) {
  alignas(64) float mass[kVocabBlock];
  for (std::int64_t j = 0; j < n; j += 16) {
    StoreN(mass + j, ExpV(Sub(LoadN(z + j, n - j), Set1(maximum))), n - j);
  }
  return ChooseMass(n, mass, fraction);
}

// The first block that holds the row's maximum.
static std::int64_t GreedyBlock(std::int64_t blocks, const HeadBlock* mass, float maximum) {
  for (std::int64_t b = 0; b < blocks; ++b) {
    if (mass[b].maximum == maximum) return b;
  }
  return 0;
}

static std::int64_t FirstEqual(std::int64_t n, const float* z, float value) {
  for (std::int64_t j = 0; j < n; ++j) {
    if (z[j] == value) return j;
  }
  return 0;
}

static void ChooseTokens(const HeadRows& a, const HeadBlock* blocks, const float* const* logits,
                         const double* uniform, std::int32_t* token, float* logprob) {
  const std::int64_t count = HeadBlockCount(a.valid_vocab);
  alignas(64) float z[kVocabBlock];
  for (std::int64_t t = 0; t < a.t; ++t) {
    const HeadBlock* row_blocks = blocks + t * count;
    const HeadBlock row = FoldRow(count, row_blocks);
    const bool greedy = a.temperature[t] == 0.0f;
    const BlockChoice choice = greedy
                                   ? BlockChoice{GreedyBlock(count, row_blocks, row.maximum), 0.0}
                                   : ChooseBlock(count, row_blocks, row.maximum, uniform[t]);
    const std::int64_t v0 = choice.block * kVocabBlock;
    std::int64_t n = MinOf(kVocabBlock, a.valid_vocab - v0);
    if (logits != nullptr) {
      Divide(n, logits[t] + v0, TemperatureOf(a.temperature[t]), z);
    } else {
      n = BlockZ(a, t, 1, v0, z);
    }
    const std::int64_t id =
        greedy ? FirstEqual(n, z, row.maximum)
               : ChooseInBlock(n, z, row_blocks[choice.block].maximum, choice.fraction);
    token[t] = static_cast<std::int32_t>(v0 + id);
    logprob[t] = z[id] - LogSumExp(row);
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
