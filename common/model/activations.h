#pragma once

#include <cstdint>
#include <vector>

#include "common/model/buffer.h"
#include "common/model/forward.h"
#include "common/model/packed_model.h"
#include "common/model/policy_head.h"

namespace thresher::model {

// Rows go through all layers in tiles of at most this many, so that scratch is small and stays in
// the cache; row purity makes the cut invisible. Chosen by measurement: 64 to 192 are within 3 %,
// one tile of 1,024 rows is 15 % slower.
inline constexpr std::int32_t kRowTile = 128;

// Of the backward pass, which reads and writes a gradient of weights once for each.
inline constexpr std::int32_t kGradTile = 512;

// step(begin, count) for tiles of nearly equal height, at most `most`, that cover `rows` rows,
// ascending.
template <typename Step>
void ForEachTile(std::int32_t rows, const Step& step, std::int32_t most = kRowTile) {
  const std::int32_t tiles = (rows + most - 1) / most;
  for (std::int32_t i = 0, begin = 0; i < tiles; ++i) {
    const std::int32_t count = rows / tiles + (i < rows % tiles ? 1 : 0);
    step(begin, count);
    begin += count;
  }
}

// What one layer computes for T rows and the backward pass needs again.
struct LayerActivations {
  AlignedFloats input_inv_rms;   // [T]
  AlignedFloats input_normed;    // [T, D]
  AlignedFloats qkv;             // [T, (H + 2K) Dh], q and k after their norms and RoPE
  AlignedFloats qk_raw;          // [T, (H + K) Dh], q and k before their norms; of a tape alone
  AlignedFloats qk_inv_rms;      // [T, H + K]; both empty without norms on q and k
  AlignedFloats attention;       // [T, H Dh]
  AlignedFloats lse;             // [T, H]
  AlignedFloats middle;          // [T, D], residual stream after attention
  AlignedFloats middle_inv_rms;  // [T]
  AlignedFloats middle_normed;   // [T, D]
  AlignedFloats gate_up;         // [T, 2F]

  // for_tape: with what only the backward pass reads.
  void ReserveRows(const PackedWeights& model, std::int64_t rows, bool for_tape);
  std::size_t floats() const;
};

struct Tape {
  TapeKind kind = TapeKind::kAllActivations;
  std::int32_t rows = 0;
  KvCache* cache = nullptr;              // borrowed: of the Forward that filled it
  std::vector<LayerActivations> layers;  // one each; of kLayerInputs one that all layers share
  std::vector<AlignedFloats> residual;   // [T, D] before each layer, and before the final norm
  AlignedFloats final_inv_rms;           // [T]
};

struct Workspace {
  WorkerPool* pool = nullptr;  // borrowed
  double part_cost = 0;        // Parallel's
  // Forward, one tile.
  LayerActivations layer;
  AlignedFloats residual;       // [tile, D]
  AlignedFloats final_inv_rms;  // [tile]
  AlignedFloats activated;      // [tile, F]; of the backward pass [grad tile, F]
  HeadScratch head;
  // Backward.
  AlignedFloats dresidual;   // [T, D]
  AlignedFloats dattention;  // [T, H Dh]
  AlignedFloats dqkv;        // [T, (H + 2K) Dh]
  AlignedFloats dactivated;  // [tile, F]
  AlignedFloats dgate_up;    // [grad tile, 2F]
  AlignedFloats dnormed;     // [tile, D]
};

// Computes the activations of `layer` again, of all rows, from the tape's input of that layer, with
// the bits of the Forward that filled it. Only for kLayerInputs.
void RecomputeLayer(const PackedWeights& model, int layer, const RowBatch& rows,
                    Workspace& workspace, Tape& tape);

// 1 / sqrt(Dh).
float AttentionScale(const ModelConfig& config);

// Heads that are rotated, and normed where the family does so: those of q, then those of k, side by
// side in a row of qkv.
inline std::int64_t RotatedHeads(const ModelConfig& config) {
  return config.heads + config.kv_heads;
}

// y[i] += x[i].
void AddTo(std::int64_t n, const float* x, float* y);

}  // namespace thresher::model
