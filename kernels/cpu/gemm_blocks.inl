#pragma once

// How a product is cut into tiles. With few rows every panel is read once, as fast as memory gives
// it; with many, a block of x stays in L2 and a chunk of a panel passes over all its tiles.
// Templates over the form of the product alone.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_tile.inl"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

// Rows whose x stays in L2 while all panels pass: of a single chunk, or of two at a time (600 KB).
inline constexpr std::int64_t kRowsOneChunk = 192, kRowsTwoChunks = 144;

// A product, cut into chunks of `chunk` units.
struct GemmCall {
  std::int64_t t, n;
  std::int64_t units;  // of the depth, a half one included
  bool half_unit;      // the last unit holds one step only
  std::int64_t chunk;
  GemmWeights w;
  const float* bias;
  float* y;
  std::int64_t ldy;
};

// Gives tiles their x: copies (and rounds, where a kernel set says so) rows [r0, r0 + rows) of
// units [u0, u0 + units) to `to` at leading dimension kTileLd.
struct TileInput {
  const float* x;
  std::int64_t ldx;
  std::int64_t k;  // columns of x: of the last unit some may be missing
  void (*copy)(const TileInput& from, std::int64_t r0, std::int64_t rows, std::int64_t u0,
               std::int64_t units, void* to);
};

THRESHER_INLINE std::int64_t LesserOf(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// The tile of row r on and columns n0 on, in the chunk that begins at unit u0. x: row r's part of
// that chunk. panel: that chunk of the panel that holds n0.
template <class Form>
THRESHER_INLINE GemmTile TileOf(const GemmCall& c, std::int64_t r, std::int64_t n0, std::int64_t u0,
                                const typename Form::X* x, const unsigned char* panel) {
  const std::int64_t units = LesserOf(c.chunk, c.units - u0);
  const bool last = u0 + c.chunk >= c.units;
  const bool half = last && c.half_unit;
  return {.units = half ? units - 1 : units,
          .half_unit = half,
          .x = x,
          .panel = panel + n0 % kGemmPanel * (Form::kUnitBytes / kGemmPanel),
          .panel_bytes = c.w.panel_bytes,
          .first = u0 == 0,
          .bias = last && c.bias != nullptr ? c.bias + n0 : nullptr,
          .y = c.y + r * c.ldy + n0,
          .ldy = c.ldy,
          .columns = c.n - n0,
          .ahead = panel,
          .ahead_step = 0};
}

// Columns [n0, n0 + 16 NV) of all rows. x: [chunks][MR][kTileLd].
template <class Form, int MR, int NV>
static void FewRowsColumns(const GemmCall& c, std::int64_t n0, const typename Form::X* x) {
  const unsigned char* panel = c.w.data + n0 / kGemmPanel * c.w.panel_bytes;
  std::int64_t u0 = 0;
  do {
    GemmMicro<Form, MR, NV>(TileOf<Form>(c, 0, n0, u0, x, panel + u0 * Form::kUnitBytes));
    u0 += c.chunk;
    x += MR * kTileLd;
  } while (u0 < c.units);
}

// MR rows: every panel is read once, several at a time when rows are few.
template <class Form, int MR = kGemmRows>
static void GemmFewRows(const GemmCall& c, const TileInput& input) {
  if constexpr (MR > 1) {
    if (c.t < MR) return GemmFewRows<Form, MR - 1>(c, input);
  }
  const std::int64_t chunks = c.units > c.chunk ? (c.units + c.chunk - 1) / c.chunk : 1;
  auto* x = reinterpret_cast<typename Form::X*>(
      Scratch(ScratchSlot::kGemmInput, static_cast<std::size_t>(chunks * MR * kTileLd)));
  for (std::int64_t i = 0; i < chunks; ++i) {
    input.copy(input, 0, MR, i * c.chunk, LesserOf(c.chunk, c.units - i * c.chunk),
               x + i * MR * kTileLd);
  }
  constexpr int kWide = GemmVecs(MR), kNarrow = kWide < 2 ? kWide : 2;
  const std::int64_t padded = (c.n + kGemmPanel - 1) / kGemmPanel * kGemmPanel;
  std::int64_t n0 = 0;
  for (; n0 < c.n && n0 + kWide * 16 <= padded; n0 += kWide * 16) {
    FewRowsColumns<Form, MR, kWide>(c, n0, x);
  }
  for (; n0 < c.n; n0 += kNarrow * 16) FewRowsColumns<Form, MR, kNarrow>(c, n0, x);
}

// What GemmManyRows multiplies with: panels as they are, or widened chunk by chunk to fp32.
struct PanelSource {
  std::int64_t unit_bytes;  // in the packed image, of one unit of the form
  void (*widen)(const unsigned char* panel, std::int64_t units,
                float* out);  // nullptr: as they are
};

// A chunk of a block of rows.
template <class Form>
struct RowChunk {
  std::int64_t r0, rows;
  std::int64_t u0, units;
  const typename Form::X* x;  // row r0's part
};

// The chunk of one panel over its rows, in tiles of nearly equal height. `ahead`: the packed chunk
// that comes next, or nullptr.
template <class Form>
static void PanelOverRows(const GemmCall& c, const RowChunk<Form>& chunk, std::int64_t n0,
                          const unsigned char* panel, const unsigned char* ahead,
                          std::int64_t ahead_unit_bytes) {
  const std::int64_t tiles = (chunk.rows + kGemmRows - 1) / kGemmRows;
  const std::int64_t ahead_step = (ahead_unit_bytes + tiles - 1) / tiles;
  for (std::int64_t i = 0, r = 0; i < tiles; ++i) {
    const std::int64_t height = chunk.rows / tiles + (i < chunk.rows % tiles ? 1 : 0);
    const GemmMicroFunction micro = MicroFor<Form, kGemmVecs>(height);
    for (std::int64_t n = n0; n < n0 + kGemmPanel && n < c.n; n += kGemmVecs * 16) {
      GemmTile tile = TileOf<Form>(c, chunk.r0 + r, n, chunk.u0, chunk.x + r * kTileLd, panel);
      if (n == n0 && ahead != nullptr) {
        tile.ahead = ahead;
        tile.ahead_step = ahead_step;
        ahead += chunk.units * ahead_step;
      }
      micro(tile);
    }
    r += height;
  }
}

// `count` consecutive chunks of the same rows: a panel passes with all of them, so that y is near.
template <class Form>
static void ChunksOverPanels(const GemmCall& c, int count, const RowChunk<Form>* chunks,
                             const PanelSource& source) {
  float* widened =
      source.widen != nullptr
          ? Scratch(ScratchSlot::kGemmPanel, static_cast<std::size_t>(c.chunk + 1) * kGemmPanel)
          : nullptr;
  for (std::int64_t n0 = 0; n0 < c.n; n0 += kGemmPanel) {
    const unsigned char* column = c.w.data + n0 / kGemmPanel * c.w.panel_bytes;
    const unsigned char* next = n0 + kGemmPanel < c.n ? column + c.w.panel_bytes : nullptr;
    for (int i = 0; i < count; ++i) {
      const unsigned char* panel = column + chunks[i].u0 * source.unit_bytes;
      const unsigned char* ahead = i + 1 < count     ? column + chunks[i + 1].u0 * source.unit_bytes
                                   : next != nullptr ? next + chunks[0].u0 * source.unit_bytes
                                                     : nullptr;
      if (widened != nullptr) {
        source.widen(panel, chunks[i].units, widened);
        panel = reinterpret_cast<const unsigned char*>(widened);
      }
      PanelOverRows(c, chunks[i], n0, panel, ahead, source.unit_bytes);
    }
  }
}

template <class Form>
static void GemmManyRows(const GemmCall& c, const TileInput& input, const PanelSource& source) {
  const bool two = c.units > c.chunk;
  const std::int64_t row_block = two ? kRowsTwoChunks : kRowsOneChunk;
  auto* x = reinterpret_cast<typename Form::X*>(Scratch(
      ScratchSlot::kGemmInput, static_cast<std::size_t>((two ? 2 : 1) * row_block * kTileLd)));
  for (std::int64_t r0 = 0; r0 < c.t; r0 += row_block) {
    const std::int64_t rows = LesserOf(row_block, c.t - r0);
    std::int64_t u0 = 0;
    do {
      RowChunk<Form> chunks[2];
      int count = 0;
      do {
        typename Form::X* part = x + count * row_block * kTileLd;
        chunks[count] = {r0, rows, u0, LesserOf(c.chunk, c.units - u0), part};
        input.copy(input, r0, rows, u0, chunks[count].units, part);
        u0 += c.chunk;
        ++count;
      } while (count < 2 && u0 < c.units);
      ChunksOverPanels<Form>(c, count, chunks, source);
    } while (u0 < c.units);
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
