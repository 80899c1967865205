#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm.h"

namespace thresher::kernels::testing {

inline constexpr double kUnit = 0x1p-24;  // unit roundoff of float
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInf = std::numeric_limits<float>::infinity();

using Floats = std::vector<float>;

// n values in [-scale, scale), the same on every platform for a seed.
inline Floats Random(std::int64_t n, unsigned seed, float scale = 1.0f) {
  std::mt19937 engine(seed);
  Floats values(static_cast<std::size_t>(n));
  for (float& value : values) {
    value = scale * (static_cast<float>(engine() >> 8) * 0x1p-23f - 1.0f);
  }
  return values;
}

// Equal in every bit; NaNs count as equal to NaNs (their payload is promised by nobody).
inline bool SameBits(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) return false;
  }
  return true;
}

inline std::vector<CpuVariant> AvailableVariants() {
  std::vector<CpuVariant> variants;
  for (CpuVariant v : kCpuVariants) {
    if (CpuVariantAvailable(v)) variants.push_back(v);
  }
  return variants;
}

// fp32 images, as vectors of floats.
inline std::size_t PackedFloats(std::int64_t n, std::int64_t k) {
  return PackedBytes(WeightType::kF32, n, k) / sizeof(float);
}
inline void PackF32(std::int64_t n, std::int64_t k, const float* w, float* packed) {
  PackRows(WeightType::kF32, n, k, 0, n, w, packed);
}
inline void PackF32Transposed(std::int64_t n, std::int64_t k, const float* w, float* packed) {
  PackRowsTransposed(WeightType::kF32, n, k, 0, n, w, packed);
}

// Restores the process's best variant.
class VariantScope {
 public:
  explicit VariantScope(CpuVariant variant) { SetCpuVariant(variant); }
  ~VariantScope() { SetCpuVariant(BestCpuVariant()); }
};

// Restores kFp32.
class KernelSetScope {
 public:
  explicit KernelSetScope(KernelSet set) { SetKernelSet(set); }
  ~KernelSetScope() { SetKernelSet(KernelSet::kFp32); }
};

// `compute` gives the same bits under every available variant.
inline void ExpectSameBitsInAllVariants(const std::function<Floats()>& compute) {
  const Floats expected = [&] {
    const VariantScope scope(CpuVariant::kPortable);
    return compute();
  }();
  for (CpuVariant variant : AvailableVariants()) {
    const VariantScope scope(variant);
    EXPECT_TRUE(SameBits(compute(), expected)) << CpuVariantName(variant);
  }
}

inline Floats Slice(const Floats& a, std::int64_t begin, std::int64_t count) {
  return Floats(a.begin() + begin, a.begin() + begin + count);
}

inline void Append(Floats* to, const Floats& from) {
  to->insert(to->end(), from.begin(), from.end());
}

}  // namespace thresher::kernels::testing
