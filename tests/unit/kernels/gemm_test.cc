#include "kernels/cpu/gemm.h"

#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;

struct Shape {
  std::int64_t t, n, k;
};

// Every remainder of the register blocks (12, 8, 4, 2, 1 rows; 128, 32, 16 columns), one and
// several chunks of K; in the last row several groups of panels, more rows than a block of them,
// and distances of the rows of x at which it is copied (256, 768) or read where it lies.
constexpr Shape kShapes[] = {
    {1, 1, 1},     {1, 7, 5},      {2, 33, 17},    {3, 130, 24},   {5, 96, 96},     {13, 64, 100},
    {15, 31, 96},  {27, 48, 33},   {109, 40, 12},  {2, 300, 9},    {4, 33, 512},    {7, 17, 513},
    {1, 65, 1100}, {14, 70, 1025}, {27, 330, 600}, {20, 300, 256}, {150, 290, 768}, {200, 70, 40}};

Floats Packed(std::int64_t n, std::int64_t k, const Floats& w) {
  Floats packed(PackedFloats(n, k), kNaN);
  PackF32(n, k, w.data(), packed.data());
  return packed;
}

Floats Product(const Shape& s, const Floats& x, const Floats& w, const float* bias) {
  const Floats packed = Packed(s.n, s.k, w);
  Floats y(s.t * s.n, kNaN);
  Gemm(s.t, s.n, s.k, x.data(), s.k, {packed.data()}, bias, y.data(), s.n);
  return y;
}

TEST(Gemm, MatchesDoubleWithinTheBoundOfASum) {
  for (const Shape& s : kShapes) {
    const Floats x = Random(s.t * s.k, 1), w = Random(s.n * s.k, 2), bias = Random(s.n, 3);
    const Floats y = Product(s, x, w, bias.data());
    for (std::int64_t t = 0; t < s.t; ++t) {
      for (std::int64_t n = 0; n < s.n; ++n) {
        double exact = bias[n], magnitude = std::fabs(bias[n]);
        for (std::int64_t k = 0; k < s.k; ++k) {
          const double product = double(x[t * s.k + k]) * double(w[n * s.k + k]);
          exact += product;
          magnitude += std::fabs(product);
        }
        ASSERT_NEAR(y[t * s.n + n], exact, (s.k + 4) * kUnit * magnitude)
            << s.t << "x" << s.n << "x" << s.k << " at " << t << "," << n;
      }
    }
  }
}

TEST(Gemm, IsOneFmaChainPerChunkWithTheBiasLast) {
  const Shape s{3, 5, 1100};
  const Floats x = Random(s.t * s.k, 4), w = Random(s.n * s.k, 5), bias = Random(s.n, 6);
  Floats expected;
  for (std::int64_t t = 0; t < s.t; ++t) {
    for (std::int64_t n = 0; n < s.n; ++n) {
      float total = 0;
      for (std::int64_t k0 = 0; k0 < s.k; k0 += kGemmKChunk) {
        float chain = 0;
        for (std::int64_t k = k0; k < std::min(s.k, k0 + kGemmKChunk); ++k) {
          chain = std::fma(x[t * s.k + k], w[n * s.k + k], chain);
        }
        total = k0 == 0 ? chain : total + chain;
      }
      expected.push_back(total + bias[n]);
    }
  }
  EXPECT_TRUE(SameBits(Product(s, x, w, bias.data()), expected));
}

TEST(Gemm, HasTheSameBitsInAllVariants) {
  for (const Shape& s : kShapes) {
    const Floats x = Random(s.t * s.k, 1), w = Random(s.n * s.k, 2), bias = Random(s.n, 3);
    SCOPED_TRACE(::testing::Message() << s.t << "x" << s.n << "x" << s.k);
    ExpectSameBitsInAllVariants([&] {
      Floats y = Product(s, x, w, bias.data());
      Append(&y, Product(s, x, w, nullptr));
      return y;
    });
  }
}

TEST(Gemm, ARowDoesNotDependOnItsNeighboursOrItsPlace) {
  const std::int64_t n = 70, k = 600;
  const Floats w = Random(n * k, 1), row = Random(k, 2);
  const Floats packed = Packed(n, k, w);
  Floats alone(n);
  Gemm(1, n, k, row.data(), k, {packed.data()}, nullptr, alone.data(), n);
  for (CpuVariant variant : AvailableVariants()) {
    const VariantScope scope(variant);
    for (std::int64_t t = 1; t <= 27; ++t) {
      for (std::int64_t place : {std::int64_t{0}, t / 2, t - 1}) {
        Floats x = Random(t * k, 100 + t);
        if (t % 3 == 0) std::fill(x.begin(), x.end(), kNaN);  // even poisoned neighbours
        std::copy(row.begin(), row.end(), x.begin() + place * k);
        Floats y(t * n);
        Gemm(t, n, k, x.data(), k, {packed.data()}, nullptr, y.data(), n);
        ASSERT_TRUE(SameBits(Slice(y, place * n, n), alone)) << t << " " << place;
      }
    }
  }
}

TEST(Gemm, ColumnsMayBeCutAtPanels) {
  const std::int64_t t = 5, n = 100, k = 48;
  const Floats w = Random(n * k, 1), x = Random(t * k, 2);
  const Floats packed = Packed(n, k, w);
  const Floats whole = Product({t, n, k}, x, w, nullptr);
  Floats cut(t * n);
  Gemm(t, 64, k, x.data(), k, {packed.data()}, nullptr, cut.data(), n);
  Gemm(t, 36, k, x.data(), k, {packed.data() + 64 * k}, nullptr, cut.data() + 64, n);
  EXPECT_TRUE(SameBits(cut, whole));
}

TEST(Gemm, NeitherReadsNorWritesBeyondItsShapes) {
  for (CpuVariant variant : AvailableVariants()) {
    const VariantScope scope(variant);
    for (std::int64_t t : {1, 2, 4, 13}) {
      const std::int64_t n = 37, k = 19, ldx = 24, ldy = 50;
      const Floats w = Random(n * k, 1), packed = Packed(n, k, w), values = Random(t * k, 2);
      Floats x(t * ldx, kNaN), y(t * ldy, -7.0f);
      for (std::int64_t i = 0; i < t * k; ++i) x[i / k * ldx + i % k] = values[i];
      Gemm(t, n, k, x.data(), ldx, {packed.data()}, nullptr, y.data(), ldy);
      const Floats expected = Product({t, n, k}, values, w, nullptr);
      for (std::int64_t i = 0; i < t * ldy; ++i) {
        const std::int64_t column = i % ldy;
        ASSERT_EQ(y[i], column < n ? expected[i / ldy * n + column] : -7.0f);
      }
    }
  }
}

TEST(Gemm, OfNoInputsIsTheBias) {
  const Floats bias = Random(20, 1);
  for (CpuVariant variant : AvailableVariants()) {
    const VariantScope scope(variant);
    for (std::int64_t t : {0, 2, 40}) {
      Floats y(t * 20, kNaN);
      Gemm(t, 20, 0, nullptr, 0, {}, bias.data(), y.data(), 20);
      for (std::int64_t i = 0; i < t; ++i) EXPECT_TRUE(SameBits(Slice(y, i * 20, 20), bias));
      Gemm(t, 0, 7, y.data(), 7, {}, nullptr, nullptr, 0);  // and no outputs are nothing
    }
  }
}

TEST(PackWeightsTransposed, GivesTheInputGradient) {
  for (const Shape& s : kShapes) {
    const Floats dy = Random(s.t * s.n, 1), w = Random(s.n * s.k, 2);
    Floats packed(PackedFloats(s.k, s.n), kNaN), dx(s.t * s.k);
    PackF32Transposed(s.n, s.k, w.data(), packed.data());
    Gemm(s.t, s.k, s.n, dy.data(), s.n, {packed.data()}, nullptr, dx.data(), s.k);
    Floats transposed(w.size());
    for (std::int64_t n = 0; n < s.n; ++n) {
      for (std::int64_t k = 0; k < s.k; ++k) transposed[k * s.n + n] = w[n * s.k + k];
    }
    EXPECT_TRUE(SameBits(dx, Product({s.t, s.k, s.n}, dy, transposed, nullptr)));
  }
}

TEST(WeightGrad, IsOneFmaChainOverTokensContinuedOverCalls) {
  for (const Shape& s : {Shape{1, 3, 5}, Shape{200, 13, 70}, Shape{9, 6, 64}, Shape{33, 7, 129},
                         Shape{5, 27, 16}, Shape{17, 25, 100}}) {
    const Floats dy = Random(s.t * s.n, 1), x = Random(s.t * s.k, 2), start = Random(s.n * s.k, 3);
    Floats expected = start;
    for (std::int64_t t = 0; t < s.t; ++t) {
      for (std::int64_t i = 0; i < s.n * s.k; ++i) {
        expected[i] = std::fma(dy[t * s.n + i / s.k], x[t * s.k + i % s.k], expected[i]);
      }
    }
    for (CpuVariant variant : AvailableVariants()) {
      const VariantScope scope(variant);
      for (std::int64_t cut : {std::int64_t{0}, s.t / 3, s.t}) {
        Floats dw = start;
        GemmAccumulateWeightGrad(cut, s.n, s.k, dy.data(), s.n, x.data(), s.k, dw.data());
        GemmAccumulateWeightGrad(s.t - cut, s.n, s.k, dy.data() + cut * s.n, s.n,
                                 x.data() + cut * s.k, s.k, dw.data());
        ASSERT_TRUE(SameBits(dw, expected)) << CpuVariantName(variant) << " cut " << cut;
      }
    }
  }
}

// Every size of a tile and what is left of it, few tokens and more than a block of them, dy as it
// lies and copied to panels, more rows than are copied at once, more columns than are packed at once.
TEST(WeightGrad, IsThatChainForAllShapes) {
  std::vector<Shape> shapes = {{1030, 13, 161}, {530, 245, 170}, {20, 37, 1060}, {150, 490, 33}};
  for (std::int64_t size = 1; size <= 40; ++size) {
    shapes.push_back({size, 41 - size, 3 * size});
    shapes.push_back({7, size, 150 + size});
    shapes.push_back({41 - size, 12, size});
  }
  for (const Shape& s : shapes) {
    const std::int64_t lddy = s.n + 3, ldx = s.k + 5;
    const Floats dy = Random(s.t * lddy, 1), x = Random(s.t * ldx, 2);
    const Floats start = Random(s.n * s.k, 3);
    Floats expected = start;
    for (std::int64_t t = 0; t < s.t; ++t) {
      for (std::int64_t i = 0; i < s.n * s.k; ++i) {
        expected[i] = std::fma(dy[t * lddy + i / s.k], x[t * ldx + i % s.k], expected[i]);
      }
    }
    for (CpuVariant variant : AvailableVariants()) {
      const VariantScope scope(variant);
      Floats dw = start;
      dw.resize(dw.size() + 16, -7.0f);  // what lies behind is left alone
      GemmAccumulateWeightGrad(s.t, s.n, s.k, dy.data(), lddy, x.data(), ldx, dw.data());
      ASSERT_TRUE(SameBits(Slice(dw, 0, s.n * s.k), expected))
          << CpuVariantName(variant) << " " << s.t << "x" << s.n << "x" << s.k;
      ASSERT_EQ(Slice(dw, s.n * s.k, 16), Floats(16, -7.0f));
    }
  }
}

TEST(WeightGrad, IgnoresWhatLiesBetweenRows) {
  const std::int64_t t = 5, n = 3, k = 21, ldx = 30, lddy = 9;
  Floats x(t * ldx, kNaN), dy(t * lddy, kNaN), dw(n * k), expected(n * k);
  const Floats xs = Random(t * k, 1), dys = Random(t * n, 2);
  for (std::int64_t i = 0; i < t * k; ++i) x[i / k * ldx + i % k] = xs[i];
  for (std::int64_t i = 0; i < t * n; ++i) dy[i / n * lddy + i % n] = dys[i];
  GemmAccumulateWeightGrad(t, n, k, dy.data(), lddy, x.data(), ldx, dw.data());
  GemmAccumulateWeightGrad(t, n, k, dys.data(), n, xs.data(), k, expected.data());
  EXPECT_TRUE(SameBits(dw, expected));
}

TEST(BiasGrad, IsOneChainOfAdditionsContinuedOverCalls) {
  const std::int64_t t = 23, n = 37;
  const Floats dy = Random(t * n, 1), start = Random(n, 2);
  Floats expected = start;
  for (std::int64_t i = 0; i < t * n; ++i) expected[i % n] += dy[i];
  ExpectSameBitsInAllVariants([&] {
    Floats dbias = start;
    BiasGrad(10, n, dy.data(), n, dbias.data());
    BiasGrad(t - 10, n, dy.data() + 10 * n, n, dbias.data());
    EXPECT_TRUE(SameBits(dbias, expected));
    return dbias;
  });
}

}  // namespace
}  // namespace thresher::kernels
