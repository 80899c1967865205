#include "common/model/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace thresher::model {
namespace {

// The compiler's own conversions are the reference for fp16.
float CompilerWide(std::uint16_t h) { return static_cast<float>(std::bit_cast<_Float16>(h)); }
std::uint16_t CompilerHalf(float x) {
  return std::bit_cast<std::uint16_t>(static_cast<_Float16>(x));
}

TEST(Half, EveryF16WidensAsTheCompilerHasIt) {
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    const float wide = F16ToFloat(static_cast<std::uint16_t>(h));
    const float reference = CompilerWide(static_cast<std::uint16_t>(h));
    if (std::isnan(reference)) {
      EXPECT_TRUE(std::isnan(wide)) << h;
    } else {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(wide), std::bit_cast<std::uint32_t>(reference)) << h;
    }
  }
}

TEST(Half, EveryF16AndBf16ComesBack) {
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    const auto half = static_cast<std::uint16_t>(h);
    if (std::isnan(F16ToFloat(half))) {
      EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(F16ToFloat(half)))));
    } else {
      EXPECT_EQ(FloatToF16(F16ToFloat(half)), half);
    }
    if (std::isnan(Bf16ToFloat(half))) {
      EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(Bf16ToFloat(half)))));
    } else {
      EXPECT_EQ(FloatToBf16(Bf16ToFloat(half)), half);
    }
  }
}

TEST(Half, F16RoundsAsTheCompilerDoes) {
  std::mt19937 random(1);
  const auto check = [](float x) {
    if (std::isnan(x)) return;
    EXPECT_EQ(FloatToF16(x), CompilerHalf(x)) << x;
  };
  for (int i = 0; i < 1000000; ++i)
    check(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  // The range of fp16, and the points halfway between two neighbours.
  for (std::uint32_t h = 0; h < 0x7C00; ++h) {
    const float low = F16ToFloat(static_cast<std::uint16_t>(h));
    const float high = h + 1 == 0x7C00 ? 65536.0f : F16ToFloat(static_cast<std::uint16_t>(h + 1));
    const float middle = low + (high - low) / 2;
    for (float x : {std::nextafter(middle, low), middle, std::nextafter(middle, high)}) {
      check(x);
      check(-x);
    }
  }
}

TEST(Half, Bf16RoundsToTheNearestWithTiesToEven) {
  std::mt19937 random(2);
  for (int i = 0; i < 1000000; ++i) {
    // Every second number is a tie.
    auto bits = static_cast<std::uint32_t>(random());
    if (i % 2 == 0) bits = (bits & 0xFFFF0000) | 0x8000;
    const float x = std::bit_cast<float>(bits);
    const auto low = static_cast<std::uint16_t>(bits >> 16);  // towards zero
    const auto high = static_cast<std::uint16_t>(low + 1);
    if (std::isnan(x) || !std::isfinite(Bf16ToFloat(high))) continue;
    const double below = std::abs(double{x} - Bf16ToFloat(low));
    const double above = std::abs(double{x} - Bf16ToFloat(high));
    const auto even = low % 2 == 0 ? low : high;
    EXPECT_EQ(FloatToBf16(x), below < above ? low : above < below ? high : even) << x;
  }
  EXPECT_EQ(FloatToBf16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(FloatToBf16(-std::numeric_limits<float>::infinity()), 0xFF80);
}

}  // namespace
}  // namespace thresher::model
