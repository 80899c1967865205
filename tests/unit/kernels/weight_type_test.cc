#include "kernels/cpu/weight_type.h"

#include "kernels/cpu/gemm.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;

struct Shape {
  std::int64_t t, n, k;
};

// Few rows in every form, many rows (widened panels) with one and two row blocks; odd K, K beyond a
// chunk, K that ends one past a chunk; panels with missing columns.
constexpr Shape kShapes[] = {{1, 1, 1},    {2, 33, 17},    {3, 130, 24},  {5, 96, 97},
                             {6, 20, 513}, {9, 40, 33},    {12, 65, 600}, {13, 64, 101},
                             {40, 31, 96}, {27, 48, 1025}, {200, 40, 7},  {150, 33, 515}};

class SixteenBitWeights : public ::testing::TestWithParam<WeightType> {};

std::string TypeName(const ::testing::TestParamInfo<WeightType>& info) {
  return WeightTypeName(info.param);
}

TEST_P(SixteenBitWeights, GiveTheBitsOfTheWidenedOnes) {
  for (const Shape& s : kShapes) {
    const Floats x = Random(s.t * s.k, 1), bias = Random(s.n, 3);
    const Halves w = RandomHalves(GetParam(), s.n * s.k, 2);
    const Floats wide = Widened(GetParam(), w);
    const Image packed = Packed(GetParam(), s.n, s.k, w.data());
    const Image packed_wide = Packed(WeightType::kF32, s.n, s.k, wide.data());
    for (CpuVariant variant : AvailableVariants()) {
      const VariantScope scope(variant);
      Floats y(s.t * s.n, kNaN), expected(s.t * s.n, kNaN);
      Gemm(s.t, s.n, s.k, x.data(), s.k, packed.matrix(), bias.data(), y.data(), s.n);
      Gemm(s.t, s.n, s.k, x.data(), s.k, packed_wide.matrix(), bias.data(), expected.data(), s.n);
      EXPECT_TRUE(SameBits(y, expected))
          << CpuVariantName(variant) << " " << s.t << "x" << s.n << "x" << s.k;
    }
  }
}

TEST_P(SixteenBitWeights, EveryValueIsWidenedExactly) {
  // x = 1 and K = 1: y is the weight itself; denormals, infinities and NaN included.
  const std::int64_t n = 65536;
  Halves w(n);
  for (std::int64_t i = 0; i < n; ++i) w[i] = static_cast<std::uint16_t>(i);
  const Floats expected = Widened(GetParam(), w);
  const Image packed = Packed(GetParam(), n, 1, w.data());
  for (CpuVariant variant : AvailableVariants()) {
    const VariantScope scope(variant);
    for (std::int64_t t : {1, 14}) {
      const Floats x(t, 1.0f);
      Floats y(t * n, 1.0f);
      Gemm(t, n, 1, x.data(), 1, packed.matrix(), nullptr, y.data(), n);
      for (std::int64_t i = 0; i < n; ++i) {  // fma(1, -0, +0) is +0
        const float want = expected[i] + 0.0f;
        ASSERT_TRUE(SameBits({y[(t - 1) * n + i]}, {want})) << CpuVariantName(variant) << " " << i;
      }
    }
  }
}

TEST_P(SixteenBitWeights, TransposedGiveTheInputGradient) {
  for (const Shape& s : kShapes) {
    const Floats dy = Random(s.t * s.n, 1);
    const Halves w = RandomHalves(GetParam(), s.n * s.k, 2);
    const Floats wide = Widened(GetParam(), w);
    const Image packed = PackedTransposed(GetParam(), s.n, s.k, w.data());
    const Image packed_wide = PackedTransposed(WeightType::kF32, s.n, s.k, wide.data());
    Floats dx(s.t * s.k), expected(s.t * s.k);
    Gemm(s.t, s.k, s.n, dy.data(), s.n, packed.matrix(), nullptr, dx.data(), s.k);
    Gemm(s.t, s.k, s.n, dy.data(), s.n, packed_wide.matrix(), nullptr, expected.data(), s.k);
    EXPECT_TRUE(SameBits(dx, expected)) << s.t << "x" << s.n << "x" << s.k;
  }
}

class Packing : public ::testing::TestWithParam<WeightType> {};

// Bytes of n x k elements that differ from one another.
std::vector<std::uint8_t> Elements(WeightType type, std::int64_t n, std::int64_t k) {
  std::vector<std::uint8_t> bytes(n * k * WeightBytes(type));
  std::mt19937 engine(7);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(engine());
  return bytes;
}

TEST_P(Packing, PiecesInAnyOrderGiveTheImageOfTheWhole) {
  const WeightType type = GetParam();
  for (const auto& [n, k] : {std::pair{100, 37}, std::pair{33, 8}, std::pair{64, 5}}) {
    const auto w = Elements(type, n, k);
    const std::size_t row = k * WeightBytes(type);
    for (const std::vector<std::int64_t>& cuts :
         {std::vector<std::int64_t>{0, 1, 7, n}, {0, 32, n}, {0, n / 2, n / 2 + 3, n}}) {
      Image pieces(PackedBytes(type, n, k), type), transposed(PackedBytes(type, k, n), type);
      for (std::size_t i = cuts.size() - 1; i > 0; --i) {
        const std::int64_t row0 = cuts[i - 1], rows = cuts[i] - row0;
        PackRows(type, n, k, row0, rows, w.data() + row0 * row, pieces.data());
        PackRowsTransposed(type, n, k, row0, rows, w.data() + row0 * row, transposed.data());
      }
      EXPECT_EQ(pieces.bytes(), Packed(type, n, k, w.data()).bytes());
      EXPECT_EQ(transposed.bytes(), PackedTransposed(type, n, k, w.data()).bytes());
    }
  }
}

TEST_P(Packing, APackedRowIsTheRow) {
  const WeightType type = GetParam();
  const std::int64_t n = 70, k = 33;
  const auto w = Elements(type, n, k);
  const Image packed = Packed(type, n, k, w.data());
  Floats expected(n * k);
  if (type == WeightType::kF32) {
    std::memcpy(expected.data(), w.data(), w.size());
  } else {
    Halves halves(n * k);
    std::memcpy(halves.data(), w.data(), w.size());
    expected = Widened(type, halves);
  }
  for (std::int64_t row : {0, 1, 31, 32, 69}) {
    Floats out(k, 1.0f);
    PackedRow(packed.matrix(), n, k, row, out.data());
    EXPECT_TRUE(SameBits(out, Slice(expected, row * k, k))) << row;
  }
}

TEST_P(Packing, PackedFromIsTheImageOfTheRowsFromThereOn) {
  const WeightType type = GetParam();
  const std::int64_t n = 100, k = 37;
  const auto w = Elements(type, n, k);
  const Image packed = Packed(type, n, k, w.data());
  const Image rest = Packed(type, n - 64, k, w.data() + 64 * k * WeightBytes(type));
  EXPECT_EQ(std::memcmp(PackedFrom(packed.matrix(), k, 64).data, rest.data(), rest.bytes().size()),
            0);
}

INSTANTIATE_TEST_SUITE_P(Types, SixteenBitWeights,
                         ::testing::Values(WeightType::kBf16, WeightType::kF16), TypeName);
INSTANTIATE_TEST_SUITE_P(Types, Packing,
                         ::testing::Values(WeightType::kF32, WeightType::kBf16, WeightType::kF16),
                         TypeName);

}  // namespace
}  // namespace thresher::kernels
