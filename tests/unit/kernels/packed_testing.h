#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels::testing {

using Halves = std::vector<std::uint16_t>;

// A packed matrix with its memory, as full as it was made: what is not written shows as NaN.
class Image {
 public:
  Image(std::size_t bytes, WeightType type) : bytes_(bytes, 0xff), type_(type) {}
  std::uint8_t* data() { return bytes_.data(); }
  const std::uint8_t* data() const { return bytes_.data(); }
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }
  PackedMatrix matrix() const { return {bytes_.data(), type_}; }

 private:
  std::vector<std::uint8_t> bytes_;
  WeightType type_;
};

inline Image Packed(WeightType type, std::int64_t n, std::int64_t k, const void* w) {
  Image image(PackedBytes(type, n, k), type);
  PackRows(type, n, k, 0, n, w, image.data());
  return image;
}

inline Image PackedTransposed(WeightType type, std::int64_t n, std::int64_t k, const void* w) {
  Image image(PackedBytes(type, k, n), type);
  PackRowsTransposed(type, n, k, 0, n, w, image.data());
  return image;
}

// The value of bits of kBf16 or kF16, by the definition of the format.
inline float Widen(WeightType type, std::uint16_t bits) {
  if (type == WeightType::kBf16) {
    const std::uint32_t wide = std::uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction != 0 ? kNaN : sign * kInf;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
}

inline Floats Widened(WeightType type, const Halves& halves) {
  Floats values;
  values.reserve(halves.size());
  for (std::uint16_t half : halves) values.push_back(Widen(type, half));
  return values;
}

// n finite values of size below 2.
inline Halves RandomHalves(WeightType type, std::int64_t n, unsigned seed) {
  std::mt19937 engine(seed);
  Halves halves(static_cast<std::size_t>(n));
  for (std::uint16_t& half : halves) {
    const auto bits = static_cast<std::uint16_t>(engine() >> 8);
    const int size = type == WeightType::kBf16 ? 0x3f80 : 0x3c00;  // 1.0
    const int step = type == WeightType::kBf16 ? 0x400 : 0x2000;   // several powers of two below it
    half = static_cast<std::uint16_t>((bits & 0x8000) | (size - step + (bits & (step - 1))));
  }
  return halves;
}

// A random W [n, k].
inline Image RandomImage(WeightType type, std::int64_t n, std::int64_t k, unsigned seed) {
  if (type == WeightType::kF32) return Packed(type, n, k, Random(n * k, seed).data());
  return Packed(type, n, k, RandomHalves(type, n * k, seed).data());
}

}  // namespace thresher::kernels::testing
