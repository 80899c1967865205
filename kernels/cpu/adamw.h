#pragma once

#include <cstdint>

namespace thresher::kernels {

// What a step of AdamW multiplies with; all but `keep` are of the whole step.
struct AdamWFactors {
  float beta1, beta2, rest1, rest2;  // rest: 1 - beta
  float scale;                       // of the gradient (clipping)
  float step_size;                   // learning rate / (1 - beta1^t)
  float root_correction;             // 1 / sqrt(1 - beta2^t)
  float epsilon;
  float keep;  // 1 - learning rate * weight decay; 1 where nothing decays
};

// One step of AdamW for n elements of the weights and both moments, in place, each element by
// itself, every operation rounded to fp32:
//   g = gradient scale;  m = beta1 m + rest1 g;  v = beta2 v + rest2 (g g)
//   w = w keep - step_size (m / (sqrt(v) root_correction + epsilon))
// Source: Loshchilov & Hutter 2019, arXiv:1711.05101, as in torch.optim.AdamW.
void AdamWUpdate(std::int64_t n, const AdamWFactors& factors, const float* gradient, float* weights,
                 float* first_moment, float* second_moment);

}  // namespace thresher::kernels
