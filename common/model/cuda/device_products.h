#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "common/model/cuda/device_array.h"
#include "common/model/cuda/device_matrix.h"
#include "common/model/device_plan.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_backward.h"
#include "kernels/cuda/gemm_bf16.h"

namespace thresher::model {

// The products of a kernel set on one stream, attention's among them. cuda-bf16-sm90-v1 rounds what
// it multiplies to bf16, in scratch memory of its own, and is used only in the forms that the
// device's self-test admits.
class DeviceProducts {
 public:
  struct Options {
    DeviceKernelSet set = DeviceKernelSet::kFp32;
    bool gradients = false;
    std::vector<std::int64_t> self_test_batches;  // empty: the default (kernels/cuda/self_test.h)
  };

  DeviceProducts() = default;
  // Prepares the current device for products of the model's matrices; blocks for the self-test.
  // Errors: kFailedPrecondition (the device cannot compute the set, or no form of it passed: strict
  // there is no other choice), kResourceExhausted.
  static Result<DeviceProducts> Make(const ModelConfig& config, const Options& options,
                                     cudaStream_t stream);

  DeviceKernelSet set() const { return options_.set; }
  // Room for operands of `rows` rows. Error: kResourceExhausted.
  Status Reserve(const ModelConfig& config, std::size_t rows);
  // Gives that room back. Nothing is on its way.
  void Release() { x_ = {}, dy_ = {}; }

  // y [T, N] = x [T, K] W^T + bias (or null); both rows side by side.
  cudaError_t Product(std::int64_t t, const DeviceMatrix& w, const float* x, const float* bias,
                      float* y);
  // Outputs [n0, n1) of W alone: y [T, n1 - n0] at ldy. n0 is a multiple of kernels::kVocabBlock.
  // kBf16 only.
  cudaError_t ProductOf(std::int64_t t, const DeviceMatrix& w, std::int64_t n0, std::int64_t n1,
                        const float* x, float* y, std::int64_t ldy);
  // dx [T, K] = dy [T, N] W.
  cudaError_t InputGrad(std::int64_t t, const DeviceMatrix& w, const float* dy, float* dx);
  // The same of outputs [n0, n1) alone; added to dx if `accumulate`. kBf16 only.
  cudaError_t InputGradOf(std::int64_t t, const DeviceMatrix& w, std::int64_t n0, std::int64_t n1,
                          const float* dy, std::int64_t lddy, float* dx, bool accumulate);
  // Attention in the set's arithmetic (kernels/cuda/attention.h, attention_bf16.h).
  cudaError_t Attention(const kernels::cuda::AttentionArgs& args,
                        const kernels::cuda::AttentionScratch& scratch,
                        kernels::cuda::AttentionForm form) const;
  // Its gradient. scratch: AttentionGradScratchBytes.
  cudaError_t AttentionBackward(const kernels::AttentionBackwardArgs& args,
                                const kernels::cuda::Sequences& sequences, void* scratch) const;
  // dw [N, K] += dy [T, N]^T x [T, K]. dy at lddy.
  cudaError_t WeightGrad(std::int64_t t, std::int64_t n, std::int64_t k, const float* dy,
                         std::int64_t lddy, const float* x, float* dw);

 private:
  DeviceProducts(const Options& options, cudaStream_t stream)
      : options_(options), stream_(stream) {}
  Status OpenBf16(const ModelConfig& config);
  Status TestAttention(const ModelConfig& config);
  // x [T, K] rounded, in `to`.
  cudaError_t Round(std::int64_t t, std::int64_t k, const float* x, std::int64_t ldx,
                    DeviceArray<std::uint16_t>& to, kernels::cuda::Bf16Rows* rows);

  Options options_;
  cudaStream_t stream_ = nullptr;
  kernels::cuda::Bf16Device bf16_;
  unsigned attention_forms_ = 0;  // of kBf16
  DeviceArray<std::byte> scratch_;
  DeviceArray<std::uint16_t> x_, dy_;  // operands, rounded
};

// Scratch memory of attention's gradient for `rows` rows.
std::size_t AttentionGradScratchBytes(const ModelConfig& config, DeviceKernelSet set,
                                      std::int64_t rows);

}  // namespace thresher::model
