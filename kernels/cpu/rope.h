#pragma once

#include <cstdint>

// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in the "rotate_half" convention of
// Hugging Face's Llama: element i is paired with element i + Dh/2.
namespace thresher::kernels {

// Fills cos and sin, each [max_positions, Dh/2]. inv_freq_i = theta^(-2i/Dh) is computed in double
// and rounded to float; the angle is float(position) * inv_freq_i in float, as Hugging Face does;
// its cosine and sine are computed by libm in double and rounded to float. A double libm result is
// within 1 ulp of double everywhere, so its rounding to float is the same on every C library but
// for about one value in 10^8; the table is part of no weight and a peer that must be certain can
// compare its hash. Dh even; theta > 0.
void RopeTable(std::int64_t max_positions, std::int64_t head_dim, double theta, float* cos,
               float* sin);

// The same for given inverse frequencies [Dh/2], such as those of a scaled context.
void RopeTable(std::int64_t max_positions, std::int64_t head_dim, const float* inv_freq, float* cos,
               float* sin);

// Rotates x in place: x is [T, heads, Dh], row t at x + t * ldx, heads contiguous. positions: int32
// [T], each in [0, max_positions). out1 = x1 cos - x2 sin, out2 = x2 cos + x1 sin, each as
// fma(second factor pair, rounded first product). inverse: rotates by the negative angle, which is
// both the inverse and the backward pass. Row-pure.
void RopeApply(std::int64_t t, std::int64_t heads, std::int64_t head_dim,
               const std::int32_t* positions, const float* cos, const float* sin, float* x,
               std::int64_t ldx, bool inverse);

}  // namespace thresher::kernels
