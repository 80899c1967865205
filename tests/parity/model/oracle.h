#pragma once

#include <torch/torch.h>

#include <map>
#include <span>
#include <string>

#include "common/model/model_config.h"

namespace thresher::model {

// The model once more, in float64, of plain torch operations: no kernel, no packing, no page of
// ours.
//
// With `noise` every operation's result is off by a random sign times what rounding to float32 may
// cost it: u |y| for one operation, u |x| |W| for a product (partial sums of K terms of random sign
// grow like sqrt(K) and so do their summed roundings, which makes K of them; Higham 2002,
// sections 3.1 and 4.5). How far a noisy result strays from the exact one is thus the error that a
// correct float32 implementation shows.
class Oracle {
 public:
  Oracle(const ModelConfig& config, std::span<const float> flat, bool noise);

  // tokens: int64 [T] of one sequence from position 0. Returns logits float64 [T, V].
  torch::Tensor Logits(const torch::Tensor& tokens) const;
  // Computes with `value` in the place of a parameter, which has no gradient then.
  void Set(const std::string& name, const torch::Tensor& value) { parameters_.at(name) = value; }
  // Leaves by Hugging Face name; their gradients after backward().
  const std::map<std::string, torch::Tensor>& parameters() const { return parameters_; }

 private:
  const torch::Tensor& At(const std::string& name) const { return parameters_.at(name); }
  torch::Tensor Rounded(const torch::Tensor& y, double operations = 1) const;
  torch::Tensor Product(const torch::Tensor& x, const torch::Tensor& w) const;
  torch::Tensor Linear(const torch::Tensor& x, const std::string& name) const;
  torch::Tensor Norm(const torch::Tensor& x, const std::string& name) const;
  torch::Tensor Rotate(const torch::Tensor& x) const;
  torch::Tensor Attend(const torch::Tensor& normed, const std::string& prefix) const;

  ModelConfig config_;
  std::map<std::string, torch::Tensor> parameters_;
  bool noise_;
};

}  // namespace thresher::model
