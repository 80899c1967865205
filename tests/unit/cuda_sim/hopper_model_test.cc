// The simulated device's copies, mbarriers and matrix unit: that layouts are those of the PTX ISA,
// and that each misuse it says it catches is caught.
#include <gtest/gtest.h>

#include <cstring>
#include <utility>
#include <vector>

#include "kernels/cuda/hopper.cuh"

namespace thresher::kernels {
namespace {

using hopper::CopyBox, hopper::Fragment, hopper::Mbarrier, hopper::TensorMap;

// A bf16 number for a small integer.
std::uint16_t Bits(int value) {
  const auto wide = static_cast<float>(value);
  std::uint32_t bits;
  std::memcpy(&bits, &wide, sizeof bits);
  return static_cast<std::uint16_t>(bits >> 16);
}

// A bf16 matrix on the device, whose value (r, c) is value(r, c), and its map.
class Matrix {
 public:
  template <class F>
  Matrix(int rows, int columns, F value) : rows_(rows), columns_(columns) {
    std::vector<std::uint16_t> host;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) host.push_back(Bits(value(r, c)));
    }
    EXPECT_EQ(cudaMalloc(&data_, host.size() * 2), cudaSuccess);
    cudaMemcpy(data_, host.data(), host.size() * 2, cudaMemcpyHostToDevice);
  }
  ~Matrix() { cudaFree(data_); }
  TensorMap Map(int box_rows) const {
    TensorMap map;
    const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns_), static_cast<cuuint64_t>(rows_)};
    const cuuint64_t strides[] = {static_cast<cuuint64_t>(columns_) * 2};
    const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows)}, every[] = {1, 1};
    EXPECT_EQ(
        hopper::EncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, data_, sizes, strides, box,
                            every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                            CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
        CUDA_SUCCESS);
    return map;
  }

 private:
  int rows_, columns_;
  std::uint16_t* data_ = nullptr;
};

template <class T>
class Result {
 public:
  explicit Result(std::size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&data_, count * sizeof(T)), cudaSuccess);
  }
  ~Result() { cudaFree(data_); }
  T* data() const { return data_; }
  std::vector<T> Read() const {
    std::vector<T> host(count_);
    EXPECT_EQ(cudaMemcpy(host.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return host;
  }

 private:
  std::size_t count_;
  T* data_ = nullptr;
};

// What goes wrong in OneProduct.
enum class Fault {
  kNone,
  kNoInit,
  kTooFewBytes,
  kTooManyBytes,
  kWrongParity,
  kNoWait,
  kTileUnaligned,
  kDescriptorUnaligned,
  kBaseOffset,
  kWrittenWithoutFence,
  kWrittenWithFence,
  kNoFence,
  kThreadsDiffer,
  kThreadMissing,
  kTouchedEarly,
  kNotSettled,
  kNotAwaited,
  kOverwrittenEarly,
  kCopyLeftBehind,
  kTouchedBetween,
};

// D [64, 8] = A B^T of the tile A [64, 64] at `map`'s (0, 0) and its own first 8 rows.
void OneProduct(TensorMap map, Fault fault, float* out) {
  const auto is = [fault](Fault f) { return fault == f; };
  unsigned char* tile = hopper::AlignTile(simt::SharedMemory<unsigned char>());
  auto* barrier = reinterpret_cast<Mbarrier*>(tile + 2 * 8192);
  const bool first = threadIdx.x == 0;
  if (first && !is(Fault::kNoInit)) hopper::Init(barrier, 1);
  hopper::FenceInit();
  __syncthreads();
  if (first) {
    hopper::ArriveExpecting(barrier, is(Fault::kTooFewBytes)    ? 4096
                                     : is(Fault::kTooManyBytes) ? 8208
                                                                : 8192);
    CopyBox(tile + (is(Fault::kTileUnaligned) ? 64 : 0), &map, barrier, 0, 0);
  }
  if (!is(Fault::kNoWait)) hopper::Wait(barrier, is(Fault::kWrongParity) ? 1 : 0);
  if (is(Fault::kWrittenWithoutFence) || is(Fault::kWrittenWithFence)) {
    if (first) {
      tile[3] ^= 1;  // the exponent of value (0, 1)
      if (is(Fault::kWrittenWithFence)) hopper::FenceProxy();
    }
    __syncthreads();
  }
  const std::uint32_t at = hopper::SharedAddress(tile);
  std::uint64_t a =
      hopper::TileDescriptor(at + (is(Fault::kDescriptorUnaligned) ? 128 : 0), 16, 1024);
  if (is(Fault::kBaseOffset)) a |= std::uint64_t{1} << 49;
  const std::uint64_t b = hopper::TileDescriptor(at, 16, 1024);
  if (is(Fault::kThreadMissing) && threadIdx.x >= 96) return;
  Fragment<8> sums;
  if (!is(Fault::kNoFence)) hopper::FenceSums();
  for (unsigned k = 0; k < 4; ++k) {
    const std::uint64_t other = is(Fault::kThreadsDiffer) && threadIdx.x == 77 ? 2 : 0;
    hopper::Multiply<false, false>(sums, a + 2 * k, b + 2 * k + other, k > 0);
  }
  hopper::Commit();
  if (is(Fault::kTouchedEarly)) out[0] = sums.Get(0);
  if (is(Fault::kOverwrittenEarly) && first) {
    hopper::ArriveExpecting(barrier, 8192);
    CopyBox(tile, &map, barrier, 0, 0);
  }
  if (!is(Fault::kNotAwaited)) hopper::Await<0>();
  if (!is(Fault::kNotSettled) && !is(Fault::kNotAwaited)) hopper::Settle(sums);
  for (int i = 0; i < 4 && !is(Fault::kNotAwaited); ++i) out[threadIdx.x * 4 + i] = sums.Get(i);
  if (is(Fault::kTouchedBetween)) hopper::Multiply<false, false>(sums, a, b, true);
  if (is(Fault::kCopyLeftBehind) && first) {
    hopper::ArriveExpecting(barrier, 8192);
    CopyBox(tile + 8192, &map, barrier, 0, 0);
  }
}

std::vector<float> RunOneProduct(Fault fault) {
  const Matrix matrix(60, 72, [](int r, int c) { return r * 3 % 7 - c % 5; });
  const Result<float> out(512);
  // The first block runs forwards and with late copies, the second backwards and with early ones.
  EXPECT_EQ(
      simt::Launch(nullptr, {2, 128, 3 * 8192}, OneProduct, matrix.Map(64), fault, out.data()),
      cudaSuccess);
  return out.Read();
}

TEST(HopperModel, AProductOfCopiedTilesIsTheMatrixProduct) {
  const std::vector<float> out = RunOneProduct(Fault::kNone);
  const auto value = [](int r, int c) { return r < 60 ? r * 3 % 7 - c % 5 : 0; };
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < 4; ++i) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + (i >= 2 ? 8 : 0);
      const int column = thread % 4 * 2 + i % 2;
      int sum = 0;
      for (int k = 0; k < 64; ++k) sum += value(row, k) * value(column, k);
      ASSERT_EQ(out[static_cast<std::size_t>(thread * 4 + i)], static_cast<float>(sum));
    }
  }
}

TEST(HopperModel, AThreadsWriteReachesAProductBehindAProxyFence) {
  EXPECT_NE(RunOneProduct(Fault::kWrittenWithFence), RunOneProduct(Fault::kNone));
}

TEST(HopperModel, CatchesEachMisuse) {
  const struct {
    Fault fault;
    const char* message;
  } kCases[] = {
      {Fault::kNoInit, "not initialised"},
      {Fault::kTooFewBytes, "more bytes than its mbarrier expects"},
      {Fault::kTooManyBytes, "128 at an mbarrier"},
      {Fault::kWrongParity, "used before the copy to it is done|that a product still reads"},
      {Fault::kNoWait, "used before the copy to it is done|that a product still reads"},
      {Fault::kTileUnaligned, "not 128-byte aligned"},
      {Fault::kDescriptorUnaligned, "descriptor that is not aligned"},
      {Fault::kBaseOffset, "does not begin at its alignment"},
      {Fault::kWrittenWithoutFence, "without a proxy fence"},
      {Fault::kNoFence, "without a fence"},
      {Fault::kTouchedBetween, "without a fence"},
      {Fault::kThreadsDiffer, "start different products"},
      {Fault::kThreadMissing, "not all threads of its warpgroup awaited"},
      {Fault::kTouchedEarly, "touched before their product is awaited"},
      {Fault::kNotSettled, "touched before their product is awaited"},
      {Fault::kNotAwaited, "leave their thread before"},
      {Fault::kOverwrittenEarly, "a tile that a product still reads"},
      {Fault::kCopyLeftBehind, "before its copies are done"},
  };
  for (const auto& one : kCases) EXPECT_DEATH(RunOneProduct(one.fault), one.message);
}

void CopyOne(TensorMap map, int column, int row, std::uint16_t* out) {
  unsigned char* tile = hopper::AlignTile(simt::SharedMemory<unsigned char>());
  auto* barrier = reinterpret_cast<Mbarrier*>(tile + 8192);
  if (threadIdx.x == 0) {
    hopper::Init(barrier, 1);
    hopper::FenceInit();
    hopper::ArriveExpecting(barrier, 8192);
    CopyBox(tile, &map, barrier, column, row);
  }
  __syncthreads();
  hopper::Wait(barrier, 0);
  for (unsigned i = threadIdx.x; i < 4096; i += blockDim.x) {
    std::memcpy(&out[i], tile + 2 * i, 2);
  }
}

TEST(HopperModel, ACopySwizzlesSixteenByteUnitsByTheRowAndFillsWithZeros) {
  const Matrix matrix(70, 80, [](int r, int c) { return 1 + r % 9 * 20 + c % 20; });
  const Result<std::uint16_t> out(4096);
  for (const auto& [column, row] : {std::pair{0, 0}, {64, 64}, {-8, -3}, {200, 0}}) {
    ASSERT_EQ(
        simt::Launch(nullptr, {1, 32, 3 * 8192}, CopyOne, matrix.Map(64), column, row, out.data()),
        cudaSuccess);
    const auto tile = out.Read();
    for (int r = 0; r < 64; ++r) {
      for (int c = 0; c < 64; ++c) {
        const int at_row = row + r, at_column = column + c;
        const bool inside = at_row >= 0 && at_row < 70 && at_column >= 0 && at_column < 80;
        const int unit = c / 8 ^ r % 8;
        ASSERT_EQ(tile[static_cast<std::size_t>(r * 64 + unit * 8 + c % 8)],
                  inside ? Bits(1 + at_row % 9 * 20 + at_column % 20) : 0);
      }
    }
  }
}

// The canonical layouts of the PTX ISA ("Strides", "Shared memory matrix layout"), by hand.
TEST(HopperModel, DescriptorsAreReadAsTheIsaSays) {
  const auto make = [](std::uint64_t start, std::uint64_t leading, std::uint64_t stride,
                       std::uint64_t swizzle) {
    return hopper::Decode(start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | swizzle << 62);
  };
  const hopper::Descriptor wide = make(0x3fc00, 8192, 1024, 1);
  EXPECT_EQ(wide.start, 0x3fc00u);
  EXPECT_EQ(wide.leading_bytes, 8192u);
  EXPECT_EQ(wide.stride_bytes, 1024u);
  using hopper::ElementAddress;
  const hopper::Descriptor of = make(2048, 8192, 1024, 1);
  // Contiguous along K: a row's 16-byte units are exchanged by its number.
  EXPECT_EQ(ElementAddress(of, false, 0, 9), 2048u + 18);
  EXPECT_EQ(ElementAddress(of, false, 1, 0), 2048u + 128 + 16);
  EXPECT_EQ(ElementAddress(of, false, 13, 8), 2048u + 1024 + 5 * 128 + (1 ^ 5) * 16);
  // 16 values further along K.
  EXPECT_EQ(ElementAddress(make(2048 + 32, 16, 1024, 1), false, 3, 0),
            2048u + 3 * 128 + (2 ^ 3) * 16);
  // Contiguous along M: rows are k; 64 values, then the leading offset; 8 k, then the stride.
  EXPECT_EQ(ElementAddress(of, true, 9, 0), 2048u + 18);
  EXPECT_EQ(ElementAddress(of, true, 8, 3), 2048u + 3 * 128 + (1 ^ 3) * 16);
  EXPECT_EQ(ElementAddress(of, true, 64, 0), 2048u + 8192);
  EXPECT_EQ(ElementAddress(of, true, 0, 8), 2048u + 1024);
  // 64 and 32 bytes: units are exchanged by the bits of the address from 128 on.
  EXPECT_EQ(ElementAddress(make(0, 16, 512, 2), false, 2, 0), 128u + 16);
  EXPECT_EQ(ElementAddress(make(0, 16, 512, 2), false, 1, 8), 64u + 16);
  EXPECT_EQ(ElementAddress(make(0, 16, 256, 3), false, 4, 0), 128u + 16);
  EXPECT_EQ(ElementAddress(make(0, 16, 256, 3), false, 1, 0), 32u);
  // None: 8 x 16-byte core matrices; along K the leading offset apart, along M the stride, and the
  // other way round where the operand is contiguous along M.
  EXPECT_EQ(ElementAddress(make(0, 128, 256, 0), false, 9, 8), 256u + 16 + 128);
  EXPECT_EQ(ElementAddress(make(0, 128, 256, 0), true, 8, 9), 256u + 16 + 128);
}

TEST(HopperModel, RefusesMapsThatTheDriverRefuses) {
  alignas(64) TensorMap map;
  alignas(16) static std::uint16_t data[64 * 64];
  const auto encode = [&](const std::uint16_t* at, cuuint64_t columns, cuuint64_t stride,
                          cuuint32_t box_columns, cuuint32_t box_rows) {
    const cuuint64_t sizes[] = {columns, 64}, strides[] = {stride};
    const cuuint32_t box[] = {box_columns, box_rows}, every[] = {1, 1};
    return hopper::EncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
                               const_cast<std::uint16_t*>(at), sizes, strides, box, every,
                               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                               CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  };
  EXPECT_EQ(encode(data, 64, 128, 64, 64), CUDA_SUCCESS);
  EXPECT_EQ(encode(data + 1, 63, 128, 64, 64), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encode(data, 63, 126, 64, 64), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encode(data, 0, 128, 64, 64), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encode(data, 64, 128, 128, 64), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encode(data, 64, 128, 64, 257), CUDA_ERROR_INVALID_VALUE);
}

}  // namespace
}  // namespace thresher::kernels
