#include <algorithm>

#include "common/base/check.h"
#include "common/model/activations.h"
#include "common/model/forward.h"
#include "common/model/weights.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/swiglu.h"

namespace thresher::model {
namespace {

// Backward of one layer. dresidual [T, D] holds the gradient of the layer's output before, of its
// input after. Every weight gradient is taken tile by tile, rows ascending, so that its chain is
// that of one call over all rows.
class LayerBackward {
 public:
  LayerBackward(const PackedWeights& model, int layer, const RowBatch& rows, const Tape& tape,
                Workspace& workspace, std::span<float> gradient, LayerNeeds needs)
      : model_(model),
        config_(model.config()),
        weights_(model.layer(layer)),
        at_(model.layout().layers[static_cast<std::size_t>(layer)]),
        rows_(rows),
        kept_(
            tape.layers[tape.kind == TapeKind::kLayerInputs ? 0 : static_cast<std::size_t>(layer)]),
        input_(tape.residual[static_cast<std::size_t>(layer)].data()),
        scratch_(workspace),
        gradient_(gradient.data()),
        needs_(needs) {}

  void Run() {
    const std::int32_t rows = rows_.rows();
    const auto each = [rows](const auto& step) { ForEachTile(rows, step, kGradTile); };
    each([this](std::int32_t begin, std::int32_t n) { FeedForward(begin, n); });
    each([this](std::int32_t begin, std::int32_t n) { Output(begin, n); });
    Attend();
    each([this](std::int32_t begin, std::int32_t n) { Input(begin, n); });
  }

 private:
  // Through down, SwiGLU, gate and up, and the norm before them; adds to dresidual. Small tiles
  // keep what passes from product to product in the cache.
  void FeedForward(std::int64_t begin, std::int32_t n) {
    const std::int64_t width = config_.width, ffn = config_.ffn_width;
    const float* dresidual = scratch_.dresidual.data() + begin * width;
    const float* dgate = scratch_.dgate_up.data();
    ForEachTile(n, [&](std::int64_t at, std::int64_t rows) { ThroughDown(begin, at, rows); });
    if (needs_.down) {
      kernels::GemmAccumulateWeightGrad(n, width, ffn, dresidual, width, scratch_.activated.data(),
                                        ffn, gradient_ + at_.down);
    }
    if (needs_.gate_up) {
      kernels::GemmAccumulateWeightGrad(n, 2 * ffn, width, dgate, 2 * ffn,
                                        kept_.middle_normed.data() + begin * width, width,
                                        gradient_ + at_.gate_up);
    }
    ForEachTile(n, [&](std::int64_t at, std::int64_t rows) {
      const std::int64_t row = begin + at;
      kernels::Gemm(rows, width, 2 * ffn, dgate + at * 2 * ffn, 2 * ffn,
                    weights_.gate_up_transposed, nullptr, scratch_.dnormed.data(), width);
      ThroughNorm(rows, kept_.middle.data() + row * width, weights_.post_norm,
                  kept_.middle_inv_rms.data() + row, gradient_ + at_.post_norm,
                  scratch_.dresidual.data() + row * width);
    });
  }

  // dresidual -> dgate_up, and what SwiGLU gave; of rows from `at` on of the tile at `begin`.
  void ThroughDown(std::int64_t begin, std::int64_t at, std::int64_t n) {
    const std::int64_t width = config_.width, ffn = config_.ffn_width;
    const float* gate = kept_.gate_up.data() + (begin + at) * 2 * ffn;
    float* dactivated = scratch_.dactivated.data();
    float* dgate = scratch_.dgate_up.data() + at * 2 * ffn;
    kernels::Gemm(n, ffn, width, scratch_.dresidual.data() + (begin + at) * width, width,
                  weights_.down_transposed, nullptr, dactivated, ffn);
    kernels::SwigluBackward(n, ffn, gate, 2 * ffn, gate + ffn, 2 * ffn, dactivated, ffn, dgate,
                            2 * ffn, dgate + ffn, 2 * ffn, scratch_.activated.data() + at * ffn,
                            ffn);
  }

  // Through o: dresidual -> dattention.
  void Output(std::int64_t begin, std::int64_t n) {
    const std::int64_t width = config_.width, q_width = config_.q_width();
    const float* dresidual = scratch_.dresidual.data() + begin * width;
    if (needs_.o) {
      kernels::GemmAccumulateWeightGrad(n, width, q_width, dresidual, width,
                                        kept_.attention.data() + begin * q_width, q_width,
                                        gradient_ + at_.o);
    }
    kernels::Gemm(n, q_width, width, dresidual, width, weights_.o_transposed, nullptr,
                  scratch_.dattention.data() + begin * q_width, q_width);
  }

  // dattention -> dqkv, before RoPE and norms, sequence by sequence.
  void Attend() {
    const std::int32_t total = rows_.rows();
    for (std::int32_t begin = 0; begin < total;) {
      std::int32_t end = begin + 1;
      while (end < total && rows_.position[static_cast<std::size_t>(end)] != 0) ++end;
      AttendSequence(begin, end - begin);
      begin = end;
    }
    kernels::RopeApply(total, RotatedHeads(config_), config_.head_dim, rows_.position.data(),
                       model_.rope().cos(), model_.rope().sin(), scratch_.dqkv.data(),
                       model_.qkv_width(), true);
    if (config_.qk_norm()) ThroughHeadNorms();
  }

  // In place in dqkv. The gradient of a norm's weight is one chain over rows, and heads in a row.
  void ThroughHeadNorms() {
    const std::int64_t head_dim = config_.head_dim, heads = RotatedHeads(config_);
    for (std::int64_t t = 0; t < rows_.rows(); ++t) {
      const float* q = kept_.qk_raw.data() + t * heads * head_dim;
      const float* inv_rms = kept_.qk_inv_rms.data() + t * heads;
      float* dq = scratch_.dqkv.data() + t * model_.qkv_width();
      float* dk = dq + config_.q_width();
      kernels::RmsNormBackward(config_.heads, head_dim, q, weights_.q_norm, inv_rms, dq, dq,
                               gradient_ + at_.q_norm);
      kernels::RmsNormBackward(config_.kv_heads, head_dim, q + config_.q_width(), weights_.k_norm,
                               inv_rms + config_.heads, dk, dk, gradient_ + at_.k_norm);
    }
  }

  void AttendSequence(std::int64_t begin, std::int64_t count) {
    const std::int64_t stride = model_.qkv_width(), q_width = config_.q_width();
    const std::int64_t kv_width = config_.kv_width();
    kernels::AttentionBackwardArgs args{};
    args.t = count;
    args.heads = config_.heads;
    args.kv_heads = config_.kv_heads;
    args.head_dim = config_.head_dim;
    args.scale = AttentionScale(config_);
    args.q = kept_.qkv.data() + begin * stride;
    args.k = args.q + q_width;
    args.v = args.k + kv_width;
    args.out = kept_.attention.data() + begin * q_width;
    args.dout = scratch_.dattention.data() + begin * q_width;
    args.lse = kept_.lse.data() + begin * config_.heads;
    args.dq = scratch_.dqkv.data() + begin * stride;
    args.dk = args.dq + q_width;
    args.dv = args.dk + kv_width;
    args.ldq = args.ldk = args.ldv = args.lddq = args.lddk = args.lddv = stride;
    args.ldo = args.lddo = q_width;
    kernels::AttentionBackward(args);
  }

  // Through q, k, v and the norm before them; adds to dresidual.
  void Input(std::int64_t begin, std::int32_t n) {
    const std::int64_t width = config_.width, stride = model_.qkv_width();
    const float* dqkv = scratch_.dqkv.data() + begin * stride;
    if (needs_.qkv) {
      kernels::GemmAccumulateWeightGrad(n, stride, width, dqkv, stride,
                                        kept_.input_normed.data() + begin * width, width,
                                        gradient_ + at_.qkv);
    }
    if (config_.qkv_bias) kernels::BiasGrad(n, stride, dqkv, stride, gradient_ + at_.qkv_bias);
    ForEachTile(n, [&](std::int64_t at, std::int64_t rows) {
      const std::int64_t row = begin + at;
      kernels::Gemm(rows, width, stride, dqkv + at * stride, stride, weights_.qkv_transposed,
                    nullptr, scratch_.dnormed.data(), width);
      ThroughNorm(rows, input_ + row * width, weights_.input_norm, kept_.input_inv_rms.data() + row,
                  gradient_ + at_.input_norm, scratch_.dresidual.data() + row * width);
    });
  }

  void ThroughNorm(std::int64_t n, const float* x, const float* weight, const float* inv_rms,
                   float* dweight, float* dresidual) {
    float* dnormed = scratch_.dnormed.data();
    kernels::RmsNormBackward(n, config_.width, x, weight, inv_rms, dnormed, dnormed, dweight);
    AddTo(n * config_.width, dnormed, dresidual);
  }

  const PackedWeights& model_;
  const ModelConfig& config_;
  const PackedLayer& weights_;
  const LayerLayout& at_;
  const RowBatch& rows_;
  const LayerActivations& kept_;
  const float* input_;
  Workspace& scratch_;
  float* gradient_;
  const LayerNeeds needs_;
};

void ReserveBackward(const PackedWeights& model, std::int64_t rows, Workspace& workspace) {
  const ModelConfig& config = model.config();
  const std::int64_t tile = std::min<std::int64_t>(rows, kRowTile);
  const std::int64_t grad_tile = std::min<std::int64_t>(rows, kGradTile);
  const auto grow = [](AlignedFloats& buffer, std::int64_t floats) {
    Reserve(buffer, static_cast<std::size_t>(floats));
  };
  grow(workspace.dresidual, rows * config.width);
  grow(workspace.dattention, rows * config.q_width());
  grow(workspace.dqkv, rows * model.qkv_width());
  grow(workspace.activated, grad_tile * config.ffn_width);
  grow(workspace.dactivated, tile * config.ffn_width);
  grow(workspace.dgate_up, grad_tile * 2 * config.ffn_width);
  grow(workspace.dnormed, tile * config.width);
}

// The lowest layer whose backward pass leads to a gradient that is used; that of all: none.
int LowestLayer(const ModelConfig& config, const GradientNeeds& needs) {
  if (needs.embedding) return 0;
  int layer = 0;
  while (layer < config.layers && !needs.layer(layer).any) ++layer;
  return layer;
}

void CheckWholeSequences(const RowBatch& rows) {
  for (std::size_t t = 0; t < rows.position.size(); ++t) {
    const bool continues = t > 0 && rows.position[t] == rows.position[t - 1] + 1;
    THRESHER_CHECK(rows.position[t] == 0 || continues, "rows are not whole sequences");
  }
}

}  // namespace

std::size_t GradientSize(const ModelConfig& config) {
  const auto head = static_cast<std::size_t>(config.vocab) * static_cast<std::size_t>(config.width);
  return ParameterCount(config) + (config.tied_embeddings ? head : 0);
}

void FoldTiedGradient(const ModelConfig& config, std::span<float> gradient) {
  THRESHER_CHECK(gradient.size() == GradientSize(config), "gradient of another model");
  if (!config.tied_embeddings) return;
  const kernels::ScopedFpEnv environment;
  const Layout layout = MakeLayout(config);
  AddTo(std::int64_t{config.vocab} * config.width, gradient.data() + layout.head_gradient,
        gradient.data() + layout.embedding);
}

void Backward(const PackedModel& packed, const RowBatch& rows, Tape& tape,
              std::span<const float> dhidden, Workspace& workspace, std::span<float> gradient,
              const GradientNeeds& needs, const OnFinal& on_final) {
  const kernels::ScopedFpEnv environment;  // for the residual additions
  const PackedWeights& model = PackedWeights::Of(packed);
  const ModelConfig& config = model.config();
  THRESHER_CHECK(model.with_backward(), "model was packed without a backward pass");
  THRESHER_CHECK(tape.rows == rows.rows(), "tape of other rows");
  THRESHER_CHECK(dhidden.size() == rows.token.size() * static_cast<std::size_t>(config.width),
                 "dhidden is not [T, D]");
  THRESHER_CHECK(gradient.size() == GradientSize(config), "gradient of another model");
  CheckWholeSequences(rows);
  if (rows.rows() == 0) return;
  ReserveBackward(model, rows.rows(), workspace);
  float* dresidual = workspace.dresidual.data();
  kernels::RmsNormBackward(rows.rows(), config.width, tape.residual.back().data(),
                           model.final_norm(), tape.final_inv_rms.data(), dhidden.data(), dresidual,
                           gradient.data() + model.layout().final_norm);
  if (on_final) on_final(model.layout().final_norm);
  const int lowest = LowestLayer(config, needs);
  for (int layer = config.layers - 1; layer >= lowest; --layer) {
    if (tape.kind == TapeKind::kLayerInputs) RecomputeLayer(model, layer, rows, workspace, tape);
    LayerBackward(model, layer, rows, tape, workspace, gradient, needs.layer(layer)).Run();
    if (on_final) on_final(model.layout().layers[static_cast<std::size_t>(layer)].input_norm);
  }
  if (!needs.embedding) return;
  kernels::EmbeddingBackward(rows.rows(), config.width, config.vocab, rows.token.data(), dresidual,
                             gradient.data() + model.layout().embedding);
}

}  // namespace thresher::model
