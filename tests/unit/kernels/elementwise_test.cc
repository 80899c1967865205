#include <cmath>
#include <random>

#include "kernels/cpu/embedding.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/swiglu.h"
#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;

constexpr float kEps = 1e-6f;

// sum over rows of c . y(x), in double, for finite differences.
double RmsNormLoss(std::int64_t t, std::int64_t d, const std::vector<double>& x,
                   const std::vector<double>& w, const Floats& c) {
  double loss = 0;
  for (std::int64_t i = 0; i < t; ++i) {
    double squares = 0;
    for (std::int64_t j = 0; j < d; ++j) squares += x[i * d + j] * x[i * d + j];
    const double inv = 1.0 / std::sqrt(squares / d + kEps);
    for (std::int64_t j = 0; j < d; ++j) loss += c[i * d + j] * x[i * d + j] * inv * w[j];
  }
  return loss;
}

std::vector<double> Widen(const Floats& x) { return {x.begin(), x.end()}; }

// d loss / d x[i] by central differences in double.
double Slope(const std::function<double(const std::vector<double>&)>& loss, std::vector<double> x,
             std::size_t i) {
  const double step = 1e-5;
  x[i] += step;
  const double above = loss(x);
  x[i] -= 2 * step;
  return (above - loss(x)) / (2 * step);
}

TEST(RmsNorm, ForwardMatchesDouble) {
  for (std::int64_t d : {1, 8, 16, 96, 100}) {
    const std::int64_t t = 4;
    const Floats x = Random(t * d, 1, 3.0f), w = Random(d, 2);
    Floats y(t * d), inv(t);
    RmsNormForward(t, d, x.data(), w.data(), kEps, y.data(), inv.data());
    for (std::int64_t i = 0; i < t * d; ++i) {
      double squares = 0;
      for (std::int64_t j = 0; j < d; ++j) squares += std::pow(double(x[i / d * d + j]), 2);
      const double exact = x[i] / std::sqrt(squares / d + kEps) * w[i % d];
      // Half the relative error of the sum (d/16 + 4 additions), then five roundings.
      ASSERT_NEAR(y[i], exact, (d / 32.0 + 8) * kUnit * std::fabs(exact));
    }
  }
}

TEST(RmsNorm, BackwardMatchesFiniteDifferences) {
  const std::int64_t t = 3, d = 21;
  const Floats x = Random(t * d, 1, 2.0f), w = Random(d, 2), dy = Random(t * d, 3);
  Floats y(t * d), inv(t), dx(t * d), dw(d);
  RmsNormForward(t, d, x.data(), w.data(), kEps, y.data(), inv.data());
  RmsNormBackward(t, d, x.data(), w.data(), inv.data(), dy.data(), dx.data(), dw.data());
  const auto of_x = [&](const std::vector<double>& v) {
    return RmsNormLoss(t, d, v, Widen(w), dy);
  };
  const auto of_w = [&](const std::vector<double>& v) {
    return RmsNormLoss(t, d, Widen(x), v, dy);
  };
  // Differences of step 1e-5 in double are good to 1e-9; float gives about 1e-6 of values near 1.
  for (std::int64_t i = 0; i < t * d; ++i) ASSERT_NEAR(dx[i], Slope(of_x, Widen(x), i), 3e-6);
  for (std::int64_t j = 0; j < d; ++j) ASSERT_NEAR(dw[j], Slope(of_w, Widen(w), j), 3e-6);
}

TEST(RmsNorm, HasTheSameBitsInAllVariantsForAnyRowsAndContinuesItsWeightGradient) {
  for (std::int64_t d : {5, 24, 96, 130}) {
    const std::int64_t t = 7;
    const Floats x = Random(t * d, 1), w = Random(d, 2), dy = Random(t * d, 3);
    ExpectSameBitsInAllVariants([&] {
      Floats y(t * d), inv(t), dx(t * d), dw(d), dw_cut(d);
      RmsNormForward(t, d, x.data(), w.data(), kEps, y.data(), inv.data());
      RmsNormBackward(t, d, x.data(), w.data(), inv.data(), dy.data(), dx.data(), dw.data());
      Floats row(d);
      RmsNormForward(1, d, x.data() + 3 * d, w.data(), kEps, row.data(), nullptr);
      EXPECT_TRUE(SameBits(row, Slice(y, 3 * d, d)));
      Floats dx_cut = dy;  // in place over dy, in two calls
      RmsNormBackward(4, d, x.data(), w.data(), inv.data(), dx_cut.data(), dx_cut.data(),
                      dw_cut.data());
      RmsNormBackward(3, d, x.data() + 4 * d, w.data(), inv.data() + 4, dx_cut.data() + 4 * d,
                      dx_cut.data() + 4 * d, dw_cut.data());
      EXPECT_TRUE(SameBits(dw_cut, dw));
      EXPECT_TRUE(SameBits(dx_cut, dx));
      for (const Floats& part : {inv, dx, dw}) Append(&y, part);
      return y;
    });
  }
}

TEST(Rope, TableIsHuggingFaces) {
  const std::int64_t positions = 50, head_dim = 24;
  Floats cos(positions * 12), sin(positions * 12);
  RopeTable(positions, head_dim, 10000.0, cos.data(), sin.data());
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t i = 0; i < 12; ++i) {
      const float inv_freq = static_cast<float>(std::pow(10000.0, -2.0 * i / head_dim));
      // The frequency may be the neighbouring float, which moves the angle by one part in 2^23.
      const double angle = static_cast<float>(p) * inv_freq;
      ASSERT_NEAR(cos[p * 12 + i], std::cos(angle), kUnit + 2 * kUnit * angle);
      ASSERT_NEAR(sin[p * 12 + i], std::sin(angle), kUnit + 2 * kUnit * angle);
    }
  }
}

TEST(Rope, SineAndCosineAreThoseOfTheAngle) {
  std::minstd_rand random(3);
  for (int i = 0; i < 200000; ++i) {
    // Whole positions, small angles, and everything between.
    const float whole = static_cast<float>(random() % (1u << 25));
    const float angle = i % 3 == 0 ? whole : std::ldexp(whole, -static_cast<int>(random() % 50));
    for (float x : {angle, -angle}) {
      double sine = 0, cosine = 0;
      SinCos(x, &sine, &cosine);
      ASSERT_NEAR(sine, std::sin(static_cast<long double>(x)), 0x1p-51) << x;
      ASSERT_NEAR(cosine, std::cos(static_cast<long double>(x)), 0x1p-51) << x;
    }
  }
  for (float quarter : {0.0f, 1.5707964f, 3.1415927f, 4.712389f, 6.2831855f}) {
    double sine = 0, cosine = 0;
    SinCos(quarter, &sine, &cosine);
    EXPECT_EQ(static_cast<float>(sine), static_cast<float>(std::sin(double{quarter})));
    EXPECT_EQ(static_cast<float>(cosine), static_cast<float>(std::cos(double{quarter})));
  }
}

TEST(Rope, RotatesPairsHalfAHeadApart) {
  const std::int64_t t = 3, heads = 2, head_dim = 24, half = 12, ldx = 60;
  Floats cos(10 * half), sin(10 * half);
  RopeTable(10, head_dim, 10000.0, cos.data(), sin.data());
  const std::int32_t positions[] = {9, 0, 4};
  const Floats before = Random(t * ldx, 1);
  Floats x = before;
  RopeApply(t, heads, head_dim, positions, cos.data(), sin.data(), x.data(), ldx, false);
  for (std::int64_t i = 0; i < t * ldx; ++i) {
    const std::int64_t row = i / ldx, column = i % ldx, c = column % head_dim;
    if (column >= heads * head_dim) {
      ASSERT_EQ(x[i], before[i]);
      continue;
    }
    const double cs = cos[positions[row] * half + c % half];
    const double sn = sin[positions[row] * half + c % half];
    const double exact =
        c < half ? before[i] * cs - before[i + half] * sn : before[i] * cs + before[i - half] * sn;
    ASSERT_NEAR(x[i], exact, 4 * kUnit);
  }
}

TEST(Rope, InverseUndoesAndAllVariantsAgree) {
  for (std::int64_t head_dim : {8, 24, 32, 64}) {
    const std::int64_t t = 5, heads = 3, width = heads * head_dim;
    Floats cos(100 * head_dim / 2), sin(cos.size());
    RopeTable(100, head_dim, 10000.0, cos.data(), sin.data());
    const std::int32_t positions[] = {99, 3, 0, 50, 17};
    const Floats before = Random(t * width, 1);
    ExpectSameBitsInAllVariants([&] {
      Floats x = before;
      RopeApply(t, heads, head_dim, positions, cos.data(), sin.data(), x.data(), width, false);
      Floats back = x;
      RopeApply(t, heads, head_dim, positions, cos.data(), sin.data(), back.data(), width, true);
      for (std::size_t i = 0; i < back.size(); ++i) EXPECT_NEAR(back[i], before[i], 10 * kUnit);
      Append(&x, back);
      return x;
    });
  }
}

TEST(Swiglu, ForwardMatchesDouble) {
  const std::int64_t t = 3, f = 101;
  const Floats gate = Random(t * f, 1, 20.0f), up = Random(t * f, 2, 3.0f);
  Floats y(t * f);
  SwigluForward(t, f, gate.data(), f, up.data(), f, y.data(), f);
  for (std::int64_t i = 0; i < t * f; ++i) {
    const double exact = gate[i] / (1.0 + std::exp(-double(gate[i]))) * up[i];
    ASSERT_NEAR(y[i], exact, 8 * kUnit * std::fabs(exact));  // exp 2 ulp = 4 units, 3 roundings
  }
}

TEST(Swiglu, BackwardMatchesFiniteDifferences) {
  const std::int64_t f = 37;
  const Floats gate = Random(f, 1, 6.0f), up = Random(f, 2, 3.0f), dy = Random(f, 3);
  Floats dgate(f), dup(f);
  SwigluBackward(1, f, gate.data(), f, up.data(), f, dy.data(), f, dgate.data(), f, dup.data(), f);
  const auto loss = [&](const std::vector<double>& g, const std::vector<double>& u) {
    double sum = 0;
    for (std::int64_t i = 0; i < f; ++i) sum += dy[i] * g[i] / (1 + std::exp(-g[i])) * u[i];
    return sum;
  };
  for (std::int64_t i = 0; i < f; ++i) {
    const auto of_gate = [&](const std::vector<double>& g) { return loss(g, Widen(up)); };
    const auto of_up = [&](const std::vector<double>& u) { return loss(Widen(gate), u); };
    ASSERT_NEAR(dgate[i], Slope(of_gate, Widen(gate), i), 3e-6);
    ASSERT_NEAR(dup[i], Slope(of_up, Widen(up), i), 3e-6);
  }
}

TEST(Swiglu, HasTheSameBitsInAllVariantsAndInPlace) {
  for (std::int64_t f : {1, 8, 17, 96, 100}) {
    const std::int64_t t = 3;
    const Floats gate = Random(t * f, 1, 100.0f), up = Random(t * f, 2), dy = Random(t * f, 3);
    ExpectSameBitsInAllVariants([&] {
      Floats y(t * f), dgate = gate, dup = up, in_place = gate;
      SwigluForward(t, f, gate.data(), f, up.data(), f, y.data(), f);
      SwigluForward(t, f, in_place.data(), f, up.data(), f, in_place.data(), f);
      EXPECT_TRUE(SameBits(y, in_place));
      Floats again(t * f);
      SwigluBackward(t, f, dgate.data(), f, dup.data(), f, dy.data(), f, dgate.data(), f,
                     dup.data(), f, again.data(), f);
      EXPECT_TRUE(SameBits(y, again));
      for (const Floats& part : {dgate, dup}) Append(&y, part);
      return y;
    });
  }
}

TEST(Embedding, GathersAndScattersInTokenOrder) {
  const std::int64_t t = 6, d = 21, v = 5;
  const std::int32_t ids[] = {4, 0, 4, 2, 4, 0};
  const Floats table = Random(v * d, 1), dy = Random(t * d, 2), start = Random(v * d, 3);
  Floats y(t * d), expected = start;
  EmbeddingForward(t, d, v, ids, table.data(), y.data());
  for (std::int64_t i = 0; i < t * d; ++i) {
    ASSERT_EQ(y[i], table[ids[i / d] * d + i % d]);
    expected[ids[i / d] * d + i % d] += dy[i];
  }
  ExpectSameBitsInAllVariants([&] {
    Floats grad = start;
    EmbeddingBackward(2, d, v, ids, dy.data(), grad.data());
    EmbeddingBackward(4, d, v, ids + 2, dy.data() + 2 * d, grad.data());
    EXPECT_TRUE(SameBits(grad, expected));
    return grad;
  });
}

TEST(EmbeddingDeathTest, RefusesAnIdOutsideTheTable) {
  const std::int32_t ids[] = {5};
  Floats table(5 * 4), y(4);
  EXPECT_DEATH(EmbeddingForward(1, 4, 5, ids, table.data(), y.data()), "id out of range");
}

}  // namespace
}  // namespace thresher::kernels
