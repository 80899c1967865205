#pragma once

#include <cuda_runtime_api.h>

#include <chrono>

#include "common/model/cuda/device_array.h"
#include "common/model/cuda/device_products.h"
#include "common/model/cuda/device_weights.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/head_backward.h"

namespace thresher::model {

// Rows whose targets the learner asks for; on the device.
struct DeviceHeadRows {
  std::int64_t count = 0;                // T
  const float* hidden = nullptr;         // [T, D] after the final norm
  const float* temperature = nullptr;    // [T]
  const std::int32_t* target = nullptr;  // [T] valid ids
};

// The head of a training pass on a device: log-probabilities of targets and the gradient, without
// the logits of all rows at once. Work is put on a stream; errors are its launches' and
// kResourceExhausted.
class DeviceTrainingHead {
 public:
  // patience: how long memory of a shared device is waited for (gpu::AwaitMemory).
  DeviceTrainingHead(const ModelConfig& config, DeviceKernelSet set,
                     std::chrono::milliseconds patience)
      : config_(config), set_(set), patience_(patience) {}

  // Fills logprob, lse and entropy.
  Status LogProbs(const DeviceWeights& weights, DeviceProducts& products,
                  const DeviceHeadRows& rows, cudaStream_t stream);
  // After LogProbs of the same rows: dhidden [T, D] = the gradient for dlogprob [T] and dentropy
  // ([T], or null: none), and the head's part is added to dhead [V, D].
  Status Backward(const DeviceWeights& weights, DeviceProducts& products,
                  const DeviceHeadRows& rows, const float* dlogprob, const float* dentropy,
                  float* dhidden, float* dhead, cudaStream_t stream);
  // [T] of the last LogProbs.
  const DeviceArray<float>& logprob() const { return logprob_; }
  const DeviceArray<float>& lse() const { return lse_; }
  const DeviceArray<float>& entropy() const { return entropy_; }
  // Gives back what can be large. Nothing may be on its way.
  void Release();

 private:
  kernels::HeadRows Rows(const DeviceWeights& weights, const DeviceHeadRows& rows) const;
  // Blocks of the vocabulary for `rows`.
  cudaError_t Scan(const DeviceWeights& weights, DeviceProducts& products,
                   const kernels::HeadRows& rows, const std::int32_t* target, cudaStream_t stream);
  Status BackwardInParts(const DeviceMatrix& head, DeviceProducts& products,
                         const kernels::HeadBackwardArgs& args, cudaStream_t stream);

  ModelConfig config_;
  DeviceKernelSet set_;
  std::chrono::milliseconds patience_;
  DeviceArray<float> logprob_, lse_, entropy_;
  DeviceArray<float> logits_;  // kBf16: [kHeadRows, kHeadGradIds] at most
  DeviceArray<kernels::HeadBlock> blocks_;
  DeviceArray<std::byte> scratch_;
};

}  // namespace thresher::model
