#pragma once

#include <cstdint>

// Of functions for host and device.
#if defined(__CUDACC__)
#define THRESHER_BOTH_SIDES __host__ __device__
#else
#define THRESHER_BOTH_SIDES
#endif

namespace thresher::kernels::cuda {

// A bf16 matrix [rows, columns] in device memory, row-major. An operand of a tensor-core product:
// `data` is 16-byte aligned and `ld`, the distance of two rows in elements, is a multiple of 8, at
// least `columns`. What lies between the columns and `ld`, or behind the rows, is never used: no
// padding with zeros is needed.
struct Bf16Rows {
  const std::uint16_t* data = nullptr;
  std::int64_t rows = 0, columns = 0, ld = 0;
};

// The smallest distance of rows that an operand may have.
constexpr std::int64_t Bf16RowStride(std::int64_t columns) { return (columns + 7) / 8 * 8; }

// Whether `m` is an operand as described, of at least one column and with numbers of rows and
// columns below 2^31.
inline bool FollowsRules(const Bf16Rows& m) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  return m.rows >= 0 && m.columns >= 1 && m.ld >= m.columns && m.ld % 8 == 0 && m.rows < kMost &&
         m.columns < kMost && reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0;
}

}  // namespace thresher::kernels::cuda
