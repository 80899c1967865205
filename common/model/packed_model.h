#pragma once

#include <memory>
#include <span>
#include <vector>

#include "common/model/buffer.h"
#include "common/model/forward.h"
#include "common/model/layout.h"
#include "kernels/cpu/weight_type.h"

namespace thresher::model {

// Cosines and sines of all positions, [context, Dh/2] each.
struct RopeTables {
  AlignedFloats cos, sin;
};

// One layer's weights as the kernels take them. Packed as kernels/cpu/gemm.h says; `*_transposed`
// are empty without a backward pass.
struct PackedLayer {
  AlignedFloats input_norm, post_norm, qkv_bias;  // plain; qkv_bias empty without biases
  AlignedFloats qkv, o, gate_up, down;
  AlignedFloats qkv_transposed, o_transposed, gate_up_transposed, down_transposed;
};

// The only PackedModel there is.
class PackedWeights final : public PackedModel {
 public:
  PackedWeights(const ModelConfig& config, std::span<const float> flat, std::int32_t valid_vocab,
                bool with_backward);
  const ModelConfig& config() const override { return config_; }
  const Layout& layout() const { return layout_; }
  std::int32_t valid_vocab() const override { return valid_vocab_; }
  std::int32_t qkv_width() const { return config_.q_width() + 2 * config_.kv_width(); }
  bool with_backward() const { return with_backward_; }

  const RopeTables& rope() const { return *rope_; }
  const PackedLayer& layer(int index) const { return layers_[static_cast<std::size_t>(index)]; }
  const float* embedding() const { return embedding_.data(); }    // [V, D], plain
  const float* final_norm() const { return final_norm_.data(); }  // [D]
  kernels::PackedMatrix head() const { return {head_.data()}; }
  kernels::PackedMatrix head_transposed() const { return {head_transposed_.data()}; }

  static const PackedWeights& Of(const PackedModel& model) {
    return static_cast<const PackedWeights&>(model);
  }

 private:
  void PackLayer(std::span<const float> flat, const LayerLayout& from, PackedLayer& to) const;
  // W [n, k] at `w`, packed for y = x W^T or for dx = dy W.
  AlignedFloats Packed(const float* w, std::int64_t n, std::int64_t k) const;
  AlignedFloats Transposed(const float* w, std::int64_t n, std::int64_t k) const;

  ModelConfig config_;
  Layout layout_;
  std::int32_t valid_vocab_;
  bool with_backward_;
  std::shared_ptr<const RopeTables> rope_;
  AlignedFloats embedding_, final_norm_, head_, head_transposed_;
  std::vector<PackedLayer> layers_;
};

}  // namespace thresher::model
