#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/config/config.h"
#include "common/model/model_config.h"
#include "common/model/weights.h"

namespace thresher::model {

// Low-rank adapters: of a matrix W [N, K] of a model, A [r, K] and B [N, r] are trained, and the
// model computes with
//   merged = W + scale (B A),   scale = alpha / r, or alpha / sqrt(r) (rank-stabilised),
// in fp32: each element of B A is one fma chain from +0, ascending in r; the product with `scale`
// and the sum are rounded on their own. Where B A is 0 the element is W's, by its bits, so with B =
// 0 the merged model is the base. The gradients of A and B come from that of the merged matrix, G:
//   dA = scale (B^T G), one fma chain ascending in N;  dB = scale (G A^T), as kernels::Gemm
//   (kFp32).
// Source: Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732 (rank-stabilised).
//
// All vectors are flat fp32. Adapters: of each target, in the order of ParameterList, A and then B.
// Base: the targets' own matrices one behind the other. Immutable; thread-safe.
class Lora {
 public:
  // The targets are the named matrices of every layer that are not frozen (by ordinal of
  // ParameterList; empty: none is). Error: kInvalidArgument (none is left), naming the key.
  static Result<Lora> Make(const LoraConfig& options, const ModelConfig& model,
                           const std::vector<bool>& frozen);

  int rank() const { return static_cast<int>(rank_); }
  float scale() const { return scale_; }
  const LoraConfig& options() const { return options_; }

  // A and B of each target: "model.layers.0.self_attn.q_proj.lora_A.weight"; offsets are in the
  // adapters. All of them decay.
  const std::vector<ParameterInfo>& parameters() const { return parameters_; }
  std::size_t count() const { return count_; }
  // The targets' own matrices; offsets are in the model's flat vector.
  const std::vector<ParameterInfo>& targets() const { return targets_; }
  std::size_t base_count() const { return base_count_; }
  // Whether every layer has the same targets.
  bool every_layer() const { return every_layer_; }

  // A uniform in +-1/sqrt(K) (Kaiming with a = sqrt 5, as PEFT has it), B zero: a pure function of
  // (model, options, seed), RandomStream of purpose kInit.
  std::vector<float> Initial(std::uint64_t seed) const;
  std::vector<float> BaseOf(std::span<const float> weights) const;
  // Writes target `index` of the model's flat vector.
  void Merge(std::size_t index, std::span<const float> base, std::span<const float> adapters,
             std::span<float> weights) const;
  // The gradient of the adapters from that of the model's flat vector, of which the targets are
  // read; `out` is overwritten.
  void Project(std::span<const float> adapters, std::span<const float> gradient,
               std::span<float> out) const;

 private:
  LoraConfig options_;
  std::size_t rank_ = 0;
  float scale_ = 0;
  std::vector<ParameterInfo> targets_, parameters_;
  std::vector<std::size_t> base_at_;  // of each target
  std::size_t count_ = 0, base_count_ = 0;
  bool every_layer_ = true;
};

}  // namespace thresher::model
