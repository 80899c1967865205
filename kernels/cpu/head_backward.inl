#pragma once

#include "kernels/cpu/gemm.inl"
#include "kernels/cpu/head.inl"
#include "kernels/cpu/head_filter.inl"
#include "kernels/cpu/swiglu.inl"
#include "kernels/cpu/vec.h"
#include "kernels/cpu/weight_grad.inl"

namespace thresher::kernels::THRESHER_VARIANT {

// The gradient with respect to one row's logits, from z; see HeadBackwardArgs for the formula.
struct LogitGrad {
  float lse;
  float dlogprob;
  float entropy;
  float dentropy;
  float temperature;
};

// kDivides: the temperature is not 1.
template <bool kDivides = true>
THRESHER_INLINE F16 LogitGradV(const LogitGrad& g, F16 z, F16 is_target) {
  const F16 log_p = Sub(z, Set1(g.lse));
  const F16 p = ExpV(log_p);
  const F16 from_logprob = Mul(Set1(g.dlogprob), Sub(is_target, p));
  const F16 surprise = Mul(p, Add(log_p, Set1(g.entropy)));
  const F16 gradient = Fnma(Set1(g.dentropy), surprise, from_logprob);
  return kDivides ? Div(gradient, Set1(g.temperature)) : gradient;
}

// z of one row becomes its gradient. target: index in the block; outside [0, n) if in another.
static void LogitGradRow(const LogitGrad& g, std::int64_t n, std::int64_t target, float* z) {
  const bool here = target >= 0 && target < n;
  const float at_target = here ? Lane0(LogitGradV(g, Set1(z[target]), Set1(1.0f))) : 0.0f;
  std::int64_t j = 0;
  for (; g.temperature == 1.0f && j + 16 <= n; j += 16) {
    Store(z + j, LogitGradV<false>(g, Load(z + j), Zero()));
  }
  for (; j < n; j += 16) StoreN(z + j, LogitGradV(g, LoadN(z + j, n - j), Zero()), n - j);
  if (here) z[target] = at_target;
}

// The same from the logits of a row whose log-probability is that within its support.
static void SupportGradRow(const HeadBackwardArgs& a, std::int64_t i, std::int64_t v0,
                           std::int64_t n, float* logits) {
  const HeadFilter& f = a.filter[i];
  const HeadSupport& support = a.support[i];
  const LogitGrad g{support.lse, a.dlogprob[i], 0.0f, 0.0f, TemperatureOf(a.temperature[i])};
  const std::int64_t target = a.targets[i] - v0;
  const bool here = target >= 0 && target < n;
  alignas(64) float slope[kVocabBlock];  // of the score, where there is a penalty
  ForEachSeen(v0, n, f, [&](std::int64_t j) {
    slope[j] = logits[j] < 0.0f ? f.repetition_penalty : 1.0f / f.repetition_penalty;
  });
  AdjustLogits(v0, n, f, logits);
  Divide(n, logits, g.temperature, logits);
  const float at_target = here ? Lane0(LogitGradV(g, Set1(logits[target]), Set1(1.0f))) : 0.0f;
  for (std::int64_t j = 0; j < n; j += 16) {
    const F16 score = LoadN(logits + j, n - j);
    const F16 gradient = LogitGradV(g, score, Zero());
    StoreN(logits + j, Select(Lt(score, Set1(support.least)), Zero(), gradient), n - j);
  }
  if (here) logits[target] = at_target;
  ForEachSeen(v0, n, f, [&](std::int64_t j) { logits[j] *= slope[j]; });
}

// dhidden (+)= dlogits of one block times its rows of W, which are fp32 whatever the kernel set.
static void AddHiddenGrad(const HeadBackwardArgs& a, std::int64_t t0, std::int64_t rows,
                          std::int64_t v0, std::int64_t n, const float* dlogits) {
  const GemmWeights w = WeightsFrom(a.packed_head_transposed, a.v, v0);
  GemmFp32(rows, a.d, n, dlogits, kVocabBlock, w, nullptr, a.dhidden + t0 * a.lddh, a.lddh, v0 > 0);
}

// The logits of one block of the vocabulary become their gradient.
static void LogitGrads(const HeadBackwardArgs& a, std::int64_t t0, std::int64_t rows,
                       std::int64_t v0, std::int64_t n, float* z) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t i = t0 + r;
    if (a.support != nullptr) {
      SupportGradRow(a, i, v0, n, z + r * kVocabBlock);
      continue;
    }
    const bool entropy = a.dentropy != nullptr;
    const LogitGrad g{a.lse[i], a.dlogprob[i], entropy ? a.entropy[i] : 0.0f,
                      entropy ? a.dentropy[i] : 0.0f, TemperatureOf(a.temperature[i])};
    LogitGradRow(g, n, a.targets[i] - v0, z + r * kVocabBlock);
  }
}

// The logits of a block, of rows drawn from full distributions divided by their temperatures: those
// that were kept, or computed again where one of the rows has none.
static void LogitsAgain(const HeadBackwardArgs& a, const HeadRows& all, std::int64_t t,
                        std::int64_t rows, std::int64_t v0, std::int64_t n, float* z) {
  const bool plain = a.support != nullptr;
  bool kept = a.logits != nullptr;
  for (std::int64_t r = 0; kept && r < rows; ++r) kept = a.logits[t + r] != nullptr;
  if (!kept) {
    plain ? BlockLogits(all, t, rows, v0, z) : BlockZ(all, t, rows, v0, z);
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const float divisor = plain ? 1.0f : TemperatureOf(a.temperature[t + r]);
    Divide(n, a.logits[t + r] + v0, divisor, z + r * kVocabBlock);
  }
}

// Rows whose gradients of logits, of one block, are there at a time (480 KB): the rows of dhead
// are read and written once for so many.
inline constexpr std::int64_t kHeadGradRows = 480;

// Rows [t0, t0 + count): blocks of the vocabulary ascending, in each rows ascending.
static void HeadBackwardRows(const HeadBackwardArgs& a, const HeadRows& all, std::int64_t t0,
                             std::int64_t count) {
  float* z =
      Scratch(ScratchSlot::kLogits, static_cast<std::size_t>((count + kHeadRows) * kVocabBlock));
  const float* hidden =
      a.dhead != nullptr ? PackedSlabs(count, a.d, a.hidden + t0 * a.ldh, a.ldh) : nullptr;
  for (std::int64_t v0 = 0; v0 < a.valid_vocab; v0 += kVocabBlock) {
    const std::int64_t n = MinOf(kVocabBlock, a.valid_vocab - v0);
    for (std::int64_t r0 = 0; r0 < count; r0 += kHeadRows) {
      const std::int64_t rows = MinOf(kHeadRows, count - r0), t = t0 + r0;
      float* part = z + r0 * kVocabBlock;
      LogitsAgain(a, all, t, rows, v0, n, part);
      LogitGrads(a, t, rows, v0, n, part);
      if (a.dhidden != nullptr) AddHiddenGrad(a, t, rows, v0, n, part);
    }
    if (a.dhead != nullptr) {
      GradOverSlabs(count, n, a.d, z, kVocabBlock, hidden, a.dhead + v0 * a.d, a.d);
    }
  }
}

static void HeadBackward(const HeadBackwardArgs& a) {
  const HeadRows all{a.t, a.d, a.v, a.valid_vocab, a.hidden, a.ldh, a.packed_head, a.temperature};
  for (std::int64_t t0 = 0; t0 < a.t; t0 += kHeadGradRows) {
    HeadBackwardRows(a, all, t0, MinOf(kHeadGradRows, a.t - t0));
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
