#pragma once

#include <cstdint>

// Gated linear unit with SiLU (Shazeer 2020, arXiv:2002.05202): y = silu(gate) * up,
// silu(g) = g / (1 + exp(-g)). fp32, elementwise, finite inputs. ld*: distance of rows in floats.
namespace thresher::kernels {

// gate, up, y: [T, F]. y may be gate or up.
void SwigluForward(std::int64_t t, std::int64_t f, const float* gate, std::int64_t ldg,
                   const float* up, std::int64_t ldu, float* y, std::int64_t ldy);

// dup = dy * silu(gate); dgate = dy * up * s * (1 + gate * (1 - s)), s = 1 / (1 + exp(-gate)).
// dgate, dup: [T, F], overwritten; they may be gate and up themselves. y [T, F] or nullptr: what
// SwigluForward gives, which costs less here than by itself; it may not be any of the others.
void SwigluBackward(std::int64_t t, std::int64_t f, const float* gate, std::int64_t ldg,
                    const float* up, std::int64_t ldu, const float* dy, std::int64_t lddy,
                    float* dgate, std::int64_t lddg, float* dup, std::int64_t lddu,
                    float* y = nullptr, std::int64_t ldy = 0);

}  // namespace thresher::kernels
