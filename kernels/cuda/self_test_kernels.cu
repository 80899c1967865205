#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/group_loop.cuh"
#include "kernels/cuda/self_test_kernels.h"

namespace thresher::kernels::cuda {
namespace {

THRESHER_DEVICE std::uint32_t Mixed(std::uint32_t a) {  // the finaliser of MurmurHash3
  a = (a ^ a >> 16) * 0x85ebca6bu;
  a = (a ^ a >> 13) * 0xc2b2ae35u;
  return a ^ a >> 16;
}

THRESHER_DEVICE std::uint16_t Scaled(std::uint16_t value, int exponent) {
  return static_cast<std::uint16_t>(value + (exponent << 7));
}

THRESHER_DEVICE std::uint16_t TestValue(std::uint32_t seed, std::int64_t row, std::int64_t column,
                                        TestFill fill) {
  const std::uint32_t random =
      Mixed(Mixed(seed + static_cast<std::uint32_t>(row)) + static_cast<std::uint32_t>(column));
  const auto plain =
      static_cast<std::uint16_t>((random & 0x8000u) | (0x3f80u - 0x400u + (random & 0x3ffu)));
  if (fill == TestFill::kMagnitudes) return plain & 0x7fffu;
  if (fill == TestFill::kOrdinary) return plain;
  switch (row % 16) {
    case 0:
      return 0;
    case 1:
      return static_cast<std::uint16_t>(0x8000u | (random & 0x7fu));
    case 2:
      return Scaled(plain, 60);
    case 3:  // pairs that cancel but for their last bits
      return static_cast<std::uint16_t>((column % 2 != 0 ? 0x8000u : 0u) | 0x5f00u | (random & 1u));
    case 4:
      return Scaled(plain, -110);
    case 5:
      return column == 7 ? plain : std::uint16_t{0};
    case 6:
      return column == 3 ? std::uint16_t{0x7fc0} : plain;
    case 7:
      return column == 0 ? std::uint16_t{0xff80} : plain;
    default:
      return plain;
  }
}

__global__ void Fill(std::uint16_t* data, std::int64_t rows, std::int64_t ld, std::uint32_t seed,
                     TestFill fill) {
  ForEachUnitOfThread(rows * ld, [=](std::int64_t unit) {
    data[unit] = TestValue(seed, unit / ld, unit % ld, fill);
  });
}

__global__ void Gather(Bf16Rows from, std::int64_t first, std::int64_t step, std::int64_t rows,
                       std::uint16_t* to) {
  ForEachUnitOfThread(rows * from.ld, [=](std::int64_t unit) {
    const std::int64_t row = (first + unit / from.ld * step) % from.rows;
    to[unit] = from.data[row * from.ld + unit % from.ld];
  });
}

THRESHER_DEVICE bool IsNan(float value) { return value != value; }

// |y - plain| / bound, rounded up.
THRESHER_DEVICE float OverBound(float y, float plain, float magnitude, double factor,
                                double least) {
  if (IsNan(y) && IsNan(plain)) return 0;
  if (y == plain) return 0;
  const double off = y > plain ? static_cast<double>(y) - plain : static_cast<double>(plain) - y;
  const double ratio = off / (factor * magnitude + least);
  if (!(ratio < 1e30)) return __uint_as_float(0x7f800000u);
  return static_cast<float>(ratio) * (1 + 0x1p-20f);
}

__global__ void Worst(std::int64_t count, const float* y, const float* plain,
                      const float* magnitude, double factor, double least, std::uint32_t* slot) {
  ForEachUnitOfThread(count, [=](std::int64_t unit) {
    const float ratio = OverBound(y[unit], plain[unit], magnitude[unit], factor, least);
    atomicMax(slot, __float_as_uint(ratio));  // of positive floats: the order of their bits
  });
}

__global__ void WhereWorst(std::int64_t count, const float* y, const float* plain,
                           const float* magnitude, double factor, double least,
                           std::uint32_t* slot) {
  ForEachUnitOfThread(count, [=](std::int64_t unit) {
    const float ratio = OverBound(y[unit], plain[unit], magnitude[unit], factor, least);
    if (__float_as_uint(ratio) == slot[0]) atomicMin(slot + 1, static_cast<std::uint32_t>(unit));
  });
}

__global__ void Compare(std::int64_t rows, std::int64_t columns, const float* y,
                        const float* expected, std::int64_t first, std::int64_t step,
                        std::int64_t pool, std::uint32_t* slot) {
  ForEachUnitOfThread(rows * columns, [=](std::int64_t unit) {
    const std::int64_t row = (first + unit / columns * step) % pool;
    const float a = y[unit], b = expected[row * columns + unit % columns];
    if (__float_as_uint(a) == __float_as_uint(b) || (IsNan(a) && IsNan(b))) return;
    atomicMin(slot, static_cast<std::uint32_t>(unit));
  });
}

}  // namespace

cudaError_t FillForTest(cudaStream_t stream, Bf16Rows matrix, std::uint32_t seed, TestFill fill) {
  const std::int64_t units = matrix.rows * matrix.ld;
  return simt::Launch(stream, {BlocksFor(units, kBlock), kBlock}, Fill,
                      const_cast<std::uint16_t*>(matrix.data), matrix.rows, matrix.ld, seed, fill);
}

cudaError_t GatherRows(cudaStream_t stream, Bf16Rows from, std::int64_t first, std::int64_t step,
                       Bf16Rows to) {
  return simt::Launch(stream, {BlocksFor(to.rows * from.ld, kBlock), kBlock}, Gather, from, first,
                      step, to.rows, const_cast<std::uint16_t*>(to.data));
}

cudaError_t WorstOverBound(cudaStream_t stream, std::int64_t count, const float* y,
                           const float* plain, const float* magnitude, double factor, double least,
                           std::uint32_t* slot) {
  const simt::Shape shape{BlocksFor(count, kBlock), kBlock};
  cudaError_t error = cudaMemsetAsync(slot, 0, sizeof *slot, stream);
  if (error == cudaSuccess) {
    error = simt::Launch(stream, shape, Worst, count, y, plain, magnitude, factor, least, slot);
  }
  if (error != cudaSuccess) return error;
  return simt::Launch(stream, shape, WhereWorst, count, y, plain, magnitude, factor, least, slot);
}

cudaError_t FirstDifference(cudaStream_t stream, std::int64_t rows, std::int64_t columns,
                            const float* y, const float* expected, std::int64_t first,
                            std::int64_t step, std::int64_t pool, std::uint32_t* slot) {
  if (rows * columns == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(rows * columns, kBlock), kBlock}, Compare, rows, columns,
                      y, expected, first, step, pool, slot);
}

}  // namespace thresher::kernels::cuda
