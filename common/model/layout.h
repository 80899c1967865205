#pragma once

#include <cstddef>
#include <vector>

#include "common/model/model_config.h"

namespace thresher::model {

// Where each matrix lies in the flat parameter vector, in floats. ParameterList keeps q, k, v (and
// their biases, and gate and up) side by side, so that each group is one matrix to the kernels.
struct LayerLayout {
  std::size_t input_norm = 0;  // [D]
  std::size_t qkv = 0;         // [(H + 2K) Dh, D]
  std::size_t qkv_bias = 0;    // [(H + 2K) Dh]; unused without biases
  std::size_t q_norm = 0;      // [Dh]; unused without norms on q and k
  std::size_t k_norm = 0;      // [Dh]
  std::size_t o = 0;           // [D, H Dh]
  std::size_t post_norm = 0;   // [D]
  std::size_t gate_up = 0;     // [2F, D]
  std::size_t down = 0;        // [D, F]
};

struct Layout {
  std::size_t embedding = 0;  // [V, D]
  std::vector<LayerLayout> layers;
  std::size_t final_norm = 0;     // [D]
  std::size_t head = 0;           // [V, D]; the embedding's own offset when tied
  std::size_t head_gradient = 0;  // [V, D] in a gradient buffer; behind all parameters when tied
};

Layout MakeLayout(const ModelConfig& config);

}  // namespace thresher::model
