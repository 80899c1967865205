#pragma once

// How a product is cut into tiles. With few rows every panel is read once, as fast as memory gives
// it; with many, the tiles of a block of rows pass over groups of panels, both in L2.
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
  bool adds = false;  // to what y holds
};

// Gives tiles their x where they do not read it in place: copies (and rounds, where a kernel set
// says so) rows [r0, r0 + rows) of units [u0, u0 + units) to `to` at leading dimension kTileLd.
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
                                const typename Form::X* x, std::int64_t ldx,
                                const unsigned char* panel) {
  const std::int64_t units = LesserOf(c.chunk, c.units - u0);
  const bool last = u0 + c.chunk >= c.units;
  const bool half = last && c.half_unit;
  return {.units = half ? units - 1 : units,
          .half_unit = half,
          .x = x,
          .ldx = ldx,
          .panel = panel + n0 % kGemmPanel * (Form::kUnitBytes / kGemmPanel),
          .panel_bytes = c.w.panel_bytes,
          .first = u0 == 0 && !c.adds,
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
    GemmMicro<Form, MR, NV>(TileOf<Form>(c, 0, n0, u0, x, kTileLd, panel + u0 * Form::kUnitBytes));
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
  std::int64_t ldx;
};

// Of L2, for the rows of x, the panels that they pass and those that are fetched meanwhile.
inline constexpr std::int64_t kBlockBytes = 640 << 10;

// Panels [begin, end) of consecutive chunks, and the distance to the group that comes next.
struct PanelGroup {
  std::int64_t begin, end, panels;  // of all
  std::int64_t step;                // panels of a group
  const float* widened;             // [end - begin][chunks][chunk + 1][kGemmPanel]; nullptr: as packed
};

// The tiles of some rows with all panels of a group: a row of y is written in long runs, and what
// one chunk left there is near when the next one adds to it.
template <class Form>
static void RowsOverGroup(const GemmCall& c, int count, const RowChunk<Form>* chunks,
                          const PanelSource& source, const PanelGroup& group) {
  const std::int64_t rows = chunks[0].rows, tiles = (rows + kGemmRows - 1) / kGemmRows;
  const std::int64_t ahead_step = (source.unit_bytes + tiles - 1) / tiles;
  for (std::int64_t i = 0, r = 0; i < tiles; ++i) {
    const std::int64_t height = rows / tiles + (i < rows % tiles ? 1 : 0);
    GemmMicroFunction micro = MicroFor<Form, kGemmVecs, kTileLd>(height);
    if constexpr (Form::kInPlace) {
      if (chunks[0].ldx != kTileLd) micro = MicroFor<Form, kGemmVecs, 0>(height);
    }
    for (std::int64_t p = group.begin; p < group.end; ++p) {
      for (int j = 0; j < count; ++j) {
        const RowChunk<Form>& chunk = chunks[j];
        const unsigned char* packed =
            c.w.data + p * c.w.panel_bytes + chunk.u0 * source.unit_bytes;
        const unsigned char* panel = packed;
        if (group.widened != nullptr) {
          panel = reinterpret_cast<const unsigned char*>(
              group.widened + ((p - group.begin) * count + j) * (c.chunk + 1) * kGemmPanel);
        }
        const std::int64_t n0 = p * kGemmPanel;
        for (std::int64_t n = n0; n < n0 + kGemmPanel && n < c.n; n += kGemmVecs * 16) {
          GemmTile tile = TileOf<Form>(c, chunk.r0 + r, n, chunk.u0, chunk.x + r * chunk.ldx,
                                       chunk.ldx, panel);
          if (n == n0 && p + group.step < group.panels) {
            tile.ahead = packed + group.step * c.w.panel_bytes + i * chunk.units * ahead_step;
            tile.ahead_step = ahead_step;
          }
          micro(tile);
        }
      }
    }
    r += height;
  }
}

// `count` (1 or 2) consecutive chunks of the same rows.
template <class Form>
static void ChunksOverPanels(const GemmCall& c, int count, const RowChunk<Form>* chunks,
                             const PanelSource& source) {
  const std::int64_t panels = (c.n + kGemmPanel - 1) / kGemmPanel;
  const std::int64_t units = chunks[0].units + (count > 1 ? chunks[1].units : 0);
  const std::int64_t panel = (units + 1) * Form::kUnitBytes;  // above 0
  const std::int64_t x = chunks[0].rows * units * Form::kSteps * std::int64_t{sizeof(float)};
  const std::int64_t step =
      x + 4 * panel < kBlockBytes ? LesserOf((kBlockBytes - x) / 2 / panel, panels) : 1;
  const std::int64_t slot = (c.chunk + 1) * kGemmPanel;  // floats of a widened chunk
  float* widened =
      source.widen != nullptr
          ? Scratch(ScratchSlot::kGemmPanel, static_cast<std::size_t>(step * count * slot))
          : nullptr;
  PanelGroup group{0, 0, panels, step, widened};
  for (; group.begin < group.panels; group.begin += step) {
    group.end = LesserOf(group.panels, group.begin + step);
    for (std::int64_t p = group.begin; widened != nullptr && p < group.end; ++p) {
      for (int j = 0; j < count; ++j) {
        source.widen(c.w.data + p * c.w.panel_bytes + chunks[j].u0 * source.unit_bytes,
                     chunks[j].units, widened + ((p - group.begin) * count + j) * slot);
      }
    }
    RowsOverGroup(c, count, chunks, source, group);
  }
}

// Whether tiles of a form that may do so read x without a copy: either their rows do not meet in a
// few sets of the cache, or too few panels pass for a copy to pay.
template <class Form>
static bool ReadsInPlace(const TileInput& input, std::int64_t n) {
  return Form::kInPlace && (input.ldx % 256 != 0 || n <= 8 * kGemmPanel);
}

template <class Form>
static void GemmManyRows(const GemmCall& c, const TileInput& input, const PanelSource& source) {
  const bool two = c.units > c.chunk, in_place = ReadsInPlace<Form>(input, c.n);
  const std::int64_t row_block = two ? kRowsTwoChunks : kRowsOneChunk;
  const std::int64_t copied = in_place ? 0 : (two ? 2 : 1) * row_block * kTileLd;
  auto* x = reinterpret_cast<typename Form::X*>(
      Scratch(ScratchSlot::kGemmInput, static_cast<std::size_t>(copied)));
  for (std::int64_t r0 = 0; r0 < c.t; r0 += row_block) {
    const std::int64_t rows = LesserOf(row_block, c.t - r0);
    std::int64_t u0 = 0;
    do {
      RowChunk<Form> chunks[2];
      int count = 0;
      do {
        RowChunk<Form>& chunk = chunks[count];
        chunk = {r0, rows, u0, LesserOf(c.chunk, c.units - u0), nullptr, kTileLd};
        if (in_place) {
          chunk.x = reinterpret_cast<const typename Form::X*>(input.x + r0 * input.ldx + u0);
          chunk.ldx = input.ldx;
        } else {
          typename Form::X* copy = x + count * row_block * kTileLd;
          input.copy(input, r0, rows, u0, chunk.units, copy);
          chunk.x = copy;
        }
        u0 += c.chunk;
        ++count;
      } while (count < 2 && u0 < c.units);
      ChunksOverPanels<Form>(c, count, chunks, source);
    } while (u0 < c.units);
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
