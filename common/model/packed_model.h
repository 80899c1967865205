#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "common/model/arena.h"
#include "common/model/buffer.h"
#include "common/model/forward.h"
#include "common/model/layout.h"
#include "common/model/weight_source.h"
#include "common/model/zero_pages.h"
#include "kernels/cpu/weight_type.h"

namespace thresher::model {

// Cosines and sines, [context, Dh/2] each, computed for as many positions as have been asked for:
// a long context costs nothing before it is used. Shared by threads.
class RopeTables {
 public:
  // Error: kResourceExhausted.
  static Result<std::shared_ptr<RopeTables>> Make(const ModelConfig& config,
                                                  std::vector<float> frequencies);
  // Fills positions [0, positions), at most the context. What was filled stays as it is.
  void Require(std::int32_t positions);
  const float* cos() const { return cos_.data(); }
  const float* sin() const { return sin_.data(); }

 private:
  RopeTables(const ModelConfig& config, std::vector<float> frequencies, ZeroPages cos,
             ZeroPages sin);

  std::int32_t context_, head_dim_;
  std::vector<float> frequencies_;  // [Dh/2]
  ZeroPages cos_, sin_;
  std::mutex filling_;
  std::atomic<std::int32_t> filled_{0};
};

// One layer's weights as the kernels take them: matrices packed as kernels/cpu/gemm.h says, vectors
// plain fp32. `*_transposed` (fp32) are empty without a backward pass. All lie in the model's
// arena.
struct PackedLayer {
  const float* input_norm = nullptr;  // [D]
  const float* post_norm = nullptr;   // [D]
  const float* qkv_bias = nullptr;    // [(H + 2K) Dh], or nullptr
  const float* q_norm = nullptr;      // [Dh], or nullptr
  const float* k_norm = nullptr;      // [Dh], or nullptr
  kernels::PackedMatrix qkv, o, gate_up, down;
  kernels::PackedMatrix qkv_transposed, o_transposed, gate_up_transposed, down_transposed;
};

// At least what all pieces of a packed model take: several tensors of one matrix fill fewer panels
// together than each by itself.
std::size_t PackedModelBytes(const ModelConfig& config, kernels::WeightType type,
                             bool with_backward);

// The only PackedModel there is.
class PackedWeights final : public PackedModel {
 public:
  // Packs everything that `source` gives. What PackedModel::Make requires is checked (a bug if
  // not so). Errors: the source's; kResourceExhausted.
  static Result<std::shared_ptr<const PackedWeights>> Pack(
      const ModelConfig& config, WeightSource& source, std::int32_t valid_vocab, bool with_backward,
      std::shared_ptr<const PackedModel> spare);
  const ModelConfig& config() const override { return config_; }
  kernels::WeightType weight_type() const override { return type_; }
  std::size_t packed_bytes() const override { return arena_.used_bytes(); }
  const Layout& layout() const { return layout_; }
  // All of it: what the pointers of the layers and of the head point into.
  std::span<const std::byte> bytes() const { return {arena_.data(), arena_.used_bytes()}; }
  std::int32_t valid_vocab() const override { return valid_vocab_; }
  std::int32_t qkv_width() const { return config_.q_width() + 2 * config_.kv_width(); }
  bool with_backward() const { return with_backward_; }

  RopeTables& rope() const { return *rope_; }
  const PackedLayer& layer(int index) const { return layers_[static_cast<std::size_t>(index)]; }
  // [V, D]; rows are looked up with kernels::PackedRow. The same as head() when tied.
  kernels::PackedMatrix embedding() const { return embedding_; }
  const float* final_norm() const { return final_norm_; }  // [D]
  kernels::PackedMatrix head() const { return head_; }
  kernels::PackedMatrix head_transposed() const { return head_transposed_; }

  static const PackedWeights& Of(const PackedModel& model) {
    return static_cast<const PackedWeights&>(model);
  }

 private:
  friend class Packer;
  PackedWeights(const ModelConfig& config, std::int32_t valid_vocab, bool with_backward,
                kernels::WeightType type, Arena arena, std::shared_ptr<RopeTables> rope);

  ModelConfig config_;
  Layout layout_;
  std::int32_t valid_vocab_;
  bool with_backward_;
  kernels::WeightType type_;
  Arena arena_;
  std::shared_ptr<RopeTables> rope_;
  kernels::PackedMatrix embedding_, head_, head_transposed_;
  const float* final_norm_ = nullptr;
  std::vector<PackedLayer> layers_;
};

}  // namespace thresher::model
