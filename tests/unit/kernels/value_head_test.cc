#include "kernels/cpu/value_head.h"

#include <algorithm>

#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using Doubles = std::vector<double>;

// Rows lie ldh apart; what is between them is NaN, to be read by nobody.
struct Problem {
  std::int64_t t, d, ldh;
  Floats hidden, weight, dvalue;
  float bias = 0.375f;

  Problem(std::int64_t rows, std::int64_t width)
      : t(rows), d(width), ldh(width + 3), hidden(rows * ldh, kNaN) {
    const Floats dense = Random(t * d, 1, 2.0f);
    for (std::int64_t i = 0; i < t; ++i) {
      std::copy_n(&dense[i * d], d, &hidden[i * ldh]);
    }
    weight = Random(d, 2);
    dvalue = Random(t, 3);
  }

  Floats Values(const float* with_bias) const {
    Floats value(t, kNaN);
    ValueHeadForward(t, d, hidden.data(), ldh, weight.data(), with_bias, value.data());
    return value;
  }

  // Of the dense columns h [T, D], w [D] and one bias.
  double Loss(const Doubles& h, const Doubles& w, double b) const {
    double loss = 0;
    for (std::int64_t i = 0; i < t; ++i) {
      double value = b;
      for (std::int64_t c = 0; c < d; ++c) value += h[i * d + c] * w[c];
      loss += dvalue[i] * value;
    }
    return loss;
  }

  Doubles Dense() const {
    Doubles dense;
    for (std::int64_t i = 0; i < t; ++i) {
      dense.insert(dense.end(), &hidden[i * ldh], &hidden[i * ldh] + d);
    }
    return dense;
  }
};

Doubles Widen(const Floats& x) { return {x.begin(), x.end()}; }

struct Gradients {
  Floats dhidden, dweight, dbias;
  Floats All() const {
    Floats all = dhidden;
    Append(&all, dweight);
    Append(&all, dbias);
    return all;
  }
};

// What the results hold before: nothing of it may be lost.
Gradients Before(const Problem& p) {
  return {Random(p.t * p.d, 5), Random(p.d, 6), Floats{-0.25f}};
}

// In consecutive calls of the rows [0, cuts[0]), [cuts[0], cuts[1]), ...
Gradients Backward(const Problem& p, std::vector<std::int64_t> cuts) {
  Gradients g = Before(p);
  std::int64_t begin = 0;
  for (std::int64_t end : cuts) {
    ValueHeadBackward({.t = end - begin,
                       .d = p.d,
                       .hidden = p.hidden.data() + begin * p.ldh,
                       .ldh = p.ldh,
                       .weight = p.weight.data(),
                       .dvalue = p.dvalue.data() + begin,
                       .dhidden = g.dhidden.data() + begin * p.d,
                       .lddh = p.d,
                       .dweight = g.dweight.data(),
                       .dbias = g.dbias.data()});
    begin = end;
  }
  return g;
}

TEST(ValueHead, ForwardMatchesDouble) {
  for (std::int64_t d : {1, 15, 16, 17, 96, 300}) {
    const Problem p(6, d);
    const Floats value = p.Values(&p.bias), plain = p.Values(nullptr);
    for (std::int64_t i = 0; i < p.t; ++i) {
      double exact = 0, size = std::fabs(p.bias);
      for (std::int64_t c = 0; c < d; ++c) {
        const double product = double(p.hidden[i * p.ldh + c]) * p.weight[c];
        exact += product;
        size += std::fabs(product);
      }
      // d / 16 fused steps, the tree's four additions, that of the bias.
      const double bound = (d / 16.0 + 6) * kUnit * size;
      ASSERT_NEAR(value[i], exact + p.bias, bound) << d;
      ASSERT_NEAR(plain[i], exact, bound) << d;
    }
  }
}

TEST(ValueHead, BackwardMatchesFiniteDifferences) {
  const Problem p(7, 21);
  const Gradients g = Backward(p, {p.t}), before = Before(p);
  // The loss is linear in each: a difference over a step of 1 is its slope. Floats near 1 and some
  // ten roundings.
  const double bound = 1e-6;
  const double base = p.Loss(p.Dense(), Widen(p.weight), p.bias);
  for (std::int64_t i = 0; i < p.t * p.d; ++i) {
    Doubles moved = p.Dense();
    moved[i] += 1;
    const double slope = p.Loss(moved, Widen(p.weight), p.bias) - base;
    ASSERT_NEAR(g.dhidden[i] - before.dhidden[i], slope, bound);
  }
  for (std::int64_t c = 0; c < p.d; ++c) {
    Doubles moved = Widen(p.weight);
    moved[c] += 1;
    const double slope = p.Loss(p.Dense(), moved, p.bias) - base;
    ASSERT_NEAR(g.dweight[c] - before.dweight[c], slope, 4 * bound);
  }
  const double slope = p.Loss(p.Dense(), Widen(p.weight), p.bias + 1.0) - base;
  ASSERT_NEAR(g.dbias[0] - before.dbias[0], slope, bound);
}

TEST(ValueHead, HasTheSameBitsInAllVariantsForAnyRowsAndHoweverTokensAreCut) {
  for (std::int64_t d : {5, 32, 97, 200}) {
    const Problem p(23, d);
    ExpectSameBitsInAllVariants([&] {
      Floats out = p.Values(&p.bias);
      for (std::int64_t i : {0, 11, 22}) {
        float alone = kNaN;
        ValueHeadForward(1, d, &p.hidden[i * p.ldh], p.ldh, p.weight.data(), &p.bias, &alone);
        EXPECT_TRUE(SameBits({alone}, {out[i]}));
      }
      const Floats whole = Backward(p, {23}).All();
      EXPECT_TRUE(SameBits(Backward(p, {1, 9, 10, 23}).All(), whole));
      Append(&out, whole);
      return out;
    });
  }
}

// Each element of the weight's gradient is the chain that the products' weight gradients are.
TEST(ValueHead, ItsWeightGradientIsThatOfAProductOfOneOutput) {
  const Problem p(40, 70);
  Floats dweight = Before(p).dweight;
  GemmAccumulateWeightGrad(p.t, 1, p.d, p.dvalue.data(), 1, p.hidden.data(), p.ldh, dweight.data());
  EXPECT_TRUE(SameBits(Backward(p, {p.t}).dweight, dweight));
}

TEST(ValueHead, ATokenWithoutGradientAddsExactlyNothing) {
  Problem p(9, 40);
  for (std::int64_t i : {0, 4, 8}) {
    p.dvalue[i] = i == 4 ? -0.0f : 0.0f;
    std::fill_n(&p.hidden[i * p.ldh], p.d, i == 0 ? kNaN : kInf);
  }
  Gradients before = Before(p);
  const Gradients g = Backward(p, {p.t});
  for (std::int64_t i : {0, 4, 8}) {
    EXPECT_TRUE(SameBits(Slice(g.dhidden, i * p.d, p.d), Slice(before.dhidden, i * p.d, p.d)));
  }
  EXPECT_FALSE(SameBits(g.dweight, before.dweight));
  for (float value : g.dweight) EXPECT_TRUE(std::isfinite(value));
  std::fill(p.dvalue.begin(), p.dvalue.end(), 0.0f);
  EXPECT_TRUE(SameBits(Backward(p, {p.t}).All(), before.All()));
}

TEST(ValueHead, WhatIsNotWantedIsLeftOut) {
  const Problem p(9, 40);
  const Gradients all = Backward(p, {p.t});
  for (int wanted = 0; wanted < 8; ++wanted) {
    Gradients g = Before(p);
    ValueHeadBackward({.t = p.t,
                       .d = p.d,
                       .hidden = p.hidden.data(),
                       .ldh = p.ldh,
                       .weight = p.weight.data(),
                       .dvalue = p.dvalue.data(),
                       .dhidden = wanted & 1 ? g.dhidden.data() : nullptr,
                       .lddh = p.d,
                       .dweight = wanted & 2 ? g.dweight.data() : nullptr,
                       .dbias = wanted & 4 ? g.dbias.data() : nullptr});
    const Gradients before = Before(p);
    EXPECT_TRUE(SameBits(g.dhidden, (wanted & 1 ? all : before).dhidden));
    EXPECT_TRUE(SameBits(g.dweight, (wanted & 2 ? all : before).dweight));
    EXPECT_TRUE(SameBits(g.dbias, (wanted & 4 ? all : before).dbias));
  }
}

TEST(ValueHeadDeathTest, RefusesAGradientInPlace) {
  Problem p(2, 4);
  EXPECT_DEATH(ValueHeadBackward({.t = p.t,
                                  .d = p.d,
                                  .hidden = p.hidden.data(),
                                  .ldh = p.ldh,
                                  .weight = p.weight.data(),
                                  .dvalue = p.dvalue.data(),
                                  .dhidden = p.hidden.data(),
                                  .lddh = p.ldh,
                                  .dweight = nullptr,
                                  .dbias = nullptr}),
               "dhidden is hidden");
}

}  // namespace
}  // namespace thresher::kernels
