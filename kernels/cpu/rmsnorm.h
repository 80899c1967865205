#pragma once

#include <cstdint>

// Root-mean-square norm (Zhang & Sennrich 2019, arXiv:1910.07467), as Llama and Qwen2 use it:
// y = (x * inv_rms) * weight, inv_rms = 1 / sqrt(mean(x^2) + eps). fp32, rows contiguous.
// Bits: sums run over 16 virtual lanes (lane = index mod 16, fma ascending) and a fixed tree.
namespace thresher::kernels {

// x, y: [T, D] (y may be x); weight: [D]; inv_rms: [T] for the backward pass, or nullptr.
void RmsNormForward(std::int64_t t, std::int64_t d, const float* x, const float* weight, float eps,
                    float* y, float* inv_rms);

// With x_hat = x * inv_rms and g = dy * weight: dx = inv_rms * (g - x_hat * mean(g * x_hat)).
// dx [T, D] is overwritten (may be dy, must not be x). dweight [D] is accumulated: one fma chain of
// dy * x_hat over tokens ascending, continued from its present value; nullptr: not wanted.
void RmsNormBackward(std::int64_t t, std::int64_t d, const float* x, const float* weight,
                     const float* inv_rms, const float* dy, float* dx, float* dweight);

}  // namespace thresher::kernels
