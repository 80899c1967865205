#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cuda/bf16_rows.h"
#include "kernels/cuda/gemm_bf16.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/packed_testing.h"

namespace thresher::kernels::cuda::testing {

// A bf16 matrix on host and device. What lies between its rows is NaN.
class Bf16Matrix {
 public:
  Bf16Matrix(std::int64_t rows, std::int64_t columns, std::vector<std::uint16_t> values)
      : rows_(rows),
        columns_(columns),
        ld_(Bf16RowStride(columns) + 8),
        values_(std::move(values)) {
    Send();
  }
  // Random values of size below 2.
  Bf16Matrix(std::int64_t rows, std::int64_t columns, unsigned seed)
      : Bf16Matrix(rows, columns,
                   kernels::testing::RandomHalves(WeightType::kBf16, rows * columns, seed)) {}

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  Bf16Rows view() const { return {device_[0].data(), rows_, columns_, ld_}; }
  double At(std::int64_t row, std::int64_t column) const {
    return kernels::testing::Widen(WeightType::kBf16, values_[Index(row, column)]);
  }
  void Set(std::int64_t row, std::int64_t column, std::uint16_t bits) {
    values_[Index(row, column)] = bits;
    Send();
  }
  Bf16Matrix Transposed() const {
    std::vector<std::uint16_t> values;
    for (std::int64_t c = 0; c < columns_; ++c) {
      for (std::int64_t r = 0; r < rows_; ++r) values.push_back(values_[Index(r, c)]);
    }
    return {columns_, rows_, values};
  }
  Bf16Matrix Rows(const std::vector<std::int64_t>& rows) const {
    std::vector<std::uint16_t> values;
    for (std::int64_t r : rows) {
      for (std::int64_t c = 0; c < columns_; ++c) values.push_back(values_[Index(r, c)]);
    }
    return {static_cast<std::int64_t>(rows.size()), columns_, values};
  }

 private:
  std::size_t Index(std::int64_t row, std::int64_t column) const {
    return static_cast<std::size_t>(row * columns_ + column);
  }
  void Send() {
    std::vector<std::uint16_t> padded(static_cast<std::size_t>(rows_ * ld_), 0x7fff);
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < columns_; ++c) {
        padded[static_cast<std::size_t>(r * ld_ + c)] = values_[Index(r, c)];
      }
    }
    device_.clear();
    device_.emplace_back(padded);
  }

  std::int64_t rows_, columns_, ld_;
  std::vector<std::uint16_t> values_;
  std::vector<gpu::testing::OnDevice<std::uint16_t>> device_;  // one
};

// x w^T (grad: x w) in float64, and with the operands' magnitudes.
struct Exact {
  std::vector<double> values, magnitudes;
};
inline Exact Product(const Bf16Matrix& x, const Bf16Matrix& w, bool grad) {
  Exact exact;
  const std::int64_t n = grad ? w.columns() : w.rows();
  for (std::int64_t t = 0; t < x.rows(); ++t) {
    for (std::int64_t o = 0; o < n; ++o) {
      double sum = 0, magnitude = 0;
      for (std::int64_t k = 0; k < x.columns(); ++k) {
        const double product = x.At(t, k) * (grad ? w.At(k, o) : w.At(o, k));
        sum += product;
        magnitude += std::fabs(product);
      }
      exact.values.push_back(sum);
      exact.magnitudes.push_back(magnitude);
    }
  }
  return exact;
}

inline ::testing::AssertionResult WithinBound(const std::vector<float>& y, const Exact& exact,
                                              std::int64_t depth) {
  if (y.size() != exact.values.size()) return ::testing::AssertionFailure() << "another size";
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double off = std::fabs(y[i] - exact.values[i]);
    const double bound = Bf16Bound(depth, exact.magnitudes[i]);
    if (!(off <= bound)) {
      return ::testing::AssertionFailure()
             << "value " << i << " is " << y[i] << ", exactly " << exact.values[i] << "; off by "
             << off << ", bound " << bound;
    }
  }
  return ::testing::AssertionSuccess();
}

inline std::uint16_t Rounded(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace thresher::kernels::cuda::testing
