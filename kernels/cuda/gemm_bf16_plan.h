#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/gemm_bf16.h"

// How a product of cuda-bf16-sm90-v1 is divided over blocks: plain arithmetic, for host and device.
// Nothing here changes a bit of the result.
namespace thresher::kernels::cuda {

// A form's shape. The tokens and outputs of a tile, the stages of its pipeline, how many of its
// blocks a multiprocessor holds.
template <int kTokens_, int kGroups_, int kStages_, int kResident_>
struct FormShape {
  static constexpr int kTokens = kTokens_;      // columns of the matrix unit
  static constexpr int kGroups = kGroups_;      // warpgroups, 64 outputs each
  static constexpr int kStages = kStages_;      // of kBf16Step values of K
  static constexpr int kResident = kResident_;  // blocks of a multiprocessor

  static constexpr int kOutputs = 64 * kGroups;
  // The last warp, or with several warpgroups the last warpgroup's first warp, copies: registers
  // are moved from one warpgroup to others (hopper::GiveRegisters).
  static constexpr bool kMovesRegisters = kGroups > 1;
  static constexpr int kThreads = 128 * kGroups + (kMovesRegisters ? 128 : 32);
  static constexpr int kWeightBytes = 64 * 128;  // of a warpgroup and stage
  static constexpr int kTokenBytes = kTokens * 128;
  static constexpr int kStageBytes = kGroups * kWeightBytes + kTokenBytes;
  // The results on their way out, by token; 4 floats of padding keep the banks apart.
  static constexpr int kOutStride = 64 + 4;
  static constexpr int kOutBytes = kTokens * kOutStride * 4;  // of a warpgroup
  static constexpr int kBarrierBytes = (2 * kStages + kGroups) * 8;
  static constexpr std::size_t kSharedBytes =
      1024 + kStages * kStageBytes + kGroups * kOutBytes + kBarrierBytes;
  static constexpr std::size_t kSlotFloats = 64 * kTokens;  // a warpgroup's sums
};
using TileShape = FormShape<128, 2, 4, 1>;
using Stream64Shape = FormShape<64, 1, 5, 2>;
using Stream32Shape = FormShape<32, 1, 8, 2>;
using Stream16Shape = FormShape<16, 1, 10, 2>;
using Stream8Shape = FormShape<8, 1, 11, 2>;

inline constexpr std::size_t kCounters = 2048;  // at the beginning of the scratch memory

struct Bf16Plan {
  std::int64_t tokens, outputs, depth;  // T, N, K of the sum
  int steps, chunk_steps, chunks;       // of kBf16Step values of K
  int splits;                           // blocks that share a tile's chunks
  int output_tiles, token_tiles;
  std::int64_t items;  // tiles * splits
};

// multiprocessors: of the device; scratch_bytes: kBf16ScratchBytes.
template <class Shape>
Bf16Plan MakePlan(std::int64_t tokens, std::int64_t outputs, std::int64_t depth,
                  int multiprocessors, std::size_t scratch_bytes) {
  const auto pieces = [](std::int64_t n, std::int64_t size) {
    return static_cast<int>((n + size - 1) / size);
  };
  Bf16Plan plan{tokens, outputs, depth, 0, 0, 0, 1, 0, 0, 0};
  plan.steps = pieces(depth, kBf16Step);
  plan.chunk_steps = static_cast<int>(Bf16Chunk(depth) / kBf16Step);
  plan.chunks = pieces(plan.steps, plan.chunk_steps);
  plan.output_tiles = pieces(outputs, Shape::kOutputs);
  plan.token_tiles = pieces(tokens, Shape::kTokens);
  const std::int64_t tiles = std::int64_t{plan.output_tiles} * plan.token_tiles;
  plan.items = tiles;
  const std::int64_t room = std::int64_t{multiprocessors} * Shape::kResident / tiles;
  const std::size_t slots = static_cast<std::size_t>(tiles) * Shape::kGroups;
  const std::size_t bytes = slots * static_cast<std::size_t>(plan.chunks) * Shape::kSlotFloats * 4;
  if (room < 2 || slots > kCounters || bytes + kCounters * 4 > scratch_bytes) return plan;
  const int most = room < plan.chunks ? static_cast<int>(room) : plan.chunks;
  // As few as give the longest of them the same length.
  plan.splits = pieces(plan.chunks, pieces(plan.chunks, most));
  plan.items = tiles * plan.splits;
  return plan;
}

// What a block does at once: the chunks [chunk_begin, chunk_end) of a tile.
struct Bf16Item {
  int tile, split, chunk_begin, chunk_end;
  int output_tile, token_tile;
};

// Chunks of `split`: the first ones are of split 0.
THRESHER_BOTH_SIDES inline int FirstChunk(const Bf16Plan& plan, int split) {
  return plan.chunks * split / plan.splits;
}

// Items in the order in which blocks take them. Bands of 8 tiles of tokens, so that blocks at work
// at the same time share operands in the cache.
THRESHER_BOTH_SIDES inline Bf16Item ItemAt(const Bf16Plan& plan, std::int64_t index) {
  constexpr int kBand = 8;
  Bf16Item item;
  item.split = static_cast<int>(index % plan.splits);
  const std::int64_t tile = index / plan.splits;
  item.tile = static_cast<int>(tile);
  item.chunk_begin = FirstChunk(plan, item.split);
  item.chunk_end = FirstChunk(plan, item.split + 1);
  const std::int64_t band_tiles = std::int64_t{kBand} * plan.output_tiles;
  const int first = static_cast<int>(tile / band_tiles) * kBand;
  const int wide = plan.token_tiles - first < kBand ? plan.token_tiles - first : kBand;
  const int in_band = static_cast<int>(tile % band_tiles);
  item.token_tile = first + in_band % wide;
  item.output_tile = in_band / wide;
  return item;
}

}  // namespace thresher::kernels::cuda
