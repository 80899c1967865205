#include <algorithm>
#include <cstring>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

// Packed images are made of units: one value (fp32, fp16) or a pair of neighbours in k (bf16),
// which then moves like one fp32.
namespace thresher::kernels {
namespace {

std::int64_t Panels(std::int64_t n) { return (n + kGemmPanel - 1) / kGemmPanel; }

// Units of one column.
std::int64_t Depth(WeightType type, std::int64_t k) {
  return type == WeightType::kBf16 ? (k + 1) / 2 : k;
}

std::size_t UnitBytes(WeightType type) { return type == WeightType::kF16 ? 2 : 4; }

std::size_t PanelBytes(WeightType type, std::int64_t k) {
  return static_cast<std::size_t>(Depth(type, k) * kGemmPanel) * UnitBytes(type);
}

void RequireRows(std::int64_t n, std::int64_t k, std::int64_t row0, std::int64_t rows) {
  Require(n >= 0 && k >= 0 && row0 >= 0 && rows >= 0 && row0 + rows <= n, "packing: rows");
}

// `columns` rows of `depth` units, at distance ldw, to columns of a panel. Eight rows at a time:
// more would fight for the same cache sets when K is a power of two.
template <typename Unit>
void TransposeIntoPanel(std::int64_t columns, std::int64_t depth, const std::byte* w,
                        std::size_t row_bytes, std::byte* panel) {
  constexpr std::int64_t kBlock = 8;
  for (std::int64_t c0 = 0; c0 < columns; c0 += kBlock) {
    const std::int64_t block = std::min(kBlock, columns - c0);
    for (std::int64_t i = 0; i < depth; ++i) {
      for (std::int64_t c = c0; c < c0 + block; ++c) {
        Unit unit;
        std::memcpy(&unit, w + static_cast<std::size_t>(c) * row_bytes + i * sizeof(Unit),
                    sizeof unit);
        std::memcpy(panel + (i * kGemmPanel + c) * sizeof(Unit), &unit, sizeof unit);
      }
    }
  }
}

// The last value of an odd number of bf16, with a zero beside it.
void PadLastPair(std::int64_t columns, std::int64_t k, const std::byte* w, std::byte* panel) {
  for (std::int64_t c = 0; c < columns; ++c) {
    std::uint16_t pair[2] = {0, 0};
    std::memcpy(&pair[0], w + static_cast<std::size_t>(c * k + k - 1) * 2, 2);
    std::memcpy(panel + (k / 2 * kGemmPanel + c) * sizeof pair, pair, sizeof pair);
  }
}

// Columns of the last panel from `columns` on.
void ZeroColumns(std::int64_t columns, std::int64_t depth, std::size_t unit, std::byte* panel) {
  const std::size_t bytes = static_cast<std::size_t>(kGemmPanel - columns) * unit;
  for (std::int64_t i = 0; i < depth; ++i) {
    std::memset(panel + static_cast<std::size_t>(i * kGemmPanel + columns) * unit, 0, bytes);
  }
}

float FromBits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float HalfToFloat(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return FromBits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // As a binary32 the same bits stand for 2^-112 of the value: exact, denormals included.
  const float value = FromBits(magnitude << 13) * 0x1p112f;
  return sign != 0 ? -value : value;
}

}  // namespace

const char* WeightTypeName(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return "float32";
    case WeightType::kBf16:
      return "bfloat16";
    case WeightType::kF16:
      return "float16";
  }
  return "unknown";
}

std::size_t PackedBytes(WeightType type, std::int64_t n, std::int64_t k) {
  return static_cast<std::size_t>(Panels(n)) * PanelBytes(type, k);
}

void PackRows(WeightType type, std::int64_t n, std::int64_t k, std::int64_t row0, std::int64_t rows,
              const void* w, void* packed) {
  RequireRows(n, k, row0, rows);
  const std::size_t unit = UnitBytes(type),
                    row_bytes = static_cast<std::size_t>(k) * WeightBytes(type);
  const std::int64_t whole_units = type == WeightType::kBf16 ? k / 2 : k;
  const auto* from = static_cast<const std::byte*>(w);
  for (std::int64_t row = row0; row < row0 + rows;) {
    const std::int64_t column = row % kGemmPanel;
    const std::int64_t columns = std::min(kGemmPanel - column, row0 + rows - row);
    std::byte* panel = static_cast<std::byte*>(packed) +
                       static_cast<std::size_t>(row / kGemmPanel) * PanelBytes(type, k);
    std::byte* at = panel + static_cast<std::size_t>(column) * unit;
    if (unit == 4) {
      TransposeIntoPanel<std::uint32_t>(columns, whole_units, from, row_bytes, at);
    } else {
      TransposeIntoPanel<std::uint16_t>(columns, whole_units, from, row_bytes, at);
    }
    if (type == WeightType::kBf16 && k % 2 != 0) PadLastPair(columns, k, from, at);
    row += columns;
    from += static_cast<std::size_t>(columns) * row_bytes;
    if (row == n && n % kGemmPanel != 0) ZeroColumns(n % kGemmPanel, Depth(type, k), unit, panel);
  }
}

void PackRowsTransposed(WeightType type, std::int64_t n, std::int64_t k, std::int64_t row0,
                        std::int64_t rows, const void* w, void* packed) {
  RequireRows(n, k, row0, rows);
  const std::size_t value = WeightBytes(type);
  const bool pairs = type == WeightType::kBf16;
  const std::size_t step = pairs ? 2 * value : value;  // from one column's value to the next one's
  for (std::int64_t k0 = 0; k0 < k; k0 += kGemmPanel) {
    const std::int64_t columns = std::min(kGemmPanel, k - k0);
    std::byte* panel = static_cast<std::byte*>(packed) +
                       static_cast<std::size_t>(k0 / kGemmPanel) * PanelBytes(type, n);
    const auto put = [&](std::int64_t row, std::int64_t count, const std::byte* from) {
      std::byte* to = panel +
                      static_cast<std::size_t>((pairs ? row / 2 : row) * kGemmPanel) * step +
                      (pairs ? static_cast<std::size_t>(row % 2) * value : 0);
      if (!pairs && count == kGemmPanel) {
        std::memcpy(to, from, static_cast<std::size_t>(kGemmPanel) * value);
        return;
      }
      for (std::int64_t c = 0; c < kGemmPanel; ++c, to += step) {
        if (c < count) std::memcpy(to, from + static_cast<std::size_t>(c) * value, value);
        if (c >= count) std::memset(to, 0, value);
      }
    };
    for (std::int64_t i = 0; i < rows; ++i) {
      put(row0 + i, columns,
          static_cast<const std::byte*>(w) + static_cast<std::size_t>(i * k + k0) * value);
    }
    if (pairs && n % 2 != 0 && row0 + rows == n && rows > 0) put(n, 0, nullptr);
  }
}

void PackedRow(PackedMatrix w, std::int64_t n, std::int64_t k, std::int64_t row, float* out) {
  Require(row >= 0 && row < n, "PackedRow: row");
  const ScopedFpEnv env;
  const std::int64_t column = row % kGemmPanel;
  const void* panel = PackedFrom(w, k, row - column).data;
  if (w.type == WeightType::kF32) {
    const float* values = static_cast<const float*>(panel) + column;
    for (std::int64_t i = 0; i < k; ++i) out[i] = values[i * kGemmPanel];
    return;
  }
  const auto* values = static_cast<const std::uint16_t*>(panel);
  if (w.type == WeightType::kF16) {
    for (std::int64_t i = 0; i < k; ++i) out[i] = HalfToFloat(values[i * kGemmPanel + column]);
    return;
  }
  for (std::int64_t i = 0; i < k; ++i) {
    const std::uint32_t bits = values[(i / 2 * kGemmPanel + column) * 2 + i % 2];
    out[i] = FromBits(bits << 16);
  }
}

GemmWeights WeightsFrom(PackedMatrix w, std::int64_t k, std::int64_t k0) {
  Require(k0 % 2 == 0, "WeightsFrom: k0");
  const auto* data = static_cast<const unsigned char*>(w.data);
  const std::int64_t bytes_a_value =
      kGemmPanel * static_cast<std::int64_t>(WeightBytes(w.type));  // of all columns
  return {k0 == 0 ? data : data + k0 * bytes_a_value, w.type,
          static_cast<std::int64_t>(PanelBytes(w.type, k))};
}

PackedMatrix PackedFrom(PackedMatrix w, std::int64_t k, std::int64_t row0) {
  Require(row0 >= 0 && row0 % kGemmPanel == 0, "PackedFrom: row");
  const auto* data = static_cast<const std::byte*>(w.data);
  return {data + static_cast<std::size_t>(row0 / kGemmPanel) * PanelBytes(w.type, k), w.type};
}

}  // namespace thresher::kernels
