#include "common/model/forward.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "common/model/activations.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/embedding.h"
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
  LayerPass(const PackedWeights& model, int layer, const Tile& tile, LayerActivations& kept,
            std::int64_t at)
      : model_(model),
        config_(model.config()),
        weights_(model.layer(layer)),
        layer_(layer),
        tile_(tile),
        kept_(kept),
        at_(at) {}

  void Attend(KvCache& cache, const float* input) {
    const std::int64_t n = tile_.count, width = config_.width, head_dim = config_.head_dim;
    const std::int64_t stride = model_.qkv_width(), q_width = config_.q_width();
    float* normed = kept_.input_normed.data() + at_ * width;
    float* q = kept_.qkv.data() + at_ * stride;
    float* k = q + q_width;
    float* v = k + config_.kv_width();
    float* attention = kept_.attention.data() + at_ * q_width;
    float* middle = kept_.middle.data() + at_ * width;
    kernels::RmsNormForward(n, width, input, weights_.input_norm.data(),
                            static_cast<float>(config_.norm_eps), normed,
                            kept_.input_inv_rms.data() + at_);
    kernels::Gemm(n, stride, width, normed, width, {weights_.qkv.data()},
                  config_.qkv_bias ? weights_.qkv_bias.data() : nullptr, q, stride);
    // q and k lie side by side: one rotation over H + K heads.
    kernels::RopeApply(n, config_.heads + config_.kv_heads, head_dim, tile_.position,
                       model_.rope().cos.data(), model_.rope().sin.data(), q, stride, false);
    const kernels::KvPages pages{cache.layer_keys(layer_), cache.layer_values(layer_),
                                 cache.page_stride_floats()};
    kernels::WriteKv(n, config_.kv_heads, head_dim, k, stride, v, stride, tile_.page_table,
                     tile_.position, pages);
    kernels::Attention(n, config_.heads, config_.kv_heads, head_dim, q, stride, tile_.page_table,
                       tile_.position, AttentionScale(config_), pages, attention, q_width,
                       kept_.lse.data() + at_ * config_.heads);
    kernels::Gemm(n, width, q_width, attention, q_width, {weights_.o.data()}, nullptr, middle,
                  width);
    AddTo(n * width, input, middle);
  }

  void FeedForward(float* activated, float* output) {
    const std::int64_t n = tile_.count, width = config_.width, ffn = config_.ffn_width;
    const float* middle = kept_.middle.data() + at_ * width;
    float* normed = kept_.middle_normed.data() + at_ * width;
    float* gate = kept_.gate_up.data() + at_ * 2 * ffn;
    kernels::RmsNormForward(n, width, middle, weights_.post_norm.data(),
                            static_cast<float>(config_.norm_eps), normed,
                            kept_.middle_inv_rms.data() + at_);
    kernels::Gemm(n, 2 * ffn, width, normed, width, {weights_.gate_up.data()}, nullptr, gate,
                  2 * ffn);
    kernels::SwigluForward(n, ffn, gate, 2 * ffn, gate + ffn, 2 * ffn, activated, ffn);
    kernels::Gemm(n, width, ffn, activated, ffn, {weights_.down.data()}, nullptr, output, width);
    AddTo(n * width, middle, output);
  }

 private:
  const PackedWeights& model_;
  const ModelConfig& config_;
  const PackedLayer& weights_;
  int layer_;
  const Tile& tile_;
  LayerActivations& kept_;
  std::int64_t at_;
};

void CheckRows(const ModelConfig& config, const RowBatch& rows) {
  THRESHER_CHECK(
      rows.position.size() == rows.token.size() && rows.page_table.size() == rows.token.size(),
      "rows of unequal columns");
  for (std::size_t t = 0; t < rows.token.size(); ++t) {
    THRESHER_CHECK(rows.token[t] >= 0 && rows.token[t] < config.vocab, "token out of range");
    THRESHER_CHECK(rows.position[t] >= 0 && rows.position[t] < config.context,
                   "position beyond the context");
  }
}

void ReserveTape(const PackedWeights& model, std::int32_t rows, Tape& tape) {
  tape.rows = rows;
  tape.layers.resize(static_cast<std::size_t>(model.config().layers));
  tape.residual.resize(tape.layers.size() + 1);
  for (auto& layer : tape.layers) layer.ReserveRows(model, rows);
  const auto floats =
      static_cast<std::size_t>(rows) * static_cast<std::size_t>(model.config().width);
  for (auto& residual : tape.residual) Reserve(residual, floats);
  Reserve(tape.final_inv_rms, static_cast<std::size_t>(rows));
}

void ReserveTile(const PackedWeights& model, std::int64_t rows, bool with_tape,
                 Workspace& workspace) {
  Reserve(workspace.activated, static_cast<std::size_t>(rows * model.config().ffn_width));
  if (with_tape) return;
  workspace.layer.ReserveRows(model, rows);
  Reserve(workspace.residual, static_cast<std::size_t>(rows * model.config().width));
  Reserve(workspace.final_inv_rms, static_cast<std::size_t>(rows));
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
  kernels::EmbeddingForward(tile.count, config.width, config.vocab, tokens, model.embedding(),
                            residual(0));
  for (int layer = 0; layer < config.layers; ++layer) {
    LayerActivations& kept =
        tape == nullptr ? workspace.layer : tape->layers[static_cast<std::size_t>(layer)];
    LayerPass pass(model, layer, tile, kept, at);
    pass.Attend(cache, residual(layer));
    pass.FeedForward(workspace.activated.data(), residual(layer + 1));
  }
  AlignedFloats& inv_rms = tape == nullptr ? workspace.final_inv_rms : tape->final_inv_rms;
  kernels::RmsNormForward(tile.count, config.width, residual(config.layers), model.final_norm(),
                          static_cast<float>(config.norm_eps), hidden, inv_rms.data() + at);
}

}  // namespace

float AttentionScale(const ModelConfig& config) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
}

void Forward(const PackedModel& packed, const RowBatch& rows, KvCache& cache, Workspace& workspace,
             std::span<float> hidden, Tape* tape) {
  const kernels::ScopedFpEnv environment;  // for the residual additions
  const PackedWeights& model = PackedWeights::Of(packed);
  const std::int32_t width = model.config().width;
  CheckRows(model.config(), rows);
  THRESHER_CHECK(hidden.size() == rows.token.size() * static_cast<std::size_t>(width),
                 "hidden is not [T, D]");
  if (tape != nullptr) ReserveTape(model, rows.rows(), *tape);
  ReserveTile(model, std::min(rows.rows(), kRowTile), tape != nullptr, workspace);
  for (std::int32_t begin = 0; begin < rows.rows(); begin += kRowTile) {
    const Tile tile{begin, std::min(kRowTile, rows.rows() - begin), rows.position.data() + begin,
                    rows.page_table.data() + begin};
    ForwardTile(model, tile, rows.token.data() + begin, cache, workspace,
                hidden.data() + static_cast<std::ptrdiff_t>(begin) * width, tape);
  }
}

}  // namespace thresher::model
