#pragma once

#include <cuda_runtime_api.h>

#include "common/model/cuda/device_array.h"
#include "common/model/cuda/device_kv.h"
#include "common/model/cuda/device_products.h"
#include "common/model/cuda/device_weights.h"
#include "kernels/cuda/attention.h"

namespace thresher::model {

// What one layer computes for T rows, on a device: the shapes are LayerActivations'
// (activations.h).
struct DeviceLayerActivations {
  DeviceArray<float> input_inv_rms, input_normed, qkv, qk_raw, qk_inv_rms, attention, lse, middle,
      middle_inv_rms, middle_normed, gate_up;

  // for_tape: with what only the backward pass reads. Error: kResourceExhausted.
  Status Reserve(const ModelConfig& config, std::size_t rows, bool for_tape);
};

// Rows of a forward pass on a device: tokens [T], and where each row's sequence has its pages.
// Positions below 0 are padding.
struct DeviceRows {
  const std::int32_t* token = nullptr;
  kernels::cuda::PagedRows paged;
  std::int64_t max_positions = 0;  // above every position, in every replay of a graph
  // Rows [0, alone) are each of another sequence than their neighbours: decode. The splits of their
  // contexts are divided over blocks, if the scratch memory suffices; rows of prompts and whole
  // sequences are not, but read once what they share.
  std::int64_t alone = 0;
};

// Puts the model function (forward.h) for one set of rows on a stream, layer by layer, with its
// bits. Nothing waits; shapes of launches depend on the arguments alone, so that it can be recorded
// in a graph. Borrows everything.
class DeviceForward {
 public:
  // products: of `stream`, with room for the rows.
  DeviceForward(const DeviceWeights& weights, DeviceProducts& products, const DeviceRows& rows,
                const DeviceKv& kv, const kernels::cuda::AttentionScratch& scratch,
                cudaStream_t stream)
      : weights_(weights),
        config_(weights.config()),
        products_(products),
        rows_(rows),
        kv_(kv),
        scratch_(scratch),
        stream_(stream) {}

  // residual [T, D] = the tokens' embeddings.
  void Embed(float* residual);
  // One layer, from the residual stream before it to the one after it; both [T, D], may be the
  // same. activated: [T, F]. for_tape: `kept` is filled with what only the backward pass reads.
  void Layer(int layer, const float* input, DeviceLayerActivations& kept, float* activated,
             float* output, bool for_tape);
  // The two halves of Layer: what the backward pass computes again.
  void Attend(int layer, const float* input, DeviceLayerActivations& kept, bool for_tape);
  void ProjectGateUp(int layer, DeviceLayerActivations& kept);
  // The first error so far.
  const Status& status() const { return launch_.status(); }

 private:
  void Norm(const float* x, const float* weight, float* y, float* inv_rms);
  void Project(const DeviceMatrix& w, const float* x, const float* bias, float* y);
  // Attention of rows [begin, end).
  void AttendRows(kernels::cuda::AttentionArgs args, std::int64_t begin, std::int64_t end,
                  kernels::cuda::AttentionForm form);
  void PlaceQkv(int layer, DeviceLayerActivations& kept, bool for_tape);

  const DeviceWeights& weights_;
  const ModelConfig& config_;
  DeviceProducts& products_;
  const DeviceRows& rows_;
  const DeviceKv& kv_;
  const kernels::cuda::AttentionScratch& scratch_;
  cudaStream_t stream_;
  Launches launch_;
};

}  // namespace thresher::model
