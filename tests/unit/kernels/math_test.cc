#include "kernels/cpu/math.h"

#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;

// Distance of y to the exact value in units of the last place of the float nearest to it.
double UlpError(float y, double exact) {
  int exponent;
  std::frexp(exact, &exponent);
  const double ulp = std::ldexp(1.0, std::max(exponent - 24, -149));
  return std::fabs(static_cast<double>(y) - exact) / ulp;
}

// Every 97th float of the bit range [first, last]: dense, and hits every exponent and low bit.
Floats SampleBits(std::uint32_t first, std::uint32_t last) {
  Floats x;
  for (std::uint64_t bits = first; bits <= last; bits += 97) {
    const std::uint32_t word = static_cast<std::uint32_t>(bits);
    float value;
    std::memcpy(&value, &word, sizeof value);
    x.push_back(value);
  }
  return x;
}

TEST(Exp, IsWithinTwoUlpOverItsWholeRange) {
  for (std::uint32_t sign : {0u, 0x80000000u}) {
    const Floats x = SampleBits(sign | 0x2f000000u, sign | 0x42d00000u);  // 1e-10 .. 104
    Floats y(x.size());
    Exp(static_cast<std::int64_t>(x.size()), x.data(), y.data());
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(static_cast<double>(x[i]));
      if (exact > std::numeric_limits<float>::max()) continue;
      worst = std::max(worst, UlpError(y[i], exact));
    }
    EXPECT_LE(worst, 2.0) << "sign " << sign;
  }
}

TEST(Exp, HasExactSpecialValues) {
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-0.0f), 1.0f);
  EXPECT_EQ(Exp(-kInf), 0.0f);
  EXPECT_FALSE(std::signbit(Exp(-kInf)));
  EXPECT_EQ(Exp(-103.98f), 0.0f);
  EXPECT_GT(Exp(-103.9f), 0.0f);
  EXPECT_EQ(Exp(-3e38f), 0.0f);
  EXPECT_EQ(Exp(kInf), kInf);
  EXPECT_EQ(Exp(88.73f), kInf);
  EXPECT_LT(Exp(88.722f), kInf);
  EXPECT_TRUE(std::isnan(Exp(kNaN)));
}

TEST(Log, IsWithinTwoUlpForPositiveFloatsAndDenormals) {
  const Floats x = SampleBits(1u, 0x7f7fffffu);
  Floats y(x.size());
  Log(static_cast<std::int64_t>(x.size()), x.data(), y.data());
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    worst = std::max(worst, UlpError(y[i], std::log(static_cast<double>(x[i]))));
  }
  EXPECT_LE(worst, 2.0);
}

TEST(Log, HasExactSpecialValues) {
  EXPECT_EQ(Log(1.0f), 0.0f);
  EXPECT_FALSE(std::signbit(Log(1.0f)));
  EXPECT_EQ(Log(0.0f), -kInf);
  EXPECT_EQ(Log(-0.0f), -kInf);
  EXPECT_EQ(Log(kInf), kInf);
  EXPECT_TRUE(std::isnan(Log(-1.0f)));
  EXPECT_TRUE(std::isnan(Log(-kInf)));
  EXPECT_TRUE(std::isnan(Log(kNaN)));
}

TEST(Math, ArrayFormsAgreeInAllVariantsAndWithScalarFormsInAnyPlace) {
  Floats x = Random(1003, 1, 110.0f);
  Append(&x, {0.0f, -0.0f, 1.0f, kInf, -kInf, kNaN, 1e-40f, -1e-40f, 1e-38f, 3e38f, -3e38f});
  ExpectSameBitsInAllVariants([&] {
    Floats e(x.size()), l(x.size());
    Exp(static_cast<std::int64_t>(x.size()), x.data(), e.data());
    Log(static_cast<std::int64_t>(x.size()), x.data(), l.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_TRUE(SameBits({e[i], l[i]}, {Exp(x[i]), Log(x[i])})) << x[i];
    }
    Append(&e, l);
    return e;
  });
}

TEST(Math, ArrayFormsDoNotWriteBeyondN) {
  for (CpuVariant variant : AvailableVariants()) {
    const VariantScope scope(variant);
    for (std::int64_t n : {0, 1, 7, 8, 9, 15, 17}) {
      Floats x(32, 1.0f), y(32, -5.0f);
      Exp(n, x.data(), y.data());
      for (std::int64_t i = n; i < 32; ++i) ASSERT_EQ(y[i], -5.0f) << n;
    }
  }
}

TEST(Math, ReciprocalIsCorrectlyRoundedAndRsqrtNearly) {
  for (float x : Random(1000, 2, 50.0f)) {
    EXPECT_EQ(Reciprocal(x), 1.0f / x);
    const float a = std::fabs(x) + 1e-3f;
    EXPECT_LE(UlpError(Rsqrt(a), 1.0 / std::sqrt(static_cast<double>(a))), 1.5);
  }
}

}  // namespace
}  // namespace thresher::kernels
