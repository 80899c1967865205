// Conversions into the rows that tensor-core products read.
#include "kernels/cuda/convert_bf16.h"

#include <gtest/gtest.h>

#include "tests/gpu/bf16_testing.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/packed_testing.h"

namespace thresher::kernels::cuda {
namespace {

using gpu::testing::OnDevice;
using Halves = std::vector<std::uint16_t>;

constexpr cudaStream_t kStream = nullptr;

class ConvertBf16 : public gpu::testing::DeviceTest {};

TEST_F(ConvertBf16, RoundsToNearestEvenAndPadsWithZeros) {
  const std::vector<float> x = {1.0f,      0x1.01p0f,  0x1.03p0f, -0x1.010002p0f,
                                0x1p-133f, -0x1p-134f, 3.4e38f,   kernels::testing::kInf,
                                -0.0f,     9.0f};
  const Halves expected = {0x3f80, 0x3f80, 0x3f82, 0xbf81, 0x0001, 0, 0, 0,
                           0x8000, 0x7f80, 0x7f80, 0x8000, 0x4110, 0, 0, 0};
  const OnDevice<float> gx(x);
  const OnDevice<std::uint16_t> y(Halves(16, 0xabab));
  ASSERT_EQ(RoundToBf16(kStream, 2, 5, gx.data(), 5, y.data(), 8), cudaSuccess);
  EXPECT_EQ(y.Read(), expected);
  const OnDevice<float> nans(
      std::vector<float>{kernels::testing::kNaN, -kernels::testing::kNaN, __builtin_nansf("1")});
  ASSERT_EQ(RoundToBf16(kStream, 1, 3, nans.data(), 3, y.data(), 8), cudaSuccess);
  const Halves bits = y.Read();
  for (std::size_t i = 0; i < 3; ++i) EXPECT_GT(bits[i] & 0x7fff, 0x7f80);
}

TEST_F(ConvertBf16, PackedPanelsBecomeRows) {
  for (const auto& [n, k] : {std::pair{1, 1}, {32, 64}, {33, 65}, {70, 131}, {100, 7}}) {
    const Halves w = kernels::testing::RandomHalves(WeightType::kBf16, n * k, 5);
    const auto image = kernels::testing::Packed(WeightType::kBf16, n, k, w.data());
    const std::int64_t ld = Bf16RowStride(k) + 8;
    const OnDevice<std::uint8_t> gimage(image.bytes());
    const OnDevice<std::uint16_t> rows(Halves(static_cast<std::size_t>((n + 1) * ld), 0xabab));
    ASSERT_EQ(UnpackBf16(kStream, n, k, gimage.data(), rows.data(), ld), cudaSuccess);
    const Halves got = rows.Read();
    for (std::int64_t i = 0; i < (n + 1) * ld; ++i) {
      const std::int64_t row = i / ld, column = i % ld;
      const std::uint16_t want = row >= n      ? 0xabab
                                 : column >= k ? 0
                                               : w[static_cast<std::size_t>(row * k + column)];
      ASSERT_EQ(got[static_cast<std::size_t>(i)], want) << row << "," << column << " of " << n;
    }
  }
}

TEST_F(ConvertBf16, RefusesRowsThatDoNotFit) {
  EXPECT_EQ(RoundToBf16(kStream, 1, 9, nullptr, 9, nullptr, 8), cudaErrorInvalidValue);
  EXPECT_EQ(UnpackBf16(kStream, 1, 9, nullptr, nullptr, 8), cudaErrorInvalidValue);
  EXPECT_EQ(RoundToBf16(kStream, 0, 8, nullptr, 8, nullptr, 8), cudaSuccess);
  EXPECT_EQ(UnpackBf16(kStream, 0, 8, nullptr, nullptr, 8), cudaSuccess);
}

}  // namespace
}  // namespace thresher::kernels::cuda
