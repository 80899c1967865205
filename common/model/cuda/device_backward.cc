#include "common/model/cuda/device_backward.h"

#include "common/model/activations.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/rmsnorm.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/swiglu.h"

namespace thresher::model {

namespace cuda = kernels::cuda;

void DeviceBackward::ThroughProduct(const DeviceMatrix& w, const float* dy, const float* x,
                                    float* dx, float* dw) {
  launch_("product of a gradient", products_.InputGrad(t(), w, dy, dx));
  launch_("gradient of weights", products_.WeightGrad(t(), w.n, w.k, dy, w.n, x, dw));
}

// Adds to dresidual what comes through the norm before it.
void DeviceBackward::ThroughNorm(const float* x, const float* weight, const float* inv_rms,
                                 float* dweight) {
  float* dnormed = scratch_.dnormed.data();
  launch_("gradient of a norm", cuda::RmsNormBackward(stream_, t(), config_.width, x, weight,
                                                      inv_rms, dnormed, dnormed, dweight));
  launch_("addition", cuda::AddRows(stream_, t(), config_.width, dnormed, config_.width,
                                    scratch_.dresidual.data(), config_.width));
}

void DeviceBackward::FinalNorm(const float* dhidden) {
  launch_("gradient of the final norm",
          cuda::RmsNormBackward(stream_, t(), config_.width, tape_.input(config_.layers),
                                weights_.final_norm(), tape_.final_inv_rms.data(), dhidden,
                                scratch_.dresidual.data(), gradient_ + layout_.final_norm));
}

void DeviceBackward::FeedForward(int layer) {
  const DeviceLayer& weights = weights_.layer(layer);
  const LayerLayout& at = layout_.layers[static_cast<std::size_t>(layer)];
  DeviceLayerActivations& kept = tape_.layer(layer);
  const std::int64_t width = config_.width, ffn = config_.ffn_width;
  const float* gate = kept.gate_up.data();
  const float* dresidual = scratch_.dresidual.data();
  float* dgate = scratch_.dgate_up.data();
  launch_("product of a gradient",
          products_.InputGrad(t(), weights.down, dresidual, scratch_.dactivated.data()));
  launch_("gradient of the gated unit",
          cuda::SwigluBackward(stream_, t(), ffn, gate, 2 * ffn, gate + ffn, 2 * ffn,
                               scratch_.dactivated.data(), ffn, dgate, 2 * ffn, dgate + ffn,
                               2 * ffn, scratch_.activated.data(), ffn));
  launch_("gradient of weights",
          products_.WeightGrad(t(), width, ffn, dresidual, width, scratch_.activated.data(),
                               gradient_ + at.down));
  ThroughProduct(weights.gate_up, dgate, kept.middle_normed.data(), scratch_.dnormed.data(),
                 gradient_ + at.gate_up);
  ThroughNorm(kept.middle.data(), weights.post_norm, kept.middle_inv_rms.data(),
              gradient_ + at.post_norm);
}

void DeviceBackward::Output(int layer) {
  const LayerLayout& at = layout_.layers[static_cast<std::size_t>(layer)];
  ThroughProduct(weights_.layer(layer).o, scratch_.dresidual.data(),
                 tape_.layer(layer).attention.data(), scratch_.dattention.data(), gradient_ + at.o);
}

void DeviceBackward::Attend(int layer) {
  DeviceLayerActivations& kept = tape_.layer(layer);
  const std::int64_t stride = weights_.qkv_width(), q_width = config_.q_width();
  kernels::AttentionBackwardArgs args{};
  args.t = t();
  args.heads = config_.heads, args.kv_heads = config_.kv_heads, args.head_dim = config_.head_dim;
  args.scale = AttentionScale(config_);
  args.q = kept.qkv.data();
  args.k = args.q + q_width;
  args.v = args.k + config_.kv_width();
  args.out = kept.attention.data();
  args.dout = scratch_.dattention.data();
  args.lse = kept.lse.data();
  args.dq = scratch_.dqkv.data();
  args.dk = args.dq + q_width;
  args.dv = args.dk + config_.kv_width();
  args.ldq = args.ldk = args.ldv = args.lddq = args.lddk = args.lddv = stride;
  args.ldo = args.lddo = q_width;
  launch_("gradient of attention",
          products_.AttentionBackward(args, sequences_, scratch_.attention.data()));
  launch_("rotation", cuda::RopeApply(stream_, t(), RotatedHeads(config_), config_.head_dim,
                                      rows_.paged.position, weights_.cos(), weights_.sin(),
                                      scratch_.dqkv.data(), stride, true));
  if (config_.qk_norm()) HeadNorms(layer);
}

void DeviceBackward::HeadNorms(int layer) {
  const DeviceLayer& weights = weights_.layer(layer);
  const LayerLayout& at = layout_.layers[static_cast<std::size_t>(layer)];
  DeviceLayerActivations& kept = tape_.layer(layer);
  const std::int64_t heads = RotatedHeads(config_), head_dim = config_.head_dim;
  const std::int64_t stride = weights_.qkv_width();
  const float* q = kept.qk_raw.data();
  const float* inv_rms = kept.qk_inv_rms.data();
  float* dq = scratch_.dqkv.data();
  launch_("gradient of q's norm",
          cuda::RmsNormHeadsBackward(stream_, t(), config_.heads, head_dim, q, heads * head_dim,
                                     weights.q_norm, inv_rms, heads, dq, stride,
                                     gradient_ + at.q_norm));
  launch_(
      "gradient of k's norm",
      cuda::RmsNormHeadsBackward(stream_, t(), config_.kv_heads, head_dim, q + config_.q_width(),
                                 heads * head_dim, weights.k_norm, inv_rms + config_.heads, heads,
                                 dq + config_.q_width(), stride, gradient_ + at.k_norm));
}

void DeviceBackward::Input(int layer) {
  const DeviceLayer& weights = weights_.layer(layer);
  const LayerLayout& at = layout_.layers[static_cast<std::size_t>(layer)];
  DeviceLayerActivations& kept = tape_.layer(layer);
  const std::int64_t stride = weights_.qkv_width();
  const float* dqkv = scratch_.dqkv.data();
  ThroughProduct(weights.qkv, dqkv, kept.input_normed.data(), scratch_.dnormed.data(),
                 gradient_ + at.qkv);
  if (config_.qkv_bias) {
    launch_("gradient of biases",
            cuda::BiasGrad(stream_, t(), stride, dqkv, stride, gradient_ + at.qkv_bias));
  }
  ThroughNorm(tape_.input(layer), weights.input_norm, kept.input_inv_rms.data(),
              gradient_ + at.input_norm);
}

void DeviceBackward::Layer(int layer) {
  FeedForward(layer);
  Output(layer);
  Attend(layer);
  Input(layer);
}

void DeviceBackward::Embedding() {
  launch_("gradient of the embedding",
          cuda::EmbeddingBackward(stream_, t(), config_.width, config_.vocab, rows_.token,
                                  scratch_.dresidual.data(), gradient_ + layout_.embedding));
}

}  // namespace thresher::model
