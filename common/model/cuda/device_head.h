#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "common/gpu/handles.h"
#include "common/model/cuda/device_products.h"
#include "common/model/cuda/device_weights.h"
#include "common/model/cuda/filtered_draws.h"
#include "common/model/step_runner.h"
#include "kernels/cuda/head.h"

namespace thresher::model {

// Rows whose next token is drawn; on the device.
struct DeviceDraws {
  std::int32_t count = 0;
  const std::int32_t* row = nullptr;   // [N] of the residual stream
  const std::int32_t* slot = nullptr;  // [N] who gets the token
  const float* temperature = nullptr;  // [N]
  const double* uniform = nullptr;     // [N]
  const std::int32_t* stop = nullptr;  // [N, kStopIds] tokens that end the slot's sequence
};

// The head of generation on a device: from the residual stream to tokens, and those to the host.
// A step's results lie in a piece of pinned memory until they are read.
class DeviceHead {
 public:
  DeviceHead() = default;
  // At most `slots` draws a step, `pieces` steps at once. Error: kResourceExhausted.
  static Result<DeviceHead> Make(const ModelConfig& config, DeviceKernelSet set, std::int32_t slots,
                                 int pieces);

  // Puts on the stream: final norm of the drawn rows of residual [T, D], softmax over the
  // vocabulary, draws over all valid ids, last[slot] = token (StoreTokens). Can be recorded if no
  // draw of `step` is filtered; with step null none is.
  Status Put(const DeviceWeights& weights, DeviceProducts& products, const DeviceDraws& draws,
             const float* residual, std::int32_t* last, const StepInput* step, int piece,
             cudaStream_t stream);
  // After Put: the copy of its first `draws` results to `piece`.
  Status PutResults(std::int32_t draws, int piece, cudaStream_t stream);
  // Once all that has been done.
  std::vector<RowSample> Results(const std::vector<StepDraw>& draws, int piece) const;

 private:
  struct Piece {
    gpu::PinnedMemory tokens;    // int32 [slots]
    gpu::PinnedMemory logprobs;  // float [slots]
    FilteredDraws filtered;
  };

  // Blocks of the vocabulary and draws, in the set's way.
  void Draw(const DeviceWeights& weights, DeviceProducts& products, const DeviceDraws& draws,
            const kernels::cuda::HeadLogitStore& store, cudaStream_t stream, Launches& launch);

  ModelConfig config_;
  DeviceArray<float> selected_, hidden_, logprob_;
  DeviceArray<float> logits_;  // kBf16: of all drawn rows
  DeviceArray<std::int32_t> token_;
  DeviceArray<kernels::HeadBlock> blocks_;
  std::vector<Piece> pieces_;
};

}  // namespace thresher::model
