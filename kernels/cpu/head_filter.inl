#pragma once

// Filtered sampling: thresholds on the scores, found by bisection over their bits in passes that
// skip the vocabulary blocks below them.
#include "kernels/cpu/float_order.inl"
#include "kernels/cpu/head.inl"
#include "kernels/cpu/head_filter.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

// One row on its way through the filters. An id is kept as long as its score is at least
// `threshold` and its mass is above 0.
struct FilterRow {
  std::int64_t n;
  float* score;      // [n]; -inf outside the mask
  float* mass;       // [n] in blocks that reach the threshold; undefined in the others
  float* block_max;  // [blocks], of the scores
  float greatest;    // score
  float threshold;

  std::int64_t blocks() const { return HeadBlockCount(n); }
  bool Skips(std::int64_t block, float limit) const { return block_max[block] < limit; }
  std::int64_t End(std::int64_t block) const { return MinOf(n, (block + 1) * kVocabBlock); }
};

// step(j) for the places of the ids that the penalty is for, among n ids from v0 on.
template <typename Step>
THRESHER_INLINE void ForEachSeen(std::int64_t v0, std::int64_t n, const HeadFilter& f,
                                 const Step& step) {
  for (std::int64_t i = 0; i < f.seen_count && f.repetition_penalty != 1.0f; ++i) {
    const std::int64_t j = f.seen[i] - v0;
    if (j >= 0 && j < n) step(j);
  }
}

// Penalty, bias and mask, on the logits of n ids from v0 on.
static void AdjustLogits(std::int64_t v0, std::int64_t n, const HeadFilter& f, float* score) {
  ForEachSeen(v0, n, f, [&](std::int64_t j) {
    const float s = score[j];
    score[j] = s < 0.0f ? s * f.repetition_penalty : s / f.repetition_penalty;
  });
  for (std::int64_t i = 0; i < f.bias_count; ++i) {
    const std::int64_t j = f.bias_ids[i] - v0;
    if (j >= 0 && j < n) score[j] += f.bias_values[i];
  }
  for (std::int64_t j = 0; f.allowed != nullptr && j < n; ++j) {
    const std::int64_t id = v0 + j;
    if ((f.allowed[id / 64] >> (id % 64) & 1) == 0) score[j] = -__builtin_inff();
  }
}

static void ScoreRow(const float* logits, const HeadFilter& f, FilterRow* row) {
  __builtin_memcpy(row->score, logits, static_cast<std::size_t>(row->n) * sizeof(float));
  AdjustLogits(0, row->n, f, row->score);
  const F16 divisor = Set1(TemperatureOf(f.temperature)), minus_inf = Set1(-__builtin_inff());
  row->greatest = -__builtin_inff();
  for (std::int64_t b = 0; b < row->blocks(); ++b) {
    F16 max = minus_inf;
    for (std::int64_t j = b * kVocabBlock; j < row->End(b); j += 16) {
      const std::int64_t left = row->n - j;
      const F16 s = Add(Div(LoadN(row->score + j, left), divisor), Zero());  // no -0
      StoreN(row->score + j, s, left);
      max = Max(max, Select(FirstN(left), s, minus_inf));
    }
    row->block_max[b] = ReduceMax(max);
    if (row->block_max[b] > row->greatest) row->greatest = row->block_max[b];
  }
  // No score but -inf is below it.
  row->threshold = FromOrder(OrderOf(-__builtin_inff()) + 1);
}

// Masses, in blocks that reach the threshold. Ids below it get 0.
static void WeighRow(FilterRow* row) {
  for (std::int64_t b = 0; b < row->blocks(); ++b) {
    if (row->Skips(b, row->threshold)) continue;
    for (std::int64_t j = b * kVocabBlock; j < row->End(b); j += 16) {
      const std::int64_t left = row->n - j;
      const F16 s = LoadN(row->score + j, left);
      const F16 m = ExpV(Sub(s, Set1(row->greatest)));
      StoreN(row->mass + j, Select(Lt(s, Set1(row->threshold)), Zero(), m), left);
    }
  }
}

// Sets the masses of what the threshold or min-p drops to 0.
static void DropIds(const HeadFilter& f, FilterRow* row) {
  for (std::int64_t b = 0; b < row->blocks(); ++b) {
    if (row->Skips(b, row->threshold)) continue;
    for (std::int64_t j = b * kVocabBlock; j < row->End(b); j += 16) {
      const std::int64_t left = row->n - j;
      F16 m = LoadN(row->mass + j, left);
      m = Select(Lt(m, Set1(f.min_p)), Zero(), m);
      m = Select(Lt(LoadN(row->score + j, left), Set1(row->threshold)), Zero(), m);
      StoreN(row->mass + j, m, left);
    }
  }
}

// What stands at or above a limit.
struct Above {
  double count;
  double mass;
};

static Above SumAbove(const FilterRow& row, bool masses, float limit) {
  Above above{0, 0};
  for (std::int64_t b = 0; b < row.blocks(); ++b) {
    if (row.Skips(b, limit)) continue;
    F16 count = Zero(), mass = Zero();
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
      const std::int64_t left = row.n - j;
      const M16 below = Lt(LoadN(row.score + j, left), Set1(limit));
      count = Add(count, Select(FirstN(left), Select(below, Zero(), Set1(1.0f)), Zero()));
      if (masses) mass = Add(mass, Select(below, Zero(), LoadN(row.mass + j, left)));
    }
    above.count += double(ReduceAdd(count));
    above.mass += double(ReduceAdd(mass));
  }
  return above;
}

// Raises the threshold to the greatest limit at or above which there are `wanted` ids, or that much
// mass; leaves it if there is less. Both sums fall, rounding included, as the limit rises. The
// bisection ends when one id or several equal ones are left between its ends; it tries first what
// is seldom too much to give up.
static void RaiseThreshold(bool masses, double wanted, FilterRow* row) {
  const auto enough = [&](const Above& at) { return (masses ? at.mass : at.count) >= wanted; };
  float low = row->threshold, high = FromOrder(OrderOf(row->greatest) + 1);
  Above at_low = SumAbove(*row, masses, low), at_high{0, 0};
  if (!enough(at_low)) return;
  float middle = row->greatest - 16.0f;
  if (!(middle > low)) middle = Between(low, high);
  for (; middle != low && at_low.count - at_high.count > 1; middle = Between(low, high)) {
    const Above at = SumAbove(*row, masses, middle);
    (enough(at) ? low : high) = middle;
    (enough(at) ? at_low : at_high) = at;
  }
  row->threshold = low;
}

static void ApplyFilters(const HeadFilter& f, FilterRow* row) {
  if (f.top_k > 0) RaiseThreshold(false, double(f.top_k), row);
  WeighRow(row);
  if (f.top_p < 1.0f) {
    const double total = SumAbove(*row, true, row->threshold).mass;
    RaiseThreshold(true, double(f.top_p) * total, row);
  }
  DropIds(f, row);
}

// Keeps the first id of the greatest score alone.
static void KeepGreatest(FilterRow* row) {
  const std::int64_t id = FirstEqual(row->n, row->score, row->greatest);
  row->threshold = row->greatest;
  for (std::int64_t b = 0; b < row->blocks(); ++b) {
    if (row->Skips(b, row->threshold)) continue;
    for (std::int64_t j = b * kVocabBlock; j < row->End(b); ++j) row->mass[j] = 0.0f;
  }
  row->mass[id] = 1.0f;
}

static double BlockKeptMass(const FilterRow& row, std::int64_t b) {
  if (row.Skips(b, row.threshold)) return 0.0;
  F16 sum = Zero();
  for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
    sum = Add(sum, LoadN(row.mass + j, row.n - j));
  }
  return double(ReduceAdd(sum));
}

static std::int64_t ChooseKeptId(const FilterRow& row, double uniform) {
  double total = 0, before = 0, fraction = 1.0;
  std::int64_t block = 0;
  for (std::int64_t b = 0; b < row.blocks(); ++b) total += BlockKeptMass(row, b);
  const double threshold = uniform * total;
  for (std::int64_t b = 0; b < row.blocks(); ++b) {
    const double mass = BlockKeptMass(row, b);
    if (mass > 0) block = b;  // rounding may leave the threshold at the total: the last mass then
    if (before + mass > threshold) {
      fraction = (threshold - before) / mass;
      break;
    }
    before += mass;
  }
  return block * kVocabBlock +
         ChooseMass(row.End(block) - block * kVocabBlock, row.mass + block * kVocabBlock, fraction);
}

// log of the sum over kept ids of exp(z - lse), relative to the greatest kept z: block sums over 16
// virtual lanes and the tree, blocks ascending in double.
static float KeptMassLogProb(const FilterRow& row, const float* logits, float temperature,
                             float lse) {
  const F16 divisor = Set1(TemperatureOf(temperature)), minus_inf = Set1(-__builtin_inff());
  F16 max = minus_inf;
  for (std::int64_t b = 0; b < row.blocks(); ++b) {
    if (row.Skips(b, row.threshold)) continue;
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
      const M16 kept = Lt(Zero(), LoadN(row.mass + j, row.n - j));
      max = Max(max, Select(kept, Div(LoadN(logits + j, row.n - j), divisor), minus_inf));
    }
  }
  const float maximum = ReduceMax(max);
  double total = 0;
  for (std::int64_t b = 0; b < row.blocks(); ++b) {
    if (row.Skips(b, row.threshold)) continue;
    F16 sum = Zero();
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
      const M16 kept = Lt(Zero(), LoadN(row.mass + j, row.n - j));
      const F16 z = Div(LoadN(logits + j, row.n - j), divisor);
      sum = Add(sum, Select(kept, ExpV(Sub(z, Set1(maximum))), Zero()));
    }
    total += double(ReduceAdd(sum));
  }
  const float kept = (maximum - lse) + LogScalar(float(total));
  return kept < 0.0f ? kept : 0.0f;
}

// lse of the kept scores.
static float KeptScoreLse(const FilterRow& row) {
  double total = 0;
  for (std::int64_t b = 0; b < row.blocks(); ++b) total += BlockKeptMass(row, b);
  return row.greatest + LogScalar(float(total));
}

// Whether scores are other than the logits over the temperature.
THRESHER_INLINE bool MovesMass(const HeadFilter& f) {
  return f.repetition_penalty != 1.0f || f.bias_count > 0;
}

static void StoreKept(const FilterRow& row, std::uint64_t* kept) {
  for (std::int64_t word = 0; word < (row.n + 63) / 64; ++word) kept[word] = 0;
  for (std::int64_t b = 0; b < row.blocks(); ++b) {
    if (row.Skips(b, row.threshold)) continue;
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); ++j) {
      kept[j / 64] |= std::uint64_t{row.mass[j] > 0.0f} << (j % 64);
    }
  }
}

static FilterRow ScoredRow(std::int64_t n, const float* logits, const HeadFilter& f) {
  const auto size = static_cast<std::size_t>(n);
  FilterRow row{n,
                Scratch(ScratchSlot::kScores, size),
                Scratch(ScratchSlot::kMasses, size),
                Scratch(ScratchSlot::kBlockScores, static_cast<std::size_t>(HeadBlockCount(n))),
                0,
                0};
  ScoreRow(logits, f, &row);
  return row;
}

static HeadDraw SampleFiltered(std::int64_t n, const float* logits, const HeadBlock* blocks,
                               const HeadFilter& f, double uniform, std::uint64_t* kept) {
  const float lse = LogSumExp(FoldRow(HeadBlockCount(n), blocks));
  FilterRow row = ScoredRow(n, logits, f);
  HeadDraw draw;
  draw.logprob = draw.kept_mass_logprob = __builtin_nanf("");
  if (!IsFinite(lse) || !IsFinite(row.greatest)) return draw;
  if (f.temperature == 0.0f) {
    KeepGreatest(&row);
  } else {
    ApplyFilters(f, &row);
  }
  draw.token = static_cast<std::int32_t>(ChooseKeptId(row, uniform));
  draw.logprob = logits[draw.token] / TemperatureOf(f.temperature) - lse;
  draw.kept_mass_logprob = MovesMass(f)
                               ? draw.logprob - (row.score[draw.token] - KeptScoreLse(row))
                               : KeptMassLogProb(row, logits, f.temperature, lse);
  if (kept != nullptr) StoreKept(row, kept);
  return draw;
}

// The least score of a kept id.
static float LeastKept(const FilterRow& row) {
  F16 least = Set1(__builtin_inff());
  for (std::int64_t b = 0; b < row.blocks(); ++b) {
    if (row.Skips(b, row.threshold)) continue;
    for (std::int64_t j = b * kVocabBlock; j < row.End(b); j += 16) {
      const M16 kept = Lt(Zero(), LoadN(row.mass + j, row.n - j));
      least = Min(least, Select(kept, LoadN(row.score + j, row.n - j), Set1(__builtin_inff())));
    }
  }
  return -ReduceMax(Sub(Zero(), least));
}

// log(exp(a) + exp(b)), both finite.
static float LogAdd(float a, float b) {
  const float greater = a > b ? a : b, lesser = a > b ? b : a;
  return greater + LogScalar(1.0f + ExpScalar(lesser - greater));
}

static HeadSupport FindSupport(std::int64_t n, const float* logits, const HeadBlock* blocks,
                               const HeadFilter& f, std::int32_t target, float logprob) {
  const float full = LogSumExp(FoldRow(HeadBlockCount(n), blocks));
  FilterRow row = ScoredRow(n, logits, f);
  HeadSupport support;
  support.least = __builtin_inff();
  support.kept_mass_logprob = support.lse = __builtin_nanf("");
  if (!IsFinite(full) || !IsFinite(row.greatest)) return support;
  ApplyFilters(f, &row);
  support.least = LeastKept(row);
  support.holds_target =
      !row.Skips(target / kVocabBlock, row.threshold) && row.mass[target] > 0.0f;
  if (MovesMass(f)) {
    support.lse = KeptScoreLse(row);
    if (!support.holds_target) support.lse = LogAdd(support.lse, row.score[target]);
    support.kept_mass_logprob = logprob - (row.score[target] - support.lse);
  } else {
    float kept = KeptMassLogProb(row, logits, f.temperature, full);
    if (!support.holds_target) kept = LogAdd(kept, logprob);
    support.kept_mass_logprob = kept;
    support.lse = full + kept;
  }
  return support;
}

static void TopLogProbs(std::int64_t vocab, const float* logits, const HeadBlock* blocks,
                        float temperature, std::int64_t n, std::int32_t* ids, float* logprobs) {
  const float lse = LogSumExp(FoldRow(HeadBlockCount(vocab), blocks));
  const float divisor = TemperatureOf(temperature);
  alignas(64) float z[kVocabBlock];
  std::int64_t found = 0;  // ids[0, found) by descending z (in logprobs), ascending id on ties
  for (std::int64_t v0 = 0; v0 < vocab; v0 += kVocabBlock) {
    const std::int64_t here = MinOf(kVocabBlock, vocab - v0);
    if (found == n && !(blocks[v0 / kVocabBlock].maximum > logprobs[n - 1])) continue;
    Divide(here, logits + v0, divisor, z);
    for (std::int64_t j = 0; j < here; ++j) {
      if (found == n && !(z[j] > logprobs[n - 1])) continue;
      std::int64_t at = found < n ? found++ : n - 1;
      for (; at > 0 && z[j] > logprobs[at - 1]; --at) {
        logprobs[at] = logprobs[at - 1];
        ids[at] = ids[at - 1];
      }
      logprobs[at] = z[j];
      ids[at] = static_cast<std::int32_t>(v0 + j);
    }
  }
  for (std::int64_t i = 0; i < n; ++i) logprobs[i] -= lse;
}

}  // namespace thresher::kernels::THRESHER_VARIANT
