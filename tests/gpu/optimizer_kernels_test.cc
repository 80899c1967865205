// What an optimiser's step is made of, on a device: bit for bit what the CPU gives.
#include <gtest/gtest.h>

#include <bit>

#include "common/model/element_scan.h"
#include "kernels/cpu/square_sum.h"
#include "kernels/cuda/adamw.h"
#include "kernels/cuda/pack_weights.h"
#include "kernels/cuda/square_sums.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/packed_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using gpu::testing::OnDevice;

constexpr cudaStream_t kStream = nullptr;
constexpr WeightType kTypes[] = {WeightType::kF32, WeightType::kBf16, WeightType::kF16};

class OptimizerKernels : public gpu::testing::DeviceTest {};

// Every exponent, both signs: zeros, denormals, infinities and NaNs among them.
Floats AnyBits(std::int64_t n, unsigned seed) {
  std::mt19937 engine(seed);
  Floats values = {0.0f, -0.0f, 0x1p-149f, -0x1p-149f, 0x1p-126f, 3.4e38f, -3.4e38f};
  while (static_cast<std::int64_t>(values.size()) < n) {
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(engine())));
  }
  values.resize(static_cast<std::size_t>(n));
  return values;
}

// The values where a type's rounding changes: halves of its steps, and their neighbours.
Floats Borders(WeightType type) {
  Floats values = AnyBits(5000, 3);
  if (type == WeightType::kF32) return values;
  const int dropped = type == WeightType::kBf16 ? 16 : 13;
  for (std::uint32_t top = 0; top < (1u << 16); top += 37) {
    for (int around : {-1, 0, 1}) {
      values.push_back(std::bit_cast<float>((top << 16 | 1u << (dropped - 1)) +
                                            static_cast<std::uint32_t>(around)));
    }
  }
  for (float at : {65504.0f, 65519.996f, 65520.0f, 0x1p-14f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f}) {
    values.insert(values.end(), {at, -at, std::nextafter(at, 0.0f), std::nextafter(at, kInf)});
  }
  return values;
}

TEST_F(OptimizerKernels, AdamWHasTheBitsOfTheCpu) {
  // More elements than all threads together, and of few blocks.
  for (std::int64_t n : {1, 127, 128, 129, 70001}) {
    Floats weights = Random(n, 1, 2.0f), m = Random(n, 2, 1e-3f), v = Random(n, 3, 1e-6f);
    for (float& value : v) value = std::abs(value);
    // Steps of zeros, denormals and large values; a second moment that overflows.
    Floats gradient = AnyBits(n, 4);
    for (float& g : gradient) {
      if (!std::isfinite(g)) g = -0.0f;
    }
    const OnDevice<float> gw(weights), gm(m), gv(v), gg(gradient);
    for (float keep : {1.0f, 0.9990001f}) {
      const AdamWFactors factors{
          0.9f, 0.95f, static_cast<float>(1.0 - 0.9), 0.05f, 0.37f, 3.3e-4f, 4.47f, 1e-8f, keep};
      AdamWUpdate(n, factors, gradient.data(), weights.data(), m.data(), v.data());
      ASSERT_EQ(cuda::AdamWUpdate(kStream, n, factors, gg.data(), gw.data(), gm.data(), gv.data()),
                cudaSuccess);
      EXPECT_TRUE(SameBits(gw.Read(), weights)) << n;
      EXPECT_TRUE(SameBits(gm.Read(), m)) << n;
      EXPECT_TRUE(SameBits(gv.Read(), v)) << n;
    }
  }
  EXPECT_EQ(cuda::AdamWUpdate(kStream, 0, {}, nullptr, nullptr, nullptr, nullptr), cudaSuccess);
}

std::vector<double> SquareSumsOf(const Floats& x, std::int64_t block) {
  const auto n = static_cast<std::int64_t>(x.size());
  std::vector<double> sums;
  for (std::int64_t at = 0; at < n; at += block) {
    sums.push_back(SquareSum(std::min(block, n - at), x.data() + at));
  }
  return sums;
}

TEST_F(OptimizerKernels, SquareSumsAreChainsOverTheirBlocks) {
  struct Shape {
    std::int64_t n, block;
  };
  // Blocks' edges, tiles' edges, more blocks than a warp has lanes.
  for (const Shape& s : {Shape{1, 65536}, Shape{65535, 65536}, Shape{65536, 65536},
                         Shape{65537, 65536}, Shape{3 * 65536 + 33, 65536}, Shape{10000, 100},
                         Shape{4097, 64}, Shape{7, 1}, Shape{31, 33}}) {
    Floats x = Random(s.n, 5);
    for (std::size_t i = 0; i < x.size(); ++i) {  // whose sum depends on the order
      x[i] = i % 19 == 0 ? -0.0f : std::ldexp(x[i], static_cast<int>(i * 7 % 60) - 30);
    }
    const std::vector<double> expected = SquareSumsOf(x, s.block);
    const OnDevice<float> gx(x);
    const OnDevice<double> sums(std::vector<double>(expected.size(), -1.0));
    ASSERT_EQ(cuda::SquareSums(kStream, s.n, s.block, gx.data(), sums.data()), cudaSuccess);
    EXPECT_EQ(sums.Read(), expected) << s.n << " by " << s.block;
  }
  EXPECT_EQ(cuda::SquareSums(kStream, 0, 65536, nullptr, nullptr), cudaSuccess);
  EXPECT_EQ(cuda::SquareSums(kStream, 5, 0, nullptr, nullptr), cudaErrorInvalidValue);
}

TEST_F(OptimizerKernels, SquareSumsShowWhatIsNotFiniteAndKeepWhatIsSmall) {
  Floats x(200, 0x1p-149f);
  x[70] = kInf, x[130] = kNaN, x[199] = 3e38f;
  const OnDevice<float> gx(x);
  const OnDevice<double> sums(std::vector<double>(4, -1.0));
  ASSERT_EQ(cuda::SquareSums(kStream, 200, 60, gx.data(), sums.data()), cudaSuccess);
  const auto got = sums.Read();
  EXPECT_EQ(got[0], 60 * 0x1p-298);
  EXPECT_EQ(got[1], static_cast<double>(kInf));
  EXPECT_TRUE(std::isnan(got[2]));
  EXPECT_EQ(got[3], SquareSum(20, x.data() + 180));
}

TEST_F(OptimizerKernels, WeightsAreRoundedAsOnTheCpu) {
  for (WeightType type : kTypes) {
    const Floats x = Borders(type);
    const std::string narrow = model::Narrow(type, x);
    Floats wide(x.size());
    model::RoundTo(type, x, wide.data());
    const auto n = static_cast<std::int64_t>(x.size());
    const OnDevice<float> gx(x);
    const OnDevice<char> gnarrow(std::vector<char>(narrow.size(), 'x'));
    ASSERT_EQ(cuda::NarrowWeights(kStream, type, n, gx.data(), gnarrow.data()), cudaSuccess);
    const auto bytes = gnarrow.Read();
    EXPECT_EQ(std::string(bytes.begin(), bytes.end()), narrow) << WeightTypeName(type);
    ASSERT_EQ(cuda::RoundWeights(kStream, type, n, gx.data(), gx.data()), cudaSuccess);
    EXPECT_TRUE(SameBits(gx.Read(), wide)) << WeightTypeName(type);
  }
  EXPECT_EQ(cuda::NarrowWeights(kStream, WeightType::kF16, 0, nullptr, nullptr), cudaSuccess);
  EXPECT_EQ(cuda::RoundWeights(kStream, WeightType::kF16, 0, nullptr, nullptr), cudaSuccess);
}

TEST_F(OptimizerKernels, PanelsAreThoseOfTheCpu) {
  struct Shape {
    std::int64_t n, k;
  };
  for (const Shape& s : {Shape{1, 1}, Shape{32, 64}, Shape{33, 65}, Shape{70, 31}, Shape{5, 200},
                         Shape{96, 128}, Shape{130, 129}}) {
    const Floats w = AnyBits(s.n * s.k, 9);
    for (WeightType type : kTypes) {
      const std::string narrow = model::Narrow(type, w);
      Floats wide(w.size());
      model::RoundTo(type, w, wide.data());
      const Image image = Packed(type, s.n, s.k, narrow.data());
      const Image transposed = PackedTransposed(WeightType::kF32, s.n, s.k, wide.data());
      const OnDevice<float> gw(w);
      const OnDevice<std::uint8_t> gimage(std::vector<std::uint8_t>(image.bytes().size(), 0xff)),
          gtransposed(std::vector<std::uint8_t>(transposed.bytes().size(), 0xff));
      ASSERT_EQ(cuda::PackPanels(kStream, type, s.n, s.k, gw.data(), gimage.data()), cudaSuccess);
      ASSERT_EQ(cuda::PackPanelsTransposed(kStream, type, s.n, s.k, gw.data(),
                                           reinterpret_cast<float*>(gtransposed.data())),
                cudaSuccess);
      EXPECT_EQ(gimage.Read(), image.bytes()) << WeightTypeName(type) << " " << s.n << "x" << s.k;
      EXPECT_EQ(gtransposed.Read(), transposed.bytes()) << WeightTypeName(type) << " " << s.n;
    }
  }
}

}  // namespace
}  // namespace thresher::kernels
