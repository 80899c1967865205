#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/gemm_bf16.h"

// The start-up test of the kernel set cuda-bf16-sm90-v1 on a device. What the hardware's
// documentation leaves open, and what no test without the hardware can show, is measured: each form
// of the products stays within its bound of the plain form, all give the same bits, and a row's
// bits do not depend on its batch. A form that fails is not used, so a kernel that is wrong on some
// device does no harm there.
namespace thresher::kernels::cuda {

// What was seen of one form, over all shapes. Texts say where ("N 896, K 4864: ..."); empty:
// nowhere.
struct Bf16Evidence {
  std::string error;                            // of a launch
  double worst = 0;                             // largest |form - plain| / bound; infinite: NaN
  std::string worst_at;                         // shape, token and output of it
  std::string impure;                           // where a row's bits first changed with its batch
  std::array<std::string, kBf16Forms> differs;  // where its bits first were not that form's
};

// Which forms may be used, and why not the others.
struct Bf16Verdict {
  unsigned forms = 0;                         // for Bf16Device::forms
  std::array<std::string, kBf16Forms> lines;  // by form: "tile: ok, 0.02 of its bound"
  std::string error;                          // why none may: one line; empty if some may
  std::string weight_grad;                    // why WeightGradBf16 may not be used; empty: it may
};

// The reference is the first form, in the order of Bf16Form, that ran, is within its bound and is
// pure; a form is used if it is all that and never differed from the reference. Pure logic.
Bf16Verdict JudgeBf16(const std::array<Bf16Evidence, kBf16Forms>& evidence);

struct Bf16SelfTest {
  struct Shape {
    std::int64_t n = 0, k = 0;
    bool grad = false;  // GemmBf16InputGrad of W [n, k]
  };
  std::vector<Shape> shapes;          // of the products in use
  std::vector<std::int64_t> batches;  // numbers of tokens, each at most 512; empty: the default
  // Called after each product with its result y [t, outputs] on the device: where tests plant
  // failures. The stream is idle.
  std::function<void(Bf16Form form, std::int64_t t, float* y)> after_product;
  // The same for a gradient of weights, of tokens in one call and cut into two.
  std::function<void(float* whole, float* cut)> after_weight_grad;
};

// 1 to 64, and a choice up to 512 around the forms' tiles.
std::vector<std::int64_t> DefaultBf16Batches();

// Runs the test on the current device; blocks until it is done. Takes device memory of its own,
// about 7 * 512 * min(outputs, 64 (multiprocessors + 1)) * 4 bytes and W of a shape, and frees it.
// Outputs beyond those are not tested: they are more tiles of the same kind. Data are seeded:
// random rows among rows of zeros, denormals, large and cancelling values, NaN and infinity. An
// error of the runtime (no memory) is the verdict's error.
Bf16Verdict RunBf16SelfTest(const Bf16Device& device, cudaStream_t stream,
                            const Bf16SelfTest& test);

}  // namespace thresher::kernels::cuda
