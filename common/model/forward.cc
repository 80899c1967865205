#include "common/model/forward.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "common/model/activations.h"
#include "common/model/parallel.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/swiglu.h"

namespace thresher::model {
namespace {

// Rows [begin, begin + count) of a batch.
struct Tile {
  std::int32_t begin, count;
  const std::int32_t* position;
  const std::int32_t* const* page_table;
};

// One layer over one tile, from the residual stream before it (`input`) to the one after it
// (`output`; both [tile, D], may be the same). `at`: the tile's first row within `kept`.
class LayerPass {
 public:
  LayerPass(const PackedWeights& model, int layer, const Tile& tile, const Parallel& parallel,
            LayerActivations& kept, std::int64_t at, bool for_tape)
      : model_(model),
        config_(model.config()),
        weights_(model.layer(layer)),
        layer_(layer),
        tile_(tile),
        parallel_(parallel),
        kept_(kept),
        at_(at),
        for_tape_(for_tape) {}

  void Attend(KvCache& cache, const float* input) {
    const std::int64_t width = config_.width, q_width = config_.q_width();
    float* normed = kept_.input_normed.data() + at_ * width;
    float* qkv = kept_.qkv.data() + at_ * model_.qkv_width();
    float* attention = kept_.attention.data() + at_ * q_width;
    Normalise(input, weights_.input_norm, normed, kept_.input_inv_rms.data() + at_);
    Project(model_.qkv_width(), width, normed, weights_.qkv, weights_.qkv_bias, qkv);
    const kernels::KvPages pages{cache.layer_keys(layer_), cache.layer_values(layer_),
                                 cache.page_stride_floats()};
    PlaceQkv(qkv, pages);
    AttentionRows rows{};
    rows.t = tile_.count, rows.heads = config_.heads, rows.kv_heads = config_.kv_heads;
    rows.head_dim = config_.head_dim, rows.scale = AttentionScale(config_);
    rows.q = qkv, rows.ldq = model_.qkv_width();
    rows.page_tables = tile_.page_table, rows.positions = tile_.position, rows.pages = pages;
    rows.out = attention, rows.ldo = q_width;
    rows.lse = for_tape_ ? kept_.lse.data() + at_ * config_.heads : nullptr;
    AttendInParallel(parallel_, rows);
    ProjectAndAdd(q_width, attention, weights_.o, input, kept_.middle.data() + at_ * width);
  }

  void FeedForward(float* activated, float* output) {
    const std::int64_t n = tile_.count, width = config_.width, ffn = config_.ffn_width;
    const float* middle = kept_.middle.data() + at_ * width;
    float* gate = kept_.gate_up.data() + at_ * 2 * ffn;
    const float* normed = NormaliseMiddle();
    const kernels::PackedMatrix gate_up = weights_.gate_up;
    const auto activate = [&](std::int64_t begin, std::int64_t end) {
      kernels::SwigluForward(n, end - begin, gate + begin, 2 * ffn, gate + ffn + begin, 2 * ffn,
                             activated + begin, ffn);
    };
    if (ffn % kernels::kGemmPanel != 0) {  // one panel holds columns of both
      Project(2 * ffn, width, normed, gate_up, nullptr, gate);
      activate(0, ffn);
    } else {
      const auto cost = static_cast<double>(2 * n * width);
      parallel_.Parts(ffn, kernels::kGemmPanel, cost, [&](std::int64_t begin, std::int64_t end) {
        GemmColumns(begin, end, n, width, normed, width, gate_up, nullptr, gate, 2 * ffn);
        GemmColumns(ffn + begin, ffn + end, n, width, normed, width, gate_up, nullptr, gate,
                    2 * ffn);
        activate(begin, end);
      });
    }
    ProjectAndAdd(ffn, activated, weights_.down, middle, output);
  }

  // The part of FeedForward that the backward pass reads.
  void ProjectGateUp() {
    const std::int64_t ffn = config_.ffn_width;
    Project(2 * ffn, config_.width, NormaliseMiddle(), weights_.gate_up, nullptr,
            kept_.gate_up.data() + at_ * 2 * ffn);
  }

 private:
  // The small operations cost a few multiply-adds an element.
  template <class Fn>
  void OverRows(std::int64_t elements, Fn&& fn) {
    parallel_.Parts(tile_.count, 1, 4.0 * static_cast<double>(elements), fn);
  }

  void Normalise(const float* x, const float* weight, float* y, float* inv_rms) {
    const std::int64_t width = config_.width;
    OverRows(width, [&](std::int64_t begin, std::int64_t end) {
      kernels::RmsNormForward(end - begin, width, x + begin * width, weight,
                              static_cast<float>(config_.norm_eps), y + begin * width,
                              inv_rms + begin);
    });
  }

  const float* NormaliseMiddle() {
    float* normed = kept_.middle_normed.data() + at_ * config_.width;
    Normalise(kept_.middle.data() + at_ * config_.width, weights_.post_norm, normed,
              kept_.middle_inv_rms.data() + at_);
    return normed;
  }

  // y [tile, N] = x [tile, K] W^T + bias.
  void Project(std::int64_t n, std::int64_t k, const float* x, kernels::PackedMatrix w,
               const float* bias, float* y) {
    const auto cost = static_cast<double>(tile_.count * k);
    parallel_.Parts(n, kernels::kGemmPanel, cost, [&](std::int64_t begin, std::int64_t end) {
      GemmColumns(begin, end, tile_.count, k, x, k, w, bias, y, n);
    });
  }

  // y [tile, D] = base + x [tile, K] W^T. y is not base.
  void ProjectAndAdd(std::int64_t k, const float* x, kernels::PackedMatrix w, const float* base,
                     float* y) {
    const std::int64_t width = config_.width;
    const auto cost = static_cast<double>(tile_.count * k);
    parallel_.Parts(width, kernels::kGemmPanel, cost, [&](std::int64_t begin, std::int64_t end) {
      const kernels::ScopedFpEnv environment;  // for the additions
      GemmColumns(begin, end, tile_.count, k, x, k, w, nullptr, y, width);
      for (std::int64_t row = 0; row < tile_.count * width; row += width) {
        AddTo(end - begin, base + row + begin, y + row + begin);
      }
    });
  }

  // Norms and rotates q and k, then writes k and v to the cache.
  void PlaceQkv(float* qkv, const kernels::KvPages& pages) {
    const std::int64_t stride = model_.qkv_width(), head_dim = config_.head_dim;
    const std::int64_t k = config_.q_width(), v = k + config_.kv_width();
    OverRows(stride, [&](std::int64_t begin, std::int64_t end) {
      float* row = qkv + begin * stride;
      if (config_.qk_norm()) NormHeads(begin, end, row);
      // q and k lie side by side: one rotation over H + K heads.
      kernels::RopeApply(end - begin, RotatedHeads(config_), head_dim, tile_.position + begin,
                         model_.rope().cos(), model_.rope().sin(), row, stride, false);
      kernels::WriteKv(end - begin, config_.kv_heads, head_dim, row + k, stride, row + v, stride,
                       tile_.page_table + begin, tile_.position + begin, pages);
    });
  }

  // An RMS norm over every head of q and of k of rows [begin, end) of the tile, in place. A head is
  // a row of the norm, so that this is as row-pure as the norm is.
  void NormHeads(std::int64_t begin, std::int64_t end, float* row) {
    const std::int64_t head_dim = config_.head_dim, heads = RotatedHeads(config_);
    const auto eps = static_cast<float>(config_.norm_eps);
    for (std::int64_t t = begin; t < end; ++t, row += model_.qkv_width()) {
      float* k = row + config_.q_width();
      float* inv_rms = kept_.qk_inv_rms.data() + (at_ + t) * heads;
      if (for_tape_) {
        std::copy_n(row, heads * head_dim, kept_.qk_raw.data() + (at_ + t) * heads * head_dim);
      }
      kernels::RmsNormForward(config_.heads, head_dim, row, weights_.q_norm, eps, row, inv_rms);
      kernels::RmsNormForward(config_.kv_heads, head_dim, k, weights_.k_norm, eps, k,
                              inv_rms + config_.heads);
    }
  }

  const PackedWeights& model_;
  const ModelConfig& config_;
  const PackedLayer& weights_;
  int layer_;
  Tile tile_;
  const Parallel& parallel_;
  LayerActivations& kept_;
  std::int64_t at_;
  bool for_tape_;
};

void CheckRows(const PackedWeights& model, const RowBatch& rows) {
  const ModelConfig& config = model.config();
  THRESHER_CHECK(
      rows.position.size() == rows.token.size() && rows.page_table.size() == rows.token.size(),
      "rows of unequal columns");
  std::int32_t last = -1;
  for (std::size_t t = 0; t < rows.token.size(); ++t) {
    THRESHER_CHECK(rows.token[t] >= 0 && rows.token[t] < config.vocab, "token out of range");
    THRESHER_CHECK(rows.position[t] >= 0 && rows.position[t] < config.context,
                   "position beyond the context");
    last = std::max(last, rows.position[t]);
  }
  model.rope().Require(last + 1);
}

void ReserveTape(const PackedWeights& model, std::int32_t rows, Tape& tape) {
  const auto layers = static_cast<std::size_t>(model.config().layers);
  tape.rows = rows;
  tape.layers.resize(tape.kind == TapeKind::kAllActivations ? layers : 1);
  tape.residual.resize(layers + 1);
  // The shared one is taken while the backward pass needs it.
  if (tape.kind == TapeKind::kAllActivations) {
    for (auto& layer : tape.layers) layer.ReserveRows(model, rows, true);
  }
  const auto floats =
      static_cast<std::size_t>(rows) * static_cast<std::size_t>(model.config().width);
  for (auto& residual : tape.residual) Reserve(residual, floats);
  Reserve(tape.final_inv_rms, static_cast<std::size_t>(rows));
}

void ReserveTile(const PackedWeights& model, std::int64_t rows, bool keeps_layers,
                 Workspace& workspace) {
  Reserve(workspace.activated, static_cast<std::size_t>(rows * model.config().ffn_width));
  if (keeps_layers) return;
  workspace.layer.ReserveRows(model, rows, false);
  Reserve(workspace.residual, static_cast<std::size_t>(rows * model.config().width));
  Reserve(workspace.final_inv_rms, static_cast<std::size_t>(rows));
}

// All rows' activations of every layer are kept.
bool KeepsLayers(const Tape* tape) {
  return tape != nullptr && tape->kind == TapeKind::kAllActivations;
}

void ForwardTile(const PackedWeights& model, const Tile& tile, const std::int32_t* tokens,
                 KvCache& cache, Workspace& workspace, float* hidden, Tape* tape) {
  const ModelConfig& config = model.config();
  const std::int64_t at = tape == nullptr ? 0 : tile.begin;
  const auto residual = [&](int layer) {
    AlignedFloats& buffer =
        tape == nullptr ? workspace.residual : tape->residual[static_cast<std::size_t>(layer)];
    return buffer.data() + at * config.width;
  };
  const Parallel parallel(workspace.pool, workspace.part_cost);
  parallel.Parts(tile.count, 1, 4.0 * config.width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      kernels::PackedRow(model.embedding(), config.vocab, config.width, tokens[t],
                         residual(0) + t * config.width);
    }
  });
  const bool keeps = KeepsLayers(tape);
  for (int layer = 0; layer < config.layers; ++layer) {
    LayerActivations& kept =
        keeps ? tape->layers[static_cast<std::size_t>(layer)] : workspace.layer;
    LayerPass pass(model, layer, tile, parallel, kept, keeps ? at : 0, keeps);
    pass.Attend(cache, residual(layer));
    pass.FeedForward(workspace.activated.data(), residual(layer + 1));
  }
  AlignedFloats& inv_rms = tape == nullptr ? workspace.final_inv_rms : tape->final_inv_rms;
  kernels::RmsNormForward(tile.count, config.width, residual(config.layers), model.final_norm(),
                          static_cast<float>(config.norm_eps), hidden, inv_rms.data() + at);
}

Tile TileAt(const RowBatch& rows, std::int32_t begin, std::int32_t count) {
  return {begin, count, rows.position.data() + begin, rows.page_table.data() + begin};
}

}  // namespace

float AttentionScale(const ModelConfig& config) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
}

void Forward(const PackedModel& packed, const RowBatch& rows, KvCache& cache, Workspace& workspace,
             std::span<float> hidden, Tape* tape) {
  const PackedWeights& model = PackedWeights::Of(packed);
  const std::int32_t width = model.config().width;
  CheckRows(model, rows);
  THRESHER_CHECK(hidden.size() == rows.token.size() * static_cast<std::size_t>(width),
                 "hidden is not [T, D]");
  if (tape != nullptr) {
    ReserveTape(model, rows.rows(), *tape);
    tape->cache = &cache;
  }
  ReserveTile(model, std::min(rows.rows(), kRowTile), KeepsLayers(tape), workspace);
  ForEachTile(rows.rows(), [&](std::int32_t begin, std::int32_t count) {
    ForwardTile(model, TileAt(rows, begin, count), rows.token.data() + begin, cache, workspace,
                hidden.data() + static_cast<std::ptrdiff_t>(begin) * width, tape);
  });
}

void RecomputeLayer(const PackedWeights& model, int layer, const RowBatch& rows,
                    Workspace& workspace, Tape& tape) {
  THRESHER_CHECK(tape.kind == TapeKind::kLayerInputs, "nothing to compute again");
  LayerActivations& kept = tape.layers[0];
  kept.ReserveRows(model, rows.rows(), true);
  const Parallel parallel(workspace.pool, workspace.part_cost);
  const float* input = tape.residual[static_cast<std::size_t>(layer)].data();
  ForEachTile(rows.rows(), [&](std::int32_t begin, std::int32_t count) {
    LayerPass pass(model, layer, TileAt(rows, begin, count), parallel, kept, begin, true);
    pass.Attend(*tape.cache, input + static_cast<std::ptrdiff_t>(begin) * model.config().width);
    pass.ProjectGateUp();
  });
}

}  // namespace thresher::model
