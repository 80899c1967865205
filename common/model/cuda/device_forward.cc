#include "common/model/cuda/device_forward.h"

#include "common/model/activations.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/rmsnorm.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/swiglu.h"

namespace thresher::model {
namespace cuda = kernels::cuda;

Status DeviceLayerActivations::Reserve(const ModelConfig& config, std::size_t rows, bool for_tape) {
  Status status;
  const auto grow = [&](DeviceArray<float>& array, std::int64_t width) {
    if (status.ok()) status = array.Reserve(rows * static_cast<std::size_t>(width));
  };
  grow(input_inv_rms, 1);
  grow(input_normed, config.width);
  grow(qkv, config.q_width() + 2 * config.kv_width());
  if (config.qk_norm()) {
    grow(qk_inv_rms, RotatedHeads(config));
    if (for_tape) grow(qk_raw, RotatedHeads(config) * config.head_dim);
  }
  grow(attention, config.q_width());
  if (for_tape) grow(lse, config.heads);
  grow(middle, config.width);
  grow(middle_inv_rms, 1);
  grow(middle_normed, config.width);
  grow(gate_up, 2 * std::int64_t{config.ffn_width});
  return status;
}

void DeviceForward::Embed(float* residual) {
  const DeviceMatrix& table = weights_.embedding();
  launch_("embedding",
          products_.set() == DeviceKernelSet::kFp32
              ? cuda::PackedRows(stream_, rows_.paged.t, config_.width, config_.vocab, rows_.token,
                                 table.packed, residual)
              : cuda::Bf16RowsOf(stream_, rows_.paged.t, rows_.token, table.rows, residual));
}

void DeviceForward::Norm(const float* x, const float* weight, float* y, float* inv_rms) {
  launch_("norm", cuda::RmsNormForward(stream_, rows_.paged.t, config_.width, x, weight,
                                       static_cast<float>(config_.norm_eps), y, inv_rms));
}

void DeviceForward::Project(const DeviceMatrix& w, const float* x, const float* bias, float* y) {
  launch_("product", products_.Product(rows_.paged.t, w, x, bias, y));
}

// Norms and rotates q and k, then writes k and v to the pages.
void DeviceForward::PlaceQkv(int layer, DeviceLayerActivations& kept, bool for_tape) {
  const DeviceLayer& weights = weights_.layer(layer);
  const std::int64_t t = rows_.paged.t, stride = weights_.qkv_width();
  const std::int64_t heads = RotatedHeads(config_), head_dim = config_.head_dim;
  float* q = kept.qkv.data();
  float* k = q + config_.q_width();
  if (config_.qk_norm()) {
    const auto eps = static_cast<float>(config_.norm_eps);
    float* inv_rms = kept.qk_inv_rms.data();
    if (for_tape) {
      launch_("copy of q and k", cuda::CopyRows(stream_, t, heads * head_dim, q, stride,
                                                kept.qk_raw.data(), heads * head_dim));
    }
    launch_("norm of q", cuda::RmsNormHeads(stream_, t, config_.heads, head_dim, q, stride,
                                            weights.q_norm, eps, inv_rms, heads));
    launch_("norm of k", cuda::RmsNormHeads(stream_, t, config_.kv_heads, head_dim, k, stride,
                                            weights.k_norm, eps, inv_rms + config_.heads, heads));
  }
  // q and k lie side by side: one rotation over H + K heads.
  launch_("rotation", cuda::RopeApply(stream_, t, heads, head_dim, rows_.paged.position,
                                      weights_.cos(), weights_.sin(), q, stride, false));
  launch_("write of keys and values",
          cuda::WriteKv(stream_, rows_.paged, config_.kv_heads, head_dim, k, stride,
                        k + config_.kv_width(), stride, kv_.layer(layer)));
  if (for_tape && products_.set() == DeviceKernelSet::kBf16) {
    // The gradient is that of the keys and values that attention reads: rounded ones.
    launch_("rounded keys and values",
            cuda::ReadKv(stream_, rows_.paged, config_.kv_heads, head_dim, kv_.layer(layer), k,
                         stride, k + config_.kv_width(), stride));
  }
}

void DeviceForward::AttendRows(cuda::AttentionArgs args, std::int64_t begin, std::int64_t end,
                               cuda::AttentionForm form) {
  if (begin == end) return;
  args.rows.t = end - begin;
  args.rows.position += begin, args.rows.sequence += begin;
  args.q += begin * args.ldq, args.out += begin * args.ldo;
  if (args.lse != nullptr) args.lse += begin * args.heads;
  launch_("attention", products_.Attention(args, scratch_, form));
}

void DeviceForward::Attend(int layer, const float* input, DeviceLayerActivations& kept,
                           bool for_tape) {
  const DeviceLayer& weights = weights_.layer(layer);
  Norm(input, weights.input_norm, kept.input_normed.data(), kept.input_inv_rms.data());
  Project(weights.qkv, kept.input_normed.data(), weights.qkv_bias, kept.qkv.data());
  PlaceQkv(layer, kept, for_tape);
  cuda::AttentionArgs args;
  args.rows = rows_.paged;
  args.max_positions = rows_.max_positions;
  args.heads = config_.heads, args.kv_heads = config_.kv_heads, args.head_dim = config_.head_dim;
  args.q = kept.qkv.data(), args.ldq = weights_.qkv_width();
  args.scale = AttentionScale(config_);
  args.kv = kv_.layer(layer);
  args.out = kept.attention.data(), args.ldo = config_.q_width();
  args.lse = for_tape ? kept.lse.data() : nullptr;
  AttendRows(args, 0, rows_.alone, cuda::AttentionForm::kAuto);
  AttendRows(args, rows_.alone, rows_.paged.t, cuda::AttentionForm::kRows);
  Project(weights.o, kept.attention.data(), nullptr, kept.middle.data());
  launch_("addition", cuda::AddRows(stream_, rows_.paged.t, config_.width, input, config_.width,
                                    kept.middle.data(), config_.width));
}

void DeviceForward::ProjectGateUp(int layer, DeviceLayerActivations& kept) {
  const DeviceLayer& weights = weights_.layer(layer);
  Norm(kept.middle.data(), weights.post_norm, kept.middle_normed.data(),
       kept.middle_inv_rms.data());
  Project(weights.gate_up, kept.middle_normed.data(), nullptr, kept.gate_up.data());
}

void DeviceForward::Layer(int layer, const float* input, DeviceLayerActivations& kept,
                          float* activated, float* output, bool for_tape) {
  const std::int64_t t = rows_.paged.t, ffn = config_.ffn_width, width = config_.width;
  Attend(layer, input, kept, for_tape);
  ProjectGateUp(layer, kept);
  const float* gate = kept.gate_up.data();
  launch_("gated unit",
          cuda::SwigluForward(stream_, t, ffn, gate, 2 * ffn, gate + ffn, 2 * ffn, activated, ffn));
  Project(weights_.layer(layer).down, activated, nullptr, output);
  launch_("addition", cuda::AddRows(stream_, t, width, kept.middle.data(), width, output, width));
}

}  // namespace thresher::model
