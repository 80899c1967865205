#include <bit>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/native_check.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"

#if defined(__x86_64__)
#include "kernels/cpu/cpu_features.h"
#endif

// The kernel sets of bf16 products against their definitions in gemm.h.
namespace thresher::kernels {
namespace {

using namespace testing;

// More bits than any sum here needs: 113.
#if defined(__x86_64__)
using Wide = __float128;
#else
using Wide = long double;
#endif

float Flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

// Rounded to 24 bits as if exponents had no end, and zero if that is below the normal numbers.
float RoundAndFlush(Wide x) {
  const Wide magnitude = x < 0 ? -x : x;
  const Wide half_below_normal = Wide(0x1p-126) - Wide(0x1p-151);
  if (magnitude < half_below_normal) return x < 0 ? -0.0f : 0.0f;
  return static_cast<float>(x);
}

float FlushedFma(float a, float b, float c) {
  a = Flush(a), b = Flush(b), c = Flush(c);
  const float plain = std::fma(a, b, c);
  if (!std::isfinite(plain) || plain == 0.0f) {
    // Zeros (and their signs), infinities and NaN are fma's, but for an underflow.
    if (plain != 0.0f || a == 0.0f || b == 0.0f || Wide(a) * Wide(b) + Wide(c) == 0) return plain;
  }
  return RoundAndFlush(Wide(a) * Wide(b) + Wide(c));
}

float FlushedAdd(float a, float b) { return Flush(Flush(a) + Flush(b)); }

float RoundedToBf16(float x) {
  auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return x;
  if (std::fabs(x) < 0x1p-126f) return std::copysign(0.0f, x);
  bits += 0x7fff + (bits >> 16 & 1);
  return std::bit_cast<float>(bits & 0xffff0000u);
}

// One element by the definition; x and w are its row and column, an odd K already padded.
float DotElement(const Floats& x, const Floats& w, float bias) {
  float total = 0;
  for (std::size_t k0 = 0; k0 < x.size(); k0 += kGemmKChunk) {
    float chain = 0;
    for (std::size_t k = k0; k < std::min(x.size(), k0 + kGemmKChunk); k += 2) {
      chain = FlushedFma(x[k + 1], w[k + 1], chain);
      chain = FlushedFma(x[k], w[k], chain);
    }
    total = k0 == 0 ? chain : FlushedAdd(total, chain);
  }
  return FlushedAdd(total, bias);
}

float AmxElement(const Floats& x, const Floats& w, float bias) {
  float total = 0;
  for (std::size_t k0 = 0; k0 < x.size(); k0 += 32) {
    float even = 0, odd = 0;
    for (std::size_t k = k0; k < k0 + 32; k += 2) {
      const bool there = k < x.size();
      even = FlushedFma(there ? x[k] : 0.0f, there ? w[k] : 0.0f, even);
      odd = FlushedFma(there ? x[k + 1] : 0.0f, there ? w[k + 1] : 0.0f, odd);
    }
    total = FlushedAdd(total, FlushedAdd(even, odd));
  }
  return FlushedAdd(total, bias);
}

struct Shape {
  std::int64_t t, n, k;
};
constexpr Shape kShapes[] = {{1, 1, 1},    {1, 40, 7},   {2, 70, 64},   {3, 33, 31},
                             {4, 96, 97},  {6, 20, 513}, {9, 40, 33},   {12, 65, 8},
                             {13, 31, 70}, {40, 31, 96}, {27, 34, 1027}};

// A product whose values lie around 2^x_exponent and 2^w_exponent.
struct Problem {
  Shape s;
  Floats x, bias;
  Halves w;
  Problem(const Shape& shape, int x_exponent, int w_exponent)
      : s(shape),
        x(Random(s.t * s.k, 1, std::ldexp(1.0f, x_exponent))),
        bias(Random(s.n, 3, std::ldexp(1.0f, std::max(-140, x_exponent + w_exponent)))) {
    const Floats values = Random(s.n * s.k, 2, std::ldexp(1.0f, w_exponent));
    for (float value : values) {
      w.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16));
    }
  }
  Floats Product(KernelSet set, WeightType type = WeightType::kBf16) const {
    const KernelSetScope scope(set);
    const Image packed = Packed(type, s.n, s.k, w.data());
    Floats y(s.t * s.n, kNaN);
    Gemm(s.t, s.n, s.k, x.data(), s.k, packed.matrix(), bias.data(), y.data(), s.n);
    return y;
  }
  Floats Expected(KernelSet set) const {
    const Floats wide = Widened(WeightType::kBf16, w);
    Floats y;
    for (std::int64_t t = 0; t < s.t; ++t) {
      for (std::int64_t n = 0; n < s.n; ++n) {
        Floats row = Slice(x, t * s.k, s.k), column = Slice(wide, n * s.k, s.k);
        for (float& value : row) value = RoundedToBf16(value);
        row.resize((s.k + 1) / 2 * 2, 0.0f);
        column.resize(row.size(), 0.0f);
        y.push_back(set == KernelSet::kBf16Dot ? DotElement(row, column, bias[n])
                                               : AmxElement(row, column, bias[n]));
      }
    }
    return y;
  }
};

class Bf16Sets : public ::testing::TestWithParam<KernelSet> {};

TEST_P(Bf16Sets, FollowTheirDefinitionInEveryVariant) {
  // Ordinary values; products around the smallest normal number; denormals on either side;
  // overflow.
  for (const auto& [x_exponent, w_exponent] :
       {std::pair{0, 0}, {-66, -62}, {-127, 0}, {2, -128}, {70, 60}}) {
    for (const Shape& shape : kShapes) {
      const Problem problem(shape, x_exponent, w_exponent);
      const Floats expected = problem.Expected(GetParam());
      for (CpuVariant variant : AvailableVariants()) {
        const VariantScope scope(variant);
        EXPECT_TRUE(SameBits(problem.Product(GetParam()), expected))
            << CpuVariantName(variant) << " " << shape.t << "x" << shape.n << "x" << shape.k
            << " at " << x_exponent << ", " << w_exponent;
      }
    }
  }
}

TEST_P(Bf16Sets, FlushWhatIsTinyAfterRoundingAndNotWhatRoundsUp) {
  // c + a b with c = 2^-126 and small negative products: results just below the smallest normal.
  for (int exponent = -126; exponent >= -133; --exponent) {
    for (int steps = 1; steps < 8; ++steps) {
      const Floats x = {1.0f, 1.0f};
      const Halves w = {0x0080,  // 2^-126
                        static_cast<std::uint16_t>(
                            0x8000 | (exponent < -126 ? 1 << (exponent + 133) : 0x0080 + steps))};
      const Image packed = Packed(WeightType::kBf16, 1, 2, w.data());
      const KernelSetScope set(GetParam());
      ExpectSameBitsInAllVariants([&] {
        Floats y(1);
        Gemm(1, 1, 2, x.data(), 2, packed.matrix(), nullptr, y.data(), 1);
        return y;
      });
    }
  }
  // 2^-126 (1 - 2^-26) and (1 - 2^-24): the first rounds up to a normal number, the second does
  // not.
  for (const auto& [delta, normal] : {std::pair{0x1p-152, true}, {0x1p-150, false}}) {
    const Floats x = {0x1p-63f, -static_cast<float>(delta * 0x1p70)};
    const Halves w = {0x2000,   // 2^-63
                      0x1c80};  // 2^-70
    ASSERT_EQ(Widen(WeightType::kBf16, w[0]), 0x1p-63f);
    ASSERT_EQ(Widen(WeightType::kBf16, w[1]), 0x1p-70f);
    if (GetParam() == KernelSet::kBf16Amx) continue;  // its products are summed, not chained
    const Floats row = {x[1], x[0], 0.0f, 0.0f};  // the odd value is first: 2^-126, then the rest
    const Halves column = {w[1], w[0], 0, 0};
    const Image packed = Packed(WeightType::kBf16, 1, 4, column.data());
    const KernelSetScope set(GetParam());
    for (CpuVariant variant : AvailableVariants()) {
      const VariantScope scope(variant);
      Floats y(1);
      Gemm(1, 1, 4, row.data(), 4, packed.matrix(), nullptr, y.data(), 1);
      EXPECT_EQ(y[0], normal ? 0x1p-126f : 0.0f) << CpuVariantName(variant) << " " << delta;
    }
  }
}

TEST_P(Bf16Sets, AreRowPure) {
  const KernelSetScope set(GetParam());
  const std::int64_t n = 70, k = 611;
  const Halves w = RandomHalves(WeightType::kBf16, n * k, 1);
  const Image packed = Packed(WeightType::kBf16, n, k, w.data());
  const Floats row = Random(k, 2);
  for (CpuVariant variant : AvailableVariants()) {
    const VariantScope scope(variant);
    Floats alone(n);
    Gemm(1, n, k, row.data(), k, packed.matrix(), nullptr, alone.data(), n);
    for (std::int64_t t = 1; t <= 70; t += t < 16 ? 1 : 13) {
      Floats x = Random(t * k, 100 + t);
      if (t % 3 == 0) std::fill(x.begin(), x.end(), kNaN);
      const std::int64_t place = t / 2;
      std::copy(row.begin(), row.end(), x.begin() + place * k);
      Floats y(t * n);
      Gemm(t, n, k, x.data(), k, packed.matrix(), nullptr, y.data(), n);
      ASSERT_TRUE(SameBits(Slice(y, place * n, n), alone)) << CpuVariantName(variant) << " " << t;
    }
  }
}

TEST_P(Bf16Sets, LeaveOtherWeightsAsTheyAre) {
  const Problem problem({14, 40, 600}, 0, 0);
  EXPECT_TRUE(SameBits(problem.Product(GetParam(), WeightType::kF16),
                       problem.Product(KernelSet::kFp32, WeightType::kF16)));
  EXPECT_FALSE(SameBits(problem.Product(GetParam()), problem.Product(KernelSet::kFp32)));
}

INSTANTIATE_TEST_SUITE_P(Sets, Bf16Sets,
                         ::testing::Values(KernelSet::kBf16Dot, KernelSet::kBf16Amx),
                         [](const auto& info) {
                           return info.param == KernelSet::kBf16Dot ? "dot" : "amx";
                         });

TEST(NativeCheck, TellsProductsApart) {
  const KernelTable& table = PortableTable();
  EXPECT_TRUE(SameProducts(table.gemm_bf16_dot, table.gemm_bf16_dot));
  EXPECT_FALSE(SameProducts(table.gemm_bf16_dot, table.gemm_bf16_amx));
  // Right but for the bias, which is small and often denormal.
  const auto unbiased = [](std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                           std::int64_t ldx, const GemmWeights& w, const float*, float* y,
                           std::int64_t ldy) {
    PortableTable().gemm_bf16_dot(t, n, k, x, ldx, w, nullptr, y, ldy);
  };
  EXPECT_FALSE(SameProducts(table.gemm_bf16_dot, unbiased));
}

#if defined(__x86_64__)
TEST(NativeBf16, TheDotInstructionGivesTheDefinedBits) {
  if (!CpuHasAvx512Bf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  EXPECT_TRUE(SameProducts(Avx512Bf16Table().gemm_bf16_dot, PortableTable().gemm_bf16_dot));
  EXPECT_TRUE(CpuVariantAvailable(CpuVariant::kAvx512Bf16));
}

TEST(NativeBf16, TheTileInstructionGivesTheDefinedBits) {
  if (!CpuHasAvx512Bf16() || !CpuHasAmxBf16()) {
    GTEST_SKIP() << "this CPU has no AMX-BF16, or the system does not allow it";
  }
  EXPECT_TRUE(SameProducts(AmxTable().gemm_bf16_amx, PortableTable().gemm_bf16_amx));
  EXPECT_TRUE(CpuVariantAvailable(CpuVariant::kAmx));
}
#endif

}  // namespace
}  // namespace thresher::kernels
