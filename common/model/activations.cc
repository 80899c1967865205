#include "common/model/activations.h"

#include "common/base/check.h"
#include "kernels/cpu/attention.h"

namespace thresher::model {

void LayerActivations::ReserveRows(const PackedWeights& model, std::int64_t rows, bool for_tape) {
  const ModelConfig& config = model.config();
  const auto grow = [rows](AlignedFloats& buffer, std::int64_t width) {
    Reserve(buffer, static_cast<std::size_t>(rows * width));
  };
  grow(input_inv_rms, 1);
  grow(input_normed, config.width);
  grow(qkv, model.qkv_width());
  if (config.qk_norm()) {
    grow(qk_inv_rms, RotatedHeads(config));
    if (for_tape) grow(qk_raw, RotatedHeads(config) * config.head_dim);
  }
  grow(attention, config.q_width());
  grow(lse, config.heads);
  grow(middle, config.width);
  grow(middle_inv_rms, 1);
  grow(middle_normed, config.width);
  grow(gate_up, 2 * std::int64_t{config.ffn_width});
}

std::size_t LayerActivations::floats() const {
  std::size_t sum = 0;
  for (const AlignedFloats* buffer :
       {&input_inv_rms, &input_normed, &qkv, &qk_raw, &qk_inv_rms, &attention, &lse, &middle,
        &middle_inv_rms, &middle_normed, &gate_up}) {
    sum += buffer->size();
  }
  return sum;
}

void AddTo(std::int64_t n, const float* x, float* y) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) y[i] += x[i];
}

void TapeDeleter::operator()(Tape* tape) const { delete tape; }
TapePtr NewTape(TapeKind kind) {
  TapePtr tape(new Tape);
  tape->kind = kind;
  return tape;
}

std::size_t TapeBytes(const Tape& tape) {
  std::size_t floats = tape.final_inv_rms.size();
  for (const LayerActivations& layer : tape.layers) floats += layer.floats();
  for (const AlignedFloats& residual : tape.residual) floats += residual.size();
  return floats * sizeof(float);
}

void WorkspaceDeleter::operator()(Workspace* workspace) const { delete workspace; }
WorkspacePtr NewWorkspace(WorkerPool* pool, double part_cost) {
  THRESHER_CHECK(part_cost > 0, "work of no cost");
  WorkspacePtr workspace(new Workspace);
  workspace->pool = pool;
  workspace->part_cost = part_cost;
  return workspace;
}

KvCache::KvCache(const ModelConfig& config, std::int32_t pages) : config_(config), pages_(pages) {
  THRESHER_CHECK(pages >= 0, "KV cache of negative size");
  const std::size_t floats = page_stride_floats() * static_cast<std::size_t>(pages) *
                             static_cast<std::size_t>(config.layers);
  for (ZeroPages* room : {&keys_, &values_}) {
    auto made = ZeroPages::Make(floats);
    THRESHER_CHECK(made.ok(), "KV cache: " + made.status().message());
    *room = std::move(made).value();
  }
}

std::size_t KvCache::page_stride_floats() const {
  return kernels::KvPageFloats(config_.kv_heads, config_.head_dim);
}

float* KvCache::layer_keys(int layer) {
  return keys_.data() +
         page_stride_floats() * static_cast<std::size_t>(pages_) * static_cast<std::size_t>(layer);
}

float* KvCache::layer_values(int layer) {
  return values_.data() +
         page_stride_floats() * static_cast<std::size_t>(pages_) * static_cast<std::size_t>(layer);
}

}  // namespace thresher::model
