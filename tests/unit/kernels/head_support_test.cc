// The distribution a row is drawn from, as the learner finds it again, and its gradient.
#include "kernels/cpu/head_filter.h"
#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using Doubles = std::vector<double>;

// Every step alone, then all of them.
std::vector<HeadFilter> Filters(const std::vector<std::int32_t>& seen) {
  std::vector<HeadFilter> filters(7);
  filters[0].top_k = 20;
  filters[1].top_p = 0.9f;
  filters[2].min_p = 0.05f;
  filters[3].repetition_penalty = 1.3f;
  filters[4].repetition_penalty = 0.7f;
  filters[4].top_k = 9;
  filters[5].top_k = 1;
  filters[6] = {.top_k = 20, .top_p = 0.9f, .min_p = 0.02f, .repetition_penalty = 1.2f};
  for (HeadFilter& f : filters) {
    f.temperature = 0.7f;
    f.seen = seen.data();
    f.seen_count = static_cast<std::int64_t>(seen.size());
  }
  return filters;
}

// T rows over one head, each with a filter, what it draws and the support of its target: the token
// drawn, or in every third row any id.
struct Problem {
  std::int64_t t, d = 6, v, valid;
  Floats hidden, w, packed, packed_transposed, temperature, logits, logprob, lse;
  std::vector<std::int32_t> seen, target;
  std::vector<HeadFilter> filter;
  std::vector<HeadDraw> draw;
  std::vector<HeadSupport> support;
  std::vector<std::vector<std::uint64_t>> kept;

  Problem(std::int64_t rows, std::int64_t valid_vocab)
      : t(rows),
        v(valid_vocab + 10),
        valid(valid_vocab),
        hidden(Random(t * d, 1, 2.0f)),
        w(Random(v * d, 2)),
        packed(PackedFloats(v, d)),
        packed_transposed(PackedFloats(d, v)),
        temperature(t, 0.7f),
        logits(t * valid),
        logprob(t),
        lse(t) {
    PackF32(v, d, w.data(), packed.data());
    PackF32Transposed(v, d, w.data(), packed_transposed.data());
    for (std::int32_t id = 1; id < valid; id += 4) seen.push_back(id);
    for (std::int64_t i = 0; i < t; ++i) filter.push_back(Filters(seen)[i % 7]);
    Find();
  }

  void Find() {
    const HeadRows all{t, d, v, valid, hidden.data(), d, {packed.data()}, temperature.data()};
    const std::int64_t count = HeadBlockCount(valid);
    std::vector<HeadBlock> blocks(t * count);
    std::vector<float*> rows;
    for (std::int64_t i = 0; i < t; ++i) rows.push_back(&logits[i * valid]);
    HeadScan(all, nullptr, 0, count, blocks.data(), rows.data());
    for (std::int64_t i = 0; i < t; ++i) {
      kept.emplace_back((valid + 63) / 64);
      draw.push_back(HeadSampleFiltered(valid, rows[i], &blocks[i * count], filter[i],
                                        (static_cast<double>(i) + 0.5) / static_cast<double>(t),
                                        kept[i].data()));
      const auto any = static_cast<std::int32_t>((i * 37 + 5) % valid);
      target.push_back(i % 3 == 2 ? any : draw[i].token);
    }
    HeadLogProb(t, d, v, valid, hidden.data(), d, {packed.data()}, temperature.data(),
                target.data(), logprob.data(), lse.data(), nullptr);
    for (std::int64_t i = 0; i < t; ++i) {
      support.push_back(
          HeadFindSupport(valid, rows[i], &blocks[i * count], filter[i], target[i], logprob[i]));
    }
  }

  bool Kept(std::int64_t row, std::int64_t id) const { return kept[row][id / 64] >> (id % 64) & 1; }

  // Scores and, over what is kept and the target, log-probabilities of a row, in double.
  Doubles Scores(const Doubles& h, const Doubles& weights, std::int64_t row) const {
    Doubles s(valid);
    for (std::int64_t j = 0; j < valid; ++j) {
      for (std::int64_t c = 0; c < d; ++c) s[j] += h[row * d + c] * weights[j * d + c];
    }
    const double p = filter[row].repetition_penalty;
    for (std::int32_t id : seen) s[id] = s[id] < 0 ? s[id] * p : s[id] / p;
    for (double& x : s) x /= temperature[row];
    return s;
  }
  double SampledLogProb(const Doubles& h, const Doubles& weights, std::int64_t row) const {
    const Doubles s = Scores(h, weights, row);
    double sum = 0;
    for (std::int64_t j = 0; j < valid; ++j) {
      if (Kept(row, j) || j == target[row]) sum += std::exp(s[j]);
    }
    return s[target[row]] - std::log(sum);
  }
};

Doubles Widen(const Floats& x) { return Doubles(x.begin(), x.end()); }

TEST(HeadSupport, OfADrawnTokenHasTheBitsOfTheDraw) {
  const Problem p(210, 700);
  int kept = 0;
  for (std::int64_t i = 0; i < p.t; ++i) {
    kept += p.support[i].holds_target;
    if (i % 3 == 2) continue;
    ASSERT_TRUE(p.support[i].holds_target) << i;
    ASSERT_TRUE(SameBits({p.support[i].kept_mass_logprob}, {p.draw[i].kept_mass_logprob})) << i;
    ASSERT_TRUE(SameBits({p.logprob[i]}, {p.draw[i].logprob})) << i;
  }
  EXPECT_GE(kept, 140);
  EXPECT_LT(kept, 205);  // and some were dropped
}

TEST(HeadSupport, IsTheIdsThatAreKeptAndTheTarget) {
  for (std::int64_t valid : {40, 256, 700}) {
    const Problem p(70, valid);
    for (std::int64_t i = 0; i < p.t; ++i) {
      EXPECT_EQ(p.support[i].holds_target, p.Kept(i, p.target[i]));
      const Doubles s = p.Scores(Widen(p.hidden), Widen(p.w), i);
      for (std::int64_t j = 0; j < valid; ++j) {
        // Scores are off by some units of 2^-24 x 12.
        const double above = s[j] - p.support[i].least;
        ASSERT_GT(p.Kept(i, j) ? above : -above, -1e-5) << i << ' ' << j;
      }
    }
  }
}

TEST(HeadSupport, GivesTheLogProbabilityOfTheDistributionDrawnFrom) {
  for (std::int64_t valid : {40, 256, 700}) {
    const Problem p(70, valid);
    for (std::int64_t i = 0; i < p.t; ++i) {
      const double exact = p.SampledLogProb(Widen(p.hidden), Widen(p.w), i);
      const HeadSupport& support = p.support[i];
      // Scores and sums below 40 in steps of 2^-24, sums of up to 700 terms over 16 lanes.
      const double bound = kUnit * (6 * 40 + 700 / 16 + 64);
      EXPECT_NEAR(double(p.logprob[i]) - support.kept_mass_logprob, exact, bound) << i;
      const double score = p.Scores(Widen(p.hidden), Widen(p.w), i)[p.target[i]];
      EXPECT_NEAR(score - support.lse, exact, bound) << i;
      EXPECT_TRUE(support.kept_mass_logprob <= 1e-6f || p.filter[i].repetition_penalty != 1.0f);
    }
  }
}

TEST(HeadSupport, WithoutFiniteLogitsIsNoNumber) {
  const Floats logits = {1, kInf, 2};
  const HeadBlock block{kInf, 1, 0, 0};
  HeadFilter filter;
  filter.top_k = 2;
  const HeadSupport support = HeadFindSupport(3, logits.data(), &block, filter, 0, kNaN);
  EXPECT_TRUE(std::isnan(support.kept_mass_logprob));
  EXPECT_TRUE(std::isnan(support.lse));
  EXPECT_FALSE(support.holds_target);
}

struct Gradients {
  Floats dhidden, dhead;
};

Gradients Backward(const Problem& p, const Floats& dlogprob, std::int64_t cut,
                   const float* const* logits = nullptr) {
  Gradients g{Floats(p.t * p.d, kNaN), Floats(p.v * p.d, 0.25f)};
  for (std::int64_t begin = 0, end = cut; begin < p.t; begin = end, end = p.t) {
    HeadBackwardArgs args{.t = end - begin,
                          .d = p.d,
                          .v = p.v,
                          .valid_vocab = p.valid,
                          .hidden = p.hidden.data() + begin * p.d,
                          .ldh = p.d,
                          .packed_head = {p.packed.data()},
                          .packed_head_transposed = {p.packed_transposed.data()},
                          .temperature = p.temperature.data() + begin,
                          .targets = p.target.data() + begin,
                          .lse = p.lse.data() + begin,
                          .dlogprob = dlogprob.data() + begin,
                          .dhidden = g.dhidden.data() + begin * p.d,
                          .lddh = p.d,
                          .dhead = g.dhead.data(),
                          .filter = p.filter.data() + begin,
                          .support = p.support.data() + begin,
                          .logits = logits == nullptr ? nullptr : logits + begin};
    HeadBackward(args);
  }
  return g;
}

TEST(HeadSupportBackward, LogitsThatWereKeptChangeNoBit) {
  const Problem p(70, 700);
  const Floats dlogprob = Random(p.t, 7);
  const Gradients again = Backward(p, dlogprob, p.t);
  for (std::int64_t count : {std::int64_t{50}, p.t}) {
    std::vector<const float*> kept(static_cast<std::size_t>(p.t));
    for (std::int64_t t = 0; t < count; ++t)
      kept[static_cast<std::size_t>(t)] = p.logits.data() + t * p.valid;
    const Gradients g = Backward(p, dlogprob, p.t, kept.data());
    EXPECT_TRUE(SameBits(g.dhidden, again.dhidden)) << count;
    EXPECT_TRUE(SameBits(g.dhead, again.dhead)) << count;
  }
}

TEST(HeadSupportBackward, MatchesFiniteDifferences) {
  const Problem p(14, 280);
  const Floats dlogprob = Random(p.t, 7);
  const Gradients g = Backward(p, dlogprob, p.t);
  const auto slope = [&](Doubles x, std::size_t i, bool of_hidden) {
    const double step = 1e-5;
    const auto loss = [&] {
      double sum = 0;
      for (std::int64_t row = 0; row < p.t; ++row) {
        sum += dlogprob[row] * (of_hidden ? p.SampledLogProb(x, Widen(p.w), row)
                                          : p.SampledLogProb(Widen(p.hidden), x, row));
      }
      return sum;
    };
    x[i] += step;
    const double above = loss();
    x[i] -= 2 * step;
    return (above - loss()) / (2 * step);
  };
  // Sums of 280 terms below 2 in float; the differences are good to 1e-8.
  for (std::int64_t i = 0; i < p.t * p.d; ++i) {
    ASSERT_NEAR(g.dhidden[i], slope(Widen(p.hidden), i, true), 2e-5) << i;
  }
  for (std::int64_t i = 0; i < p.v * p.d; i += 7) {
    const double exact = i < p.valid * p.d ? slope(Widen(p.w), i, false) : 0.0;
    ASSERT_NEAR(g.dhead[i] - 0.25, exact, 2e-5) << i;  // continued from 0.25
  }
}

TEST(HeadSupportBackward, HasTheSameBitsInAllVariantsAndHoweverTokensAreCut) {
  const Problem p(60, 290);
  const Floats dlogprob = Random(p.t, 7);
  const Gradients whole = Backward(p, dlogprob, p.t);
  for (std::int64_t cut : {1, 20, 48}) {
    const Gradients parts = Backward(p, dlogprob, cut);
    EXPECT_TRUE(SameBits(parts.dhidden, whole.dhidden)) << cut;
    EXPECT_TRUE(SameBits(parts.dhead, whole.dhead)) << cut;
  }
  ExpectSameBitsInAllVariants([&] {
    const Problem again(60, 290);
    Gradients g = Backward(again, dlogprob, again.t);
    Append(&g.dhidden, g.dhead);
    for (const HeadSupport& s : again.support) {
      Append(&g.dhidden, {s.kept_mass_logprob, s.lse, s.least, s.holds_target ? 1.0f : 0.0f});
    }
    return g.dhidden;
  });
}

TEST(HeadSupportBackward, OfRowsWithoutFiltersIsThatOfTheFullDistribution) {
  Problem p(53, 290);
  const Floats dlogprob = Random(p.t, 7);
  for (std::int64_t i = 0; i < p.t; ++i) {
    p.filter[i] = HeadFilter{.temperature = 0.7f};
    p.support[i] = {0, p.lse[i], -kInf, true};
  }
  const Gradients within = Backward(p, dlogprob, p.t);
  Gradients full{Floats(p.t * p.d), Floats(p.v * p.d, 0.25f)};
  HeadBackwardArgs args{.t = p.t,
                        .d = p.d,
                        .v = p.v,
                        .valid_vocab = p.valid,
                        .hidden = p.hidden.data(),
                        .ldh = p.d,
                        .packed_head = {p.packed.data()},
                        .packed_head_transposed = {p.packed_transposed.data()},
                        .temperature = p.temperature.data(),
                        .targets = p.target.data(),
                        .lse = p.lse.data(),
                        .dlogprob = dlogprob.data(),
                        .dhidden = full.dhidden.data(),
                        .lddh = p.d,
                        .dhead = full.dhead.data()};
  HeadBackward(args);
  EXPECT_TRUE(SameBits(within.dhidden, full.dhidden));
  EXPECT_TRUE(SameBits(within.dhead, full.dhead));
}

}  // namespace
}  // namespace thresher::kernels
