#pragma once

#include <cstdint>

// The value head of a critic: v[t] = hidden[t] . weight + bias, over the hidden states after the
// final norm. fp32; ld*: distance of rows in floats.
// Bits: the sum runs over 16 virtual lanes (lane = index mod 16, fma ascending) and a fixed tree,
// the bias is added last. Row-pure.
namespace thresher::kernels {

// hidden: [T, D]; weight: [D]; bias: [1], or nullptr: none; value: [T].
void ValueHeadForward(std::int64_t t, std::int64_t d, const float* hidden, std::int64_t ldh,
                      const float* weight, const float* bias, float* value);

// The gradient of sum_t dvalue[t] * v[t]. All three results are accumulated, and each may be
// nullptr: not wanted. An element of dweight is one fma chain over the tokens in order, dbias a
// chain of additions, both continued from their present values; dhidden[t] gains dvalue[t] *
// weight. A token whose dvalue is 0 adds exactly nothing, whatever its hidden state holds.
struct ValueHeadBackwardArgs {
  std::int64_t t, d;
  const float* hidden;  // [T, D]
  std::int64_t ldh;
  const float* weight;  // [D]
  const float* dvalue;  // [T]
  float* dhidden;       // [T, D]; must not be hidden
  std::int64_t lddh;
  float* dweight;  // [D]
  float* dbias;    // [1]
};
void ValueHeadBackward(const ValueHeadBackwardArgs& args);

}  // namespace thresher::kernels
