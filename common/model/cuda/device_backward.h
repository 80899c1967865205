#pragma once

#include <cuda_runtime_api.h>

#include "common/model/cuda/device_tape.h"
#include "common/model/layout.h"
#include "kernels/cuda/attention_backward.h"

namespace thresher::model {

// Puts Backward (forward.h) for one set of rows on a stream, with its bits; the rows are whole
// sequences. Weights with transposes. gradient: on the device, laid out as MakeLayout says. Borrows
// everything.
class DeviceBackward {
 public:
  DeviceBackward(const DeviceWeights& weights, DeviceProducts& products, const Layout& layout,
                 const DeviceRows& rows, const kernels::cuda::Sequences& sequences,
                 DeviceTape& tape, DeviceBackwardScratch& scratch, float* gradient,
                 cudaStream_t stream)
      : weights_(weights),
        config_(weights.config()),
        products_(products),
        layout_(layout),
        rows_(rows),
        sequences_(sequences),
        tape_(tape),
        scratch_(scratch),
        gradient_(gradient),
        stream_(stream) {}

  // dhidden [T, D] of the final norm's output; from there down to the residual stream before the
  // final norm, which scratch.dresidual then holds.
  void FinalNorm(const float* dhidden);
  // Through one layer: dresidual of its output becomes that of its input. The layer's activations
  // are in the tape.
  void Layer(int layer);
  // Through the embedding.
  void Embedding();
  const Status& status() const { return launch_.status(); }

 private:
  void FeedForward(int layer);
  void Output(int layer);
  void Attend(int layer);
  void HeadNorms(int layer);
  void Input(int layer);
  // dx [T, K] = dy [T, N] W; dw += dy^T x.
  void ThroughProduct(const DeviceMatrix& w, const float* dy, const float* x, float* dx, float* dw);
  void ThroughNorm(const float* x, const float* weight, const float* inv_rms, float* dweight);
  std::int64_t t() const { return rows_.paged.t; }

  const DeviceWeights& weights_;
  const ModelConfig& config_;
  DeviceProducts& products_;
  const Layout& layout_;
  const DeviceRows& rows_;
  const kernels::cuda::Sequences& sequences_;
  DeviceTape& tape_;
  DeviceBackwardScratch& scratch_;
  float* gradient_;
  cudaStream_t stream_;
  Launches launch_;
};

}  // namespace thresher::model
