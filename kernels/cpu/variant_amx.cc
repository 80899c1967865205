// The kernel set kBf16Amx with tdpbf16ps; everything else is the AVX-512-BF16 variant's. Blocks of
// 32 rows x one panel: two tiles of x, two of weights (read from the panel as it lies), four sums.
#define THRESHER_VARIANT amx
#define THRESHER_VEC_AVX512
#include <cstring>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels {
namespace amx {

inline constexpr std::int64_t kTileRows = 16;
inline constexpr std::int64_t kGroupPairs = 16;       // pairs of a tile step
inline constexpr std::int64_t kPanelPairBytes = 128;  // one pair of all 32 columns
inline constexpr std::int64_t kRowBlock = 2 * kTileRows;
inline constexpr std::int64_t kRowsInL2 = 128;  // of x, while all panels pass

// Palette 1, all eight tiles 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The compiler does not know that the tile instructions read and write memory.
THRESHER_INLINE void MemoryBarrier() { asm volatile("" : : : "memory"); }

struct Block {
  const std::uint16_t* x;  // [32][ld], rounded, zero padded to whole groups
  std::int64_t ld;
  const unsigned char* panel;
  const unsigned char* tail;  // the last group, zero padded, or nullptr: K fills it
  std::int64_t groups;        // whole ones
  bool upper;                 // rows 16 to 31 are wanted
};

// Adds one group; b: its pairs in the panel.
THRESHER_INLINE void Group(const Block& block, std::int64_t g, const unsigned char* b) {
  const std::uint16_t* a = block.x + g * 2 * kGroupPairs;
  _tile_loadd(6, b, kPanelPairBytes);
  _tile_loadd(7, b + 64, kPanelPairBytes);
  _tile_loadd(4, a, block.ld * 2);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if (!block.upper) return;
  _tile_loadd(5, a + kTileRows * block.ld, block.ld * 2);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// sums: [32][32].
static void BlockSums(const Block& block, float* sums) {
  MemoryBarrier();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::int64_t g = 0; g < block.groups; ++g) {
    Group(block, g, block.panel + g * kGroupPairs * kPanelPairBytes);
  }
  if (block.tail != nullptr) Group(block, block.groups, block.tail);
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 16, 128);
  _tile_stored(2, sums + 16 * 32, 128);
  _tile_stored(3, sums + 16 * 32 + 16, 128);
  MemoryBarrier();
}

static void StoreSums(const float* sums, std::int64_t rows, std::int64_t columns, const float* bias,
                      float* y, std::int64_t ldy) {
  for (std::int64_t c = 0; c < columns; c += 16) {
    const F16 b = bias != nullptr ? LoadN(bias + c, columns - c) : Zero();
    for (std::int64_t r = 0; r < rows; ++r) {
      const F16 sum = Load(sums + r * 32 + c);
      StoreN(y + r * ldy + c, bias != nullptr ? Add(sum, b) : sum, columns - c);
    }
  }
}

// x [rows, k] as bf16 at leading dimension ld, padded with zeros to it and to whole tiles of rows.
static void RoundRows(std::int64_t rows, std::int64_t padded_rows, std::int64_t k, const float* x,
                      std::int64_t ldx, std::uint16_t* to, std::int64_t ld) {
  for (std::int64_t r = 0; r < padded_rows; ++r) {
    const std::int64_t columns = r < rows ? k : 0;
    const float* from = x + (r < rows ? r : 0) * ldx;
    for (std::int64_t i = 0; i < ld; i += 32) {
      const __m512bh values =
          _mm512_cvtne2ps_pbh(LoadN(from + i + 16, columns - i - 16), LoadN(from + i, columns - i));
      _mm512_storeu_si512(to + r * ld + i, reinterpret_cast<__m512i>(values));
    }
  }
}

static void Product(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                    std::int64_t ldx, const GemmWeights& w, const float* bias, float* y,
                    std::int64_t ldy) {
  if (t == 0) return;
  const ScopedFlushedFpEnv env;  // for the bias; tdpbf16ps needs none
  const std::int64_t pairs = (k + 1) / 2, groups = pairs / kGroupPairs, rest = pairs % kGroupPairs;
  const std::int64_t ld = (groups + (rest > 0 ? 1 : 0)) * 2 * kGroupPairs + 2 * kGroupPairs;
  auto* rounded = reinterpret_cast<std::uint16_t*>(
      Scratch(ScratchSlot::kGemmInput, static_cast<std::size_t>(kRowsInL2 * ld / 2)));
  alignas(64) unsigned char tail[kGroupPairs * kPanelPairBytes] = {};
  alignas(64) float sums[kRowBlock * 32];
  const TileConfig config;
  MemoryBarrier();
  _tile_loadconfig(&config);
  for (std::int64_t t0 = 0; t0 < t; t0 += kRowsInL2) {
    const std::int64_t rows = t - t0 < kRowsInL2 ? t - t0 : kRowsInL2;
    RoundRows(rows, (rows + kRowBlock - 1) / kRowBlock * kRowBlock, k, x + t0 * ldx, ldx, rounded,
              ld);
    for (std::int64_t n0 = 0; n0 < n; n0 += kGemmPanel) {
      const unsigned char* panel = w.data + n0 / kGemmPanel * w.panel_bytes;
      std::memcpy(tail, panel + groups * kGroupPairs * kPanelPairBytes,
                  static_cast<std::size_t>(rest * kPanelPairBytes));
      for (std::int64_t r = 0; r < rows; r += kRowBlock) {
        BlockSums(
            {rounded + r * ld, ld, panel, rest > 0 ? tail : nullptr, groups, rows - r > kTileRows},
            sums);
        const std::int64_t count = rows - r < kRowBlock ? rows - r : kRowBlock;
        StoreSums(sums, count, n - n0 < kGemmPanel ? n - n0 : kGemmPanel,
                  bias != nullptr ? bias + n0 : nullptr, y + (t0 + r) * ldy + n0, ldy);
      }
    }
  }
  _tile_release();
}

}  // namespace amx

const KernelTable& AmxTable() {
  static const KernelTable table = [] {
    KernelTable t = Avx512Bf16Table();
    t.gemm_bf16_amx = amx::Product;
    return t;
  }();
  return table;
}

}  // namespace thresher::kernels
