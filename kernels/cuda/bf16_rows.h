#pragma once

#include <cstdint>

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

}  // namespace thresher::kernels::cuda
