#include "common/model/cuda/device_weights.h"

#include "common/base/check.h"

namespace thresher::model {
namespace {

// Moves pointers into the host's stretch to the device's.
class Mover {
 public:
  Mover(const std::byte* from, std::byte* to) : from_(from), to_(to) {}
  const float* operator()(const float* host) const {
    return host == nullptr ? nullptr : static_cast<const float*>(Moved(host));
  }
  kernels::PackedMatrix operator()(kernels::PackedMatrix host) const {
    if (host.data != nullptr) host.data = Moved(host.data);
    return host;
  }

 private:
  const void* Moved(const void* host) const {
    return to_ + (static_cast<const std::byte*>(host) - from_);
  }

  const std::byte* from_;
  std::byte* to_;
};

PackedLayer MovedLayer(const PackedLayer& layer, const Mover& moved) {
  PackedLayer out;
  out.input_norm = moved(layer.input_norm);
  out.post_norm = moved(layer.post_norm);
  out.qkv_bias = moved(layer.qkv_bias);
  out.q_norm = moved(layer.q_norm);
  out.k_norm = moved(layer.k_norm);
  out.qkv = moved(layer.qkv);
  out.o = moved(layer.o);
  out.gate_up = moved(layer.gate_up);
  out.down = moved(layer.down);
  out.qkv_transposed = moved(layer.qkv_transposed);
  out.o_transposed = moved(layer.o_transposed);
  out.gate_up_transposed = moved(layer.gate_up_transposed);
  out.down_transposed = moved(layer.down_transposed);
  return out;
}

}  // namespace

Result<std::unique_ptr<DeviceWeights>> DeviceWeights::Make(const ModelConfig& config,
                                                           bool with_backward) {
  std::unique_ptr<DeviceWeights> weights(new DeviceWeights(config));
  THRESHER_ASSIGN_OR_RETURN(weights->memory_, DeviceArray<std::byte>::Make(PackedModelBytes(
                                                  config, config.dtype, with_backward)));
  const auto angles =
      static_cast<std::size_t>(config.context) * static_cast<std::size_t>(config.head_dim / 2);
  THRESHER_ASSIGN_OR_RETURN(weights->cos_, DeviceArray<float>::Make(angles));
  THRESHER_ASSIGN_OR_RETURN(weights->sin_, DeviceArray<float>::Make(angles));
  return weights;
}

Status DeviceWeights::Upload(const PackedWeights& weights, cudaStream_t stream) {
  const auto bytes = weights.bytes();
  THRESHER_CHECK(bytes.size() <= memory_.bytes() && weights.config().layers == config_.layers,
                 "weights of another shape, or with a backward pass that was not foreseen");
  Launches launch;
  launch("copy of the weights", cudaMemcpyAsync(memory_.data(), bytes.data(), bytes.size(),
                                                cudaMemcpyHostToDevice, stream));
  if (!has_rope_) {
    weights.rope().Require(config_.context);
    launch("copy of the rotary tables",
           cudaMemcpyAsync(cos_.data(), weights.rope().cos(), cos_.bytes(), cudaMemcpyHostToDevice,
                           stream));
    launch("copy of the rotary tables",
           cudaMemcpyAsync(sin_.data(), weights.rope().sin(), sin_.bytes(), cudaMemcpyHostToDevice,
                           stream));
    has_rope_ = launch.status().ok();
  }
  const Mover moved(bytes.data(), memory_.data());
  valid_vocab_ = weights.valid_vocab();
  layers_.clear();
  for (int layer = 0; layer < config_.layers; ++layer) {
    layers_.push_back(MovedLayer(weights.layer(layer), moved));
  }
  embedding_ = moved(weights.embedding());
  final_norm_ = moved(weights.final_norm());
  head_ = moved(weights.head());
  head_transposed_ = moved(weights.head_transposed());
  return launch.status();
}

}  // namespace thresher::model
