#include "kernels/cpu/native_check.h"

#include <cstring>
#include <vector>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm.h"

namespace thresher::kernels {
namespace {

// Bits from a linear congruence (Knuth's MMIX constants).
class Bits {
 public:
  explicit Bits(std::uint64_t seed) : state_(seed) {}
  std::uint32_t Next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state_ >> 32);
  }

 private:
  std::uint64_t state_;
};

// A float with an exponent of `span` values from `lowest` on and any sign and fraction.
std::uint32_t FloatBits(Bits& bits, std::uint32_t lowest, std::uint32_t span) {
  const std::uint32_t exponent = lowest + bits.Next() % span;
  return (bits.Next() & 0x807fffffu) | exponent << 23;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != a[i] && b[i] != b[i]) continue;  // which NaN is promised by nobody
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) return false;
  }
  return true;
}

// Exponents of x and of the weights.
struct Range {
  std::uint32_t x_lowest, x_span, w_lowest, w_span;
};
constexpr Range kRanges[] = {
    {120, 14, 120, 14},  // ordinary sums, with cancellation
    {40, 12, 72, 12},    // products around 2^-126
    {0, 3, 126, 3},      // denormals of x
    {126, 3, 0, 3},      // denormals of w
    {180, 12, 188, 12},  // overflow, then infinity less infinity
    {1, 254, 1, 254},    // anything
};

bool SameProduct(Bf16Product a, Bf16Product b, const Range& range, std::int64_t t, std::int64_t k) {
  const std::int64_t n = 64;
  Bits bits(static_cast<std::uint64_t>(t * 1000 + k) * 64 + range.x_lowest);
  std::vector<float> x(static_cast<std::size_t>(t * k)), bias(static_cast<std::size_t>(n));
  for (float& value : x) {
    const std::uint32_t word = FloatBits(bits, range.x_lowest, range.x_span);
    std::memcpy(&value, &word, sizeof value);
  }
  for (float& value : bias) value = static_cast<float>(bits.Next() % 64) * 0x1p-130f;
  std::vector<std::uint16_t> w(static_cast<std::size_t>(n * k));
  for (auto& value : w) {
    value = static_cast<std::uint16_t>(FloatBits(bits, range.w_lowest, range.w_span) >> 16);
  }
  std::vector<std::uint32_t> packed(PackedBytes(WeightType::kBf16, n, k) / 4);
  PackRows(WeightType::kBf16, n, k, 0, n, w.data(), packed.data());
  const GemmWeights weights = WeightsFrom({packed.data(), WeightType::kBf16}, k, 0);
  std::vector<float> ya(static_cast<std::size_t>(t * n)), yb(ya.size());
  a(t, n, k, x.data(), k, weights, bias.data(), ya.data(), n);
  b(t, n, k, x.data(), k, weights, bias.data(), yb.data(), n);
  return SameBits(ya, yb);
}

}  // namespace

bool SameProducts(Bf16Product a, Bf16Product b) {
  const ScopedFpEnv env;
  for (const Range& range : kRanges) {
    for (std::int64_t t : {1, 3, 33}) {
      for (std::int64_t k : {1, 2, 31, 64, 515}) {
        if (!SameProduct(a, b, range, t, k)) return false;
      }
    }
  }
  return true;
}

}  // namespace thresher::kernels
