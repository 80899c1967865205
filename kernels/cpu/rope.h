#pragma once

#include <cstdint>

// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in the "rotate_half" convention of
// Hugging Face's Llama: element i is paired with element i + Dh/2.
namespace thresher::kernels {

// Fills cos and sin, each [max_positions, Dh/2]. inv_freq_i = theta^(-2i/Dh) is computed in double
// and rounded to float; the angle is float(position) * inv_freq_i in float, as Hugging Face does;
// its cosine and sine are computed in double and rounded to float, by own arithmetic of fma alone
// (SinCos), so that the tables have the same bits on every machine: C libraries differ about once
// in 10^8 values. Dh even; theta > 0.
void RopeTable(std::int64_t max_positions, std::int64_t head_dim, double theta, float* cos,
               float* sin);

// The same for given inverse frequencies [Dh/2], such as those of a scaled context, and positions
// [begin, end) alone: row p of the tables is position p.
void RopeTable(std::int64_t begin, std::int64_t end, std::int64_t head_dim, const float* inv_freq,
               float* cos, float* sin);

// Sine and cosine of a float angle within 2^-51 of the true ones, |angle| <= 2^25.
void SinCos(float angle, double* sin, double* cos);

// Rotates x in place: x is [T, heads, Dh], row t at x + t * ldx, heads contiguous. positions: int32
// [T], each in [0, max_positions). out1 = x1 cos - x2 sin, out2 = x2 cos + x1 sin, each as
// fma(second factor pair, rounded first product). inverse: rotates by the negative angle, which is
// both the inverse and the backward pass. Row-pure.
void RopeApply(std::int64_t t, std::int64_t heads, std::int64_t head_dim,
               const std::int32_t* positions, const float* cos, const float* sin, float* x,
               std::int64_t ldx, bool inverse);

}  // namespace thresher::kernels
