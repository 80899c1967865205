#include "kernels/cpu/head.h"

#include "kernels/cpu/gemm.h"
#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using Doubles = std::vector<double>;

struct Problem {
  std::int64_t t, d, v, valid;
  Floats hidden, w, packed, packed_transposed, temperature;
  std::vector<std::int32_t> targets;

  Problem(std::int64_t rows, std::int64_t width, std::int64_t vocab, std::int64_t valid_vocab)
      : t(rows),
        d(width),
        v(vocab),
        valid(valid_vocab),
        hidden(Random(t * d, 1, 2.0f)),
        w(Random(v * d, 2)),
        packed(PackedFloats(v, d)),
        packed_transposed(PackedFloats(d, v)) {
    PackF32(v, d, w.data(), packed.data());
    PackF32Transposed(v, d, w.data(), packed_transposed.data());
    for (std::int64_t i = 0; i < t; ++i) {
      temperature.push_back(i % 3 == 0 ? 1.0f : 0.5f + 0.25f * static_cast<float>(i % 5));
      targets.push_back(static_cast<std::int32_t>((i * 37 + 5) % valid));
    }
  }

  // logprob, lse, entropy one after the other.
  Floats LogProb() const {
    Floats logprob(t), lse(t), entropy(t);
    HeadLogProb(t, d, v, valid, hidden.data(), d, {packed.data()}, temperature.data(),
                targets.data(), logprob.data(), lse.data(), entropy.data());
    Append(&logprob, lse);
    Append(&logprob, entropy);
    return logprob;
  }

  Doubles Probabilities(const Doubles& h, const Doubles& weights, std::int64_t row) const {
    Doubles p(valid);
    double sum = 0;
    for (std::int64_t j = 0; j < valid; ++j) {
      double z = 0;
      for (std::int64_t c = 0; c < d; ++c) z += h[row * d + c] * weights[j * d + c];
      sum += p[j] = std::exp(z / (temperature[row] == 0 ? 1.0f : temperature[row]));
    }
    for (double& value : p) value /= sum;
    return p;
  }

  // sum of a . logprob + b . entropy, for finite differences.
  double Loss(const Doubles& h, const Doubles& weights, const Floats& a, const Floats& b) const {
    double loss = 0;
    for (std::int64_t i = 0; i < t; ++i) {
      const Doubles p = Probabilities(h, weights, i);
      loss += a[i] * std::log(p[targets[i]]);
      for (double value : p) loss -= b[i] * value * std::log(value);
    }
    return loss;
  }
};

Doubles Widen(const Floats& x) { return {x.begin(), x.end()}; }

TEST(HeadLogProb, MatchesDouble) {
  for (const Problem& p :
       {Problem(5, 24, 48, 45), Problem(51, 16, 700, 600), Problem(3, 8, 1, 1)}) {
    const Floats got = p.LogProb();
    for (std::int64_t i = 0; i < p.t; ++i) {
      const Doubles q = p.Probabilities(Widen(p.hidden), Widen(p.w), i);
      double entropy = 0;
      for (double value : q) entropy -= value * std::log(value);
      // A logit is off by (D + 2) units of at most 2 D, over a temperature of at least 1/2; a
      // log-probability holds two of them and the logarithm of a sum of V terms.
      const double bound = kUnit * (2 * (p.d + 2) * 4 * p.d + p.valid / 16 + 64);
      ASSERT_NEAR(got[i], std::log(q[p.targets[i]]), bound);
      // Entropy weighs those errors by p log p.
      ASSERT_NEAR(got[2 * p.t + i], entropy, bound * (1 + std::log(double(p.valid))));
    }
  }
}

TEST(HeadLogProb, HasTheSameBitsInAllVariantsAndForAnyBatch) {
  const Problem p(51, 24, 600, 590);
  const Floats whole = p.LogProb();
  ExpectSameBitsInAllVariants([&] { return p.LogProb(); });
  for (std::int64_t i : {0, 7, 47, 48, 50}) {
    float logprob, lse, entropy;
    HeadLogProb(1, p.d, p.v, p.valid, &p.hidden[i * p.d], p.d, {p.packed.data()}, &p.temperature[i],
                &p.targets[i], &logprob, &lse, &entropy);
    EXPECT_TRUE(SameBits({logprob, lse, entropy}, {whole[i], whole[p.t + i], whole[2 * p.t + i]}));
  }
}

TEST(HeadScan, HowBlocksAndRowsAreDividedChangesNoBit) {
  const Problem p(53, 24, 1300, 1290);  // six blocks, the last one cut
  const std::int64_t blocks = HeadBlockCount(p.valid);
  ASSERT_EQ(blocks, 6);
  const Floats whole = p.LogProb();
  Doubles uniform;
  for (std::int64_t i = 0; i < p.t; ++i) uniform.push_back((i + 0.5) / p.t);
  std::vector<std::int32_t> drawn(p.t);
  Floats drawn_logprob(p.t);
  HeadSample(p.t, p.d, p.v, p.valid, p.hidden.data(), p.d, {p.packed.data()}, p.temperature.data(),
             uniform.data(), drawn.data(), drawn_logprob.data());
  for (std::int64_t block_step : {1, 2, 5}) {
    for (std::int64_t row_step : {1, 20, 53}) {
      std::vector<HeadBlock> scan(p.t * blocks);
      Floats logits(p.t * p.valid), logprob(p.t), lse(p.t), entropy(p.t), chosen_logprob(p.t);
      std::vector<std::int32_t> token(p.t);
      for (std::int64_t t0 = 0; t0 < p.t; t0 += row_step) {
        const HeadRows rows{std::min(row_step, p.t - t0),
                            p.d,
                            p.v,
                            p.valid,
                            &p.hidden[t0 * p.d],
                            p.d,
                            {p.packed.data()},
                            &p.temperature[t0]};
        std::vector<float*> keep(rows.t);
        for (std::int64_t r = 0; r < rows.t; ++r) keep[r] = &logits[(t0 + r) * p.valid];
        for (std::int64_t b = blocks; b > 0; b -= std::min(b, block_step)) {  // last block first
          HeadScan(rows, &p.targets[t0], std::max<std::int64_t>(0, b - block_step), b,
                   &scan[t0 * blocks], keep.data());
        }
        HeadFold(rows, &p.targets[t0], &scan[t0 * blocks], &logprob[t0], &lse[t0], &entropy[t0]);
        const bool kept = row_step == 20;  // with the kept logits and without
        HeadChoose(rows, &scan[t0 * blocks], kept ? keep.data() : nullptr, &uniform[t0], &token[t0],
                   &chosen_logprob[t0]);
      }
      Append(&logprob, lse);
      Append(&logprob, entropy);
      EXPECT_TRUE(SameBits(logprob, whole)) << block_step << ' ' << row_step;
      EXPECT_EQ(token, drawn);
      EXPECT_TRUE(SameBits(chosen_logprob, drawn_logprob));
      Floats plain(p.t * p.valid);
      HeadLogits(p.t, p.d, p.valid, p.hidden.data(), p.d, {p.packed.data()}, plain.data(), p.valid);
      EXPECT_TRUE(SameBits(logits, plain));
    }
  }
}

TEST(HeadLogProb, IdsBeyondTheValidOnesHaveNoMassWhateverTheirWeights) {
  Problem p(4, 16, 300, 270);
  const Floats expected = p.LogProb();
  for (float poison : {kNaN, kInf, 100.0f}) {
    std::fill(p.w.begin() + 270 * 16, p.w.end(), poison);
    PackF32(p.v, p.d, p.w.data(), p.packed.data());
    EXPECT_TRUE(SameBits(p.LogProb(), expected));
  }
}

TEST(HeadSample, ItsLogProbIsHeadLogProbsBitForBit) {
  for (Problem& p : std::vector<Problem>{Problem(50, 24, 48, 45), Problem(61, 16, 900, 850)}) {
    for (std::int64_t i = 0; i < p.t; i += 4) p.temperature[i] = 0.0f;
    Doubles uniform;
    for (std::int64_t i = 0; i < p.t; ++i)
      uniform.push_back((i * 0.61803398875) - std::floor(i * 0.61803398875));
    ExpectSameBitsInAllVariants([&] {
      std::vector<std::int32_t> tokens(p.t);
      Floats logprob(p.t);
      HeadSample(p.t, p.d, p.v, p.valid, p.hidden.data(), p.d, {p.packed.data()},
                 p.temperature.data(), uniform.data(), tokens.data(), logprob.data());
      p.targets = tokens;
      EXPECT_TRUE(SameBits(logprob, Slice(p.LogProb(), 0, p.t)));
      for (std::int64_t i = 0; i < p.t; ++i) {
        std::int32_t token;
        float alone;
        HeadSample(1, p.d, p.v, p.valid, &p.hidden[i * p.d], p.d, {p.packed.data()},
                   &p.temperature[i], &uniform[i], &token, &alone);
        EXPECT_EQ(token, tokens[i]);
        EXPECT_TRUE(SameBits({alone}, {logprob[i]}));
        logprob.push_back(static_cast<float>(token));
      }
      return logprob;
    });
  }
}

TEST(HeadSample, InvertsTheCdfInAscendingId) {
  const Problem p(2, 16, 700, 680);
  for (std::int64_t row = 0; row < p.t; ++row) {
    const Doubles q = p.Probabilities(Widen(p.hidden), Widen(p.w), row);
    double before = 0;
    for (std::int64_t j = 0; j < p.valid; ++j) {
      const double uniform = before + q[j] / 2;  // the middle of id j's interval
      before += q[j];
      if (q[j] < 1e-4) continue;  // far above the float error of the cumulated mass, 1e-6
      std::int32_t token;
      float logprob;
      HeadSample(1, p.d, p.v, p.valid, &p.hidden[row * p.d], p.d, {p.packed.data()},
                 &p.temperature[row], &uniform, &token, &logprob);
      ASSERT_EQ(token, j);
    }
  }
}

TEST(HeadSample, ExtremesOfTheUniformDrawIdsWithMass) {
  // Ids 0 and 299 have no mass at all (their logit is 1000 below the others).
  const std::int64_t v = 300;
  Floats w(v, 0.0f), packed(PackedFloats(v, 1));
  w[0] = w[299] = -1000.0f;
  PackF32(v, 1, w.data(), packed.data());
  const float hidden = 1.0f, temperature = 1.0f;
  const auto draw = [&](double uniform) {
    std::int32_t token;
    float logprob;
    HeadSample(1, 1, v, v, &hidden, 1, {packed.data()}, &temperature, &uniform, &token, &logprob);
    EXPECT_NEAR(logprob, -std::log(298.0), 1e-6);
    return token;
  };
  EXPECT_EQ(draw(0.0), 1);
  EXPECT_EQ(draw(std::nextafter(1.0, 0.0)), 298);
}

TEST(HeadSample, FrequenciesFollowTheDistribution) {
  const Problem p(1, 8, 20, 20);
  const Doubles q = p.Probabilities(Widen(p.hidden), Widen(p.w), 0);
  std::vector<int> count(20);
  const int draws = 20000;
  for (int i = 0; i < draws; ++i) {
    const double uniform = (i + 0.5) / draws;  // an even grid: each count is exact to one
    std::int32_t token;
    float logprob;
    HeadSample(1, p.d, p.v, p.valid, p.hidden.data(), p.d, {p.packed.data()}, p.temperature.data(),
               &uniform, &token, &logprob);
    ++count[token];
  }
  for (int j = 0; j < 20; ++j) EXPECT_NEAR(count[j], q[j] * draws, 1.1) << j;
}

TEST(HeadSample, TemperatureZeroTakesTheLowestOfEqualLogits) {
  for (std::int64_t first : {3, 255, 256, 400}) {
    const std::int64_t v = 600;
    Floats w(v, 0.5f), packed(PackedFloats(v, 1));
    w[first] = w[first + 1] = w[599] = 2.0f;
    PackF32(v, 1, w.data(), packed.data());
    const float hidden = 1.0f, temperature = 0.0f;
    const double uniform = 0.999;
    std::int32_t token;
    float logprob;
    HeadSample(1, 1, v, v, &hidden, 1, {packed.data()}, &temperature, &uniform, &token, &logprob);
    EXPECT_EQ(token, first);
    EXPECT_NEAR(logprob, 2.0 - std::log(3 * std::exp(2.0) + 597 * std::exp(0.5)), 1e-6);
  }
}

struct Gradients {
  Floats dhidden, dhead;
};

Gradients Backward(const Problem& p, const Floats& dlogprob, const float* dentropy,
                   std::int64_t cut, const float* const* logits = nullptr) {
  const Floats forward = p.LogProb();
  Gradients g{Floats(p.t * p.d, kNaN), Floats(p.v * p.d, 0.25f)};
  for (std::int64_t begin : {std::int64_t{0}, cut}) {
    const std::int64_t end = begin == 0 ? cut : p.t;
    HeadBackwardArgs args{.t = end - begin,
                          .d = p.d,
                          .v = p.v,
                          .valid_vocab = p.valid,
                          .hidden = p.hidden.data() + begin * p.d,
                          .ldh = p.d,
                          .packed_head = {p.packed.data()},
                          .packed_head_transposed = {p.packed_transposed.data()},
                          .temperature = p.temperature.data() + begin,
                          .targets = p.targets.data() + begin,
                          .lse = forward.data() + p.t + begin,
                          .dlogprob = dlogprob.data() + begin,
                          .entropy = forward.data() + 2 * p.t + begin,
                          .dentropy = dentropy == nullptr ? nullptr : dentropy + begin,
                          .dhidden = g.dhidden.data() + begin * p.d,
                          .lddh = p.d,
                          .dhead = g.dhead.data(),
                          .logits = logits == nullptr ? nullptr : logits + begin};
    HeadBackward(args);
    if (cut == p.t) break;
  }
  return g;
}

TEST(HeadBackward, MatchesFiniteDifferences) {
  const Problem p(5, 6, 290, 280);
  const Floats dlogprob = Random(p.t, 7), dentropy = Random(p.t, 8);
  const Gradients g = Backward(p, dlogprob, dentropy.data(), p.t);
  const auto slope = [&](Doubles x, std::size_t i, bool of_hidden) {
    const double step = 1e-5;
    const auto loss = [&] {
      return of_hidden ? p.Loss(x, Widen(p.w), dlogprob, dentropy)
                       : p.Loss(Widen(p.hidden), x, dlogprob, dentropy);
    };
    x[i] += step;
    const double above = loss();
    x[i] -= 2 * step;
    return (above - loss()) / (2 * step);
  };
  // Sums of 280 terms near 1 in float; the differences are good to 1e-8.
  for (std::int64_t i = 0; i < p.t * p.d; ++i) {
    ASSERT_NEAR(g.dhidden[i], slope(Widen(p.hidden), i, true), 2e-5);
  }
  for (std::int64_t i = 0; i < p.v * p.d; i += 7) {
    const double exact = i < p.valid * p.d ? slope(Widen(p.w), i, false) : 0.0;
    ASSERT_NEAR(g.dhead[i] - 0.25, exact, 2e-5) << i;  // continued from 0.25
  }
}

TEST(HeadBackward, HasTheSameBitsInAllVariantsAndHoweverTokensAreCut) {
  const Problem p(53, 24, 300, 290);
  const Floats dlogprob = Random(p.t, 7), dentropy = Random(p.t, 8);
  const Gradients whole = Backward(p, dlogprob, dentropy.data(), p.t);
  for (std::int64_t cut : {1, 20, 48, 50}) {
    const Gradients parts = Backward(p, dlogprob, dentropy.data(), cut);
    EXPECT_TRUE(SameBits(parts.dhidden, whole.dhidden)) << cut;
    EXPECT_TRUE(SameBits(parts.dhead, whole.dhead)) << cut;
  }
  for (const float* term : {static_cast<const float*>(nullptr), dentropy.data()}) {
    ExpectSameBitsInAllVariants([&] {
      Gradients g = Backward(p, dlogprob, term, p.t);
      Append(&g.dhidden, g.dhead);
      return g.dhidden;
    });
  }
}

TEST(HeadBackward, LogitsThatWereKeptChangeNoBit) {
  const Problem p(530, 24, 600, 590);
  const Floats dlogprob = Random(p.t, 7), dentropy = Random(p.t, 8);
  Floats logits(p.t * p.valid);
  const auto of = [&](std::int64_t count) {
    HeadLogits(p.t, p.d, p.valid, p.hidden.data(), p.d, {p.packed.data()}, logits.data(), p.valid);
    std::vector<const float*> kept(static_cast<std::size_t>(p.t));
    for (std::int64_t t = 0; t < count; ++t) {
      kept[static_cast<std::size_t>(t)] = logits.data() + t * p.valid;
    }
    Gradients g = Backward(p, dlogprob, dentropy.data(), p.t, kept.data());
    Append(&g.dhidden, g.dhead);
    return g.dhidden;
  };
  Gradients again = Backward(p, dlogprob, dentropy.data(), p.t);
  Append(&again.dhidden, again.dhead);
  for (std::int64_t count : {std::int64_t{1}, std::int64_t{48}, std::int64_t{500}, p.t}) {
    EXPECT_TRUE(SameBits(of(count), again.dhidden)) << count;
  }
  ExpectSameBitsInAllVariants([&] { return of(500); });
  // They are what is read.
  std::ranges::fill(logits, 0.5f);
  const std::vector<const float*> equal(static_cast<std::size_t>(p.t), logits.data());
  const Gradients other = Backward(p, dlogprob, dentropy.data(), p.t, equal.data());
  EXPECT_FALSE(SameBits(other.dhead, Backward(p, dlogprob, dentropy.data(), p.t).dhead));
}

TEST(HeadBackward, ARowWithoutCoefficientsAddsExactlyNothing) {
  const Problem p(50, 24, 300, 290);
  Floats dlogprob = Random(p.t, 7), dentropy = Random(p.t, 8);
  const Floats zeros(p.t, 0.0f);
  const Gradients none = Backward(p, zeros, zeros.data(), p.t);
  EXPECT_TRUE(SameBits(none.dhidden, Floats(p.t * p.d, 0.0f)));
  EXPECT_TRUE(SameBits(none.dhead, Floats(p.v * p.d, 0.25f)));
  // Rows from 30 on.
  const Gradients all = Backward(p, dlogprob, dentropy.data(), 30);
  std::fill(dlogprob.begin() + 30, dlogprob.end(), 0.0f);
  std::fill(dentropy.begin() + 30, dentropy.end(), 0.0f);
  const Gradients some = Backward(p, dlogprob, dentropy.data(), p.t);
  EXPECT_TRUE(SameBits(Slice(some.dhidden, 0, 30 * p.d), Slice(all.dhidden, 0, 30 * p.d)));
  Problem first = p;
  first.t = 30;
  EXPECT_TRUE(SameBits(some.dhead, Backward(first, dlogprob, dentropy.data(), 30).dhead));
  EXPECT_TRUE(SameBits(Slice(some.dhidden, 30 * p.d, 20 * p.d), Floats(20 * p.d, 0.0f)));
  EXPECT_FALSE(SameBits(some.dhead, all.dhead));
}

TEST(HeadBackward, ACoefficientOfZeroForEntropyChangesNoBit) {
  const Problem p(53, 24, 300, 290);
  const Floats dlogprob = Random(p.t, 7), zeros(p.t, 0.0f), minus(p.t, -0.0f);
  const Gradients without = Backward(p, dlogprob, nullptr, p.t);
  for (const Floats& zero : {zeros, minus}) {
    const Gradients with = Backward(p, dlogprob, zero.data(), p.t);
    EXPECT_TRUE(SameBits(with.dhidden, without.dhidden));
    EXPECT_TRUE(SameBits(with.dhead, without.dhead));
  }
}

// At the uniform distribution entropy is greatest, whatever the temperature.
TEST(HeadBackward, EntropyHasNoSlopeAtItsMaximum) {
  Problem p(4, 8, 300, 290);
  std::fill(p.w.begin(), p.w.end(), 0.5f);
  PackF32(p.v, p.d, p.w.data(), p.packed.data());
  PackF32Transposed(p.v, p.d, p.w.data(), p.packed_transposed.data());
  const Floats zeros(p.t, 0.0f), ones(p.t, 1.0f);
  const Gradients g = Backward(p, zeros, ones.data(), p.t);
  // log p and the entropy are off by some units of log 290; p is 1 / 290.
  for (float value : g.dhead) EXPECT_NEAR(value, 0.25f, 1e-6);
}

TEST(HeadDeathTest, RefusesATargetBeyondTheValidIds) {
  Problem p(1, 8, 10, 9);
  p.targets[0] = 9;
  EXPECT_DEATH(p.LogProb(), "target out of range");
}

}  // namespace
}  // namespace thresher::kernels
