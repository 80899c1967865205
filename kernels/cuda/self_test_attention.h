#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "kernels/cuda/attention_bf16.h"

// The part of the start-up test (self_test.h) on attention: each form stays within its bound of the
// plain form, all give the same bits, and a row's bits depend neither on the rows beside it nor on
// what its sequence holds behind it.
namespace thresher::kernels::cuda {

struct Bf16AttentionVerdict {
  unsigned forms = 0;                                  // for AttentionBf16
  std::array<std::string, kBf16AttentionForms> lines;  // by form: "rows: ok, 0.2 of its bound"
  std::string error;  // why the form kRows, without which there is no attention, may not be used
};

struct Bf16AttentionSelfTest {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;  // ServesAttentionBf16(head_dim)
  bool brief = false;                                  // a fraction of the rows: for tests
  // Called after each launch with its results [T, H, Dh] on the device: where tests plant failures.
  // The stream is idle.
  std::function<void(Bf16AttentionForm form, std::int64_t t, float* out)> after;
  // The same for the gradient: of all sequences at once, and of the last one apart.
  std::function<void(float* whole, float* apart)> after_grad;
};

// Runs the test on the current device; blocks until it is done. Takes some MiB of device memory and
// frees them. Data are seeded: sequences of up to seven splits in scattered pages, rows in runs and
// alone. An error of the runtime is the verdict's error.
Bf16AttentionVerdict RunBf16AttentionSelfTest(cudaStream_t stream,
                                              const Bf16AttentionSelfTest& test);

// The same of AttentionBackwardBf16: within its bound of the plain form, a sequence's bits the same
// alone. Empty, or what failed.
std::string TestBf16AttentionBackward(cudaStream_t stream, const Bf16AttentionSelfTest& test);

}  // namespace thresher::kernels::cuda
