#pragma once

// The head: blocks of rows x blocks of vocabulary. HeadScan is the one place where the softmax over
// the vocabulary is computed, for log-probabilities and for sampling alike.
#include "kernels/cpu/gemm.inl"
#include "kernels/cpu/head.h"
#include "kernels/cpu/math.inl"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

inline constexpr std::int64_t kHeadRows = 48;  // a multiple of every kGemmRows; logits 48 KiB

// Online softmax of one row: with m the maximum, sum of exp(z - m), and of exp(z - m) (z - m).
struct HeadRow {
  float maximum;
  float sum;
  float weighted;
  float target;  // z of the target
};

// One row of one block.
struct BlockMass {
  float maximum;
  float sum;
};

struct HeadWeights {
  std::int64_t d;
  std::int64_t valid_vocab;
  PackedMatrix packed;
};

THRESHER_INLINE std::int64_t MinOf(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
THRESHER_INLINE float TemperatureOf(float t) { return t == 0.0f ? 1.0f : t; }
THRESHER_INLINE float LogSumExp(const HeadRow& row) { return row.maximum + LogScalar(row.sum); }

// z [rows, kVocabBlock] = logits / temperature of the block that begins at id v0; returns its ids.
static std::int64_t BlockZ(const HeadWeights& w, std::int64_t rows, const float* hidden,
                           std::int64_t ldh, const float* temperature, std::int64_t v0, float* z) {
  const std::int64_t n = MinOf(kVocabBlock, w.valid_vocab - v0);
  GemmPacked(rows, n, w.d, hidden, ldh, PackedFrom(w.packed, w.d, v0), nullptr, z, kVocabBlock);
  for (std::int64_t r = 0; r < rows; ++r) {
    const F16 divisor = Set1(TemperatureOf(temperature[r]));
    float* row = z + r * kVocabBlock;
    for (std::int64_t j = 0; j < n; j += 16)
      StoreN(row + j, Div(LoadN(row + j, n - j), divisor), n - j);
  }
  return n;
}

// Maximum, sum and weighted sum of n values z.
static HeadRow BlockSoftmax(std::int64_t n, const float* z) {
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

static void FoldBlock(bool first, const HeadRow& block, HeadRow* row) {
  if (first) {
    row->maximum = block.maximum;
    row->sum = block.sum;
    row->weighted = block.weighted;
    return;
  }
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

// The softmax of `rows` (at most kHeadRows) rows. targets or nullptr. mass: [rows, blocks] or
// nullptr. z: scratch [kHeadRows, kVocabBlock]; holds the last block's z on return.
static void HeadScan(const HeadWeights& w, std::int64_t rows, const float* hidden, std::int64_t ldh,
                     const float* temperature, const std::int32_t* targets, float* z,
                     BlockMass* mass, HeadRow* state) {
  const std::int64_t blocks = (w.valid_vocab + kVocabBlock - 1) / kVocabBlock;
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t v0 = b * kVocabBlock;
    const std::int64_t n = BlockZ(w, rows, hidden, ldh, temperature, v0, z);
    for (std::int64_t r = 0; r < rows; ++r) {
      const HeadRow block = BlockSoftmax(n, z + r * kVocabBlock);
      FoldBlock(b == 0, block, &state[r]);
      if (mass != nullptr) mass[r * blocks + b] = {block.maximum, block.sum};
      if (targets != nullptr && targets[r] >= v0 && targets[r] < v0 + n) {
        state[r].target = z[r * kVocabBlock + targets[r] - v0];
      }
    }
  }
}

static void ScanLogProb(std::int64_t t, std::int64_t d, std::int64_t valid_vocab,
                        const float* hidden, std::int64_t ldh, PackedMatrix packed,
                        const float* temperature, const std::int32_t* targets, float* logprob,
                        float* lse, float* entropy) {
  const HeadWeights w{d, valid_vocab, packed};
  float* z = Scratch(ScratchSlot::kLogits, kHeadRows * kVocabBlock);
  HeadRow state[kHeadRows];
  for (std::int64_t t0 = 0; t0 < t; t0 += kHeadRows) {
    const std::int64_t rows = MinOf(kHeadRows, t - t0);
    HeadScan(w, rows, hidden + t0 * ldh, ldh, temperature + t0, targets + t0, z, nullptr, state);
    for (std::int64_t r = 0; r < rows; ++r) {
      const float total = LogSumExp(state[r]);
      logprob[t0 + r] = state[r].target - total;
      if (lse != nullptr) lse[t0 + r] = total;
      if (entropy != nullptr) {
        entropy[t0 + r] = LogScalar(state[r].sum) - state[r].weighted / state[r].sum;
      }
    }
  }
}

// A block and how far into its mass (0..1) the draw lies.
struct BlockChoice {
  std::int64_t block;
  double fraction;
};

static BlockChoice ChooseBlock(std::int64_t blocks, const BlockMass* mass, float maximum,
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

// The id within a block of n values z whose cumulated mass first exceeds fraction x the block's.
static std::int64_t ChooseInBlock(std::int64_t n, const float* z, float maximum, double fraction) {
  alignas(64) float mass[kVocabBlock];
  double total = 0;
  for (std::int64_t j = 0; j < n; j += 16) {
    StoreN(mass + j, ExpV(Sub(LoadN(z + j, n - j), Set1(maximum))), n - j);
  }
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

// The first block that holds the row's maximum.
static std::int64_t GreedyBlock(std::int64_t blocks, const BlockMass* mass, float maximum) {
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

static void ScanSample(std::int64_t t, std::int64_t d, std::int64_t valid_vocab,
                       const float* hidden, std::int64_t ldh, PackedMatrix packed,
                       const float* temperature, const double* uniform, std::int32_t* token,
                       float* logprob) {
  const HeadWeights w{d, valid_vocab, packed};
  const std::int64_t blocks = (valid_vocab + kVocabBlock - 1) / kVocabBlock;
  float* z = Scratch(ScratchSlot::kLogits, kHeadRows * kVocabBlock);
  BlockMass* mass =
      reinterpret_cast<BlockMass*>(Scratch(ScratchSlot::kBlockMass, 2 * kHeadRows * blocks));
  HeadRow state[kHeadRows];
  for (std::int64_t t0 = 0; t0 < t; t0 += kHeadRows) {
    const std::int64_t rows = MinOf(kHeadRows, t - t0);
    HeadScan(w, rows, hidden + t0 * ldh, ldh, temperature + t0, nullptr, z, mass, state);
    for (std::int64_t r = 0; r < rows; ++r) {
      const bool greedy = temperature[t0 + r] == 0.0f;
      const BlockMass* row_mass = mass + r * blocks;
      const BlockChoice choice =
          greedy ? BlockChoice{GreedyBlock(blocks, row_mass, state[r].maximum), 0.0}
                 : ChooseBlock(blocks, row_mass, state[r].maximum, uniform[t0 + r]);
      const std::int64_t v0 = choice.block * kVocabBlock;
      float* row_z = z + r * kVocabBlock;  // still there if there is one block; else once more
      const std::int64_t n =
          blocks == 1 ? valid_vocab
                      : BlockZ(w, 1, hidden + (t0 + r) * ldh, ldh, temperature + t0 + r, v0, row_z);
      const std::int64_t id =
          greedy ? FirstEqual(n, row_z, state[r].maximum)
                 : ChooseInBlock(n, row_z, row_mass[choice.block].maximum, choice.fraction);
      token[t0 + r] = static_cast<std::int32_t>(v0 + id);
      logprob[t0 + r] = row_z[id] - LogSumExp(state[r]);
    }
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
