#include "common/model/cuda/device_weights.h"

#include <algorithm>

#include "common/base/check.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cuda/convert_bf16.h"

namespace thresher::model {
namespace {

namespace cuda = kernels::cuda;

// Where on the device what lies in the host's one stretch is: at the same distance from the
// beginning.
class PanelPlaces {
 public:
  PanelPlaces(const std::byte* from, std::byte* to) : from_(from), to_(to) {}
  const float* Vector(const float* host, std::int64_t) {
    return host == nullptr ? nullptr : static_cast<const float*>(Moved(host));
  }
  DeviceMatrix Matrix(std::int64_t n, std::int64_t k, kernels::PackedMatrix packed,
                      kernels::PackedMatrix transposed) {
    if (packed.data != nullptr) packed.data = Moved(packed.data);
    if (transposed.data != nullptr) transposed.data = Moved(transposed.data);
    return {n, k, packed, transposed, {}};
  }

 private:
  const void* Moved(const void* host) const {
    return to_ + (static_cast<const std::byte*>(host) - from_);
  }

  const std::byte* from_;
  std::byte* to_;
};

// Places one piece after another, copies vectors and unpacks matrices, as many panels at a time as
// the staging memory holds, to them.
class RowPlaces {
 public:
  RowPlaces(std::byte* to, const DeviceArray<std::byte>& staging, cudaStream_t stream,
            Launches& launch)
      : to_(to), staging_(staging), stream_(stream), launch_(launch) {}
  const float* Vector(const float* host, std::int64_t count) {
    if (host == nullptr) return nullptr;
    const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
    std::byte* at = Take(bytes);
    launch_("copy of weights", cudaMemcpyAsync(at, host, bytes, cudaMemcpyHostToDevice, stream_));
    return reinterpret_cast<const float*>(at);
  }
  DeviceMatrix Matrix(std::int64_t n, std::int64_t k, kernels::PackedMatrix packed,
                      kernels::PackedMatrix) {
    const std::int64_t ld = cuda::Bf16RowStride(k);
    auto* rows = reinterpret_cast<std::uint16_t*>(Take(Bytes(n, k)));
    const std::size_t panel = kernels::PackedBytes(packed.type, kernels::kGemmPanel, k);
    const auto most = static_cast<std::int64_t>(staging_.bytes() / panel) * kernels::kGemmPanel;
    THRESHER_CHECK(most > 0, "weights pass through less than a panel");
    for (std::int64_t first = 0; first < n; first += most) {
      const std::int64_t count = std::min(most, n - first);
      launch_("copy of weights",
              cudaMemcpyAsync(staging_.data(), kernels::PackedFrom(packed, k, first).data,
                              kernels::PackedBytes(packed.type, count, k), cudaMemcpyHostToDevice,
                              stream_));
      launch_("rows of weights",
              cuda::UnpackBf16(stream_, count, k, staging_.data(), rows + first * ld, ld));
    }
    return {n, k, {}, {}, {rows, n, k, ld}};
  }
  static std::size_t Bytes(std::int64_t n, std::int64_t k) {
    return static_cast<std::size_t>(n * cuda::Bf16RowStride(k)) * sizeof(std::uint16_t);
  }

 private:
  std::byte* Take(std::size_t bytes) {
    std::byte* at = to_;
    to_ += Arena::Rounded(bytes);
    return at;
  }

  std::byte* to_;
  const DeviceArray<std::byte>& staging_;
  cudaStream_t stream_;
  Launches& launch_;
};

// All weights in the order of the packed model, through `places`.
template <class Places>
DeviceLayer PlaceLayer(const PackedWeights& weights, int index, Places& places) {
  const ModelConfig& config = weights.config();
  const PackedLayer& from = weights.layer(index);
  const std::int64_t width = config.width, ffn = config.ffn_width;
  DeviceLayer to;
  to.input_norm = places.Vector(from.input_norm, width);
  to.qkv = places.Matrix(weights.qkv_width(), width, from.qkv, from.qkv_transposed);
  to.qkv_bias = places.Vector(from.qkv_bias, weights.qkv_width());
  to.q_norm = places.Vector(from.q_norm, config.head_dim);
  to.k_norm = places.Vector(from.k_norm, config.head_dim);
  to.o = places.Matrix(width, config.q_width(), from.o, from.o_transposed);
  to.post_norm = places.Vector(from.post_norm, width);
  to.gate_up = places.Matrix(2 * ffn, width, from.gate_up, from.gate_up_transposed);
  to.down = places.Matrix(width, ffn, from.down, from.down_transposed);
  return to;
}

}  // namespace

Result<std::unique_ptr<DeviceWeights>> DeviceWeights::Make(const ModelConfig& config,
                                                           DeviceKernelSet set,
                                                           bool with_backward) {
  const bool panels = set == DeviceKernelSet::kFp32;
  std::unique_ptr<DeviceWeights> weights(new DeviceWeights(config, set, panels && with_backward));
  THRESHER_ASSIGN_OR_RETURN(weights->memory_, DeviceArray<std::byte>::Make(DeviceMatrixBytes(
                                                  config, set, panels && with_backward)));
  const auto angles =
      static_cast<std::size_t>(config.context) * static_cast<std::size_t>(config.head_dim / 2);
  THRESHER_ASSIGN_OR_RETURN(weights->cos_, DeviceArray<float>::Make(angles));
  THRESHER_ASSIGN_OR_RETURN(weights->sin_, DeviceArray<float>::Make(angles));
  return weights;
}

void DeviceWeights::UploadPanels(const PackedWeights& weights, cudaStream_t stream,
                                 Launches& launch) {
  const auto bytes = weights.bytes();
  THRESHER_CHECK(bytes.size() <= memory_.bytes() && weights.with_backward() == with_backward_,
                 "weights with another shape or backward pass than there is room for");
  launch("copy of the weights", cudaMemcpyAsync(memory_.data(), bytes.data(), bytes.size(),
                                                cudaMemcpyHostToDevice, stream));
  PanelPlaces places(bytes.data(), memory_.data());
  const std::int64_t vocab = config_.vocab, width = config_.width;
  for (int layer = 0; layer < config_.layers; ++layer) {
    layers_.push_back(PlaceLayer(weights, layer, places));
  }
  embedding_ = places.Matrix(vocab, width, weights.embedding(), {});
  final_norm_ = places.Vector(weights.final_norm(), width);
  head_ = places.Matrix(vocab, width, weights.head(), weights.head_transposed());
}

void DeviceWeights::UploadRows(const PackedWeights& weights, const DeviceArray<std::byte>& staging,
                               cudaStream_t stream, Launches& launch) {
  RowPlaces places(memory_.data(), staging, stream, launch);
  const std::int64_t vocab = config_.vocab, width = config_.width;
  for (int layer = 0; layer < config_.layers; ++layer) {
    layers_.push_back(PlaceLayer(weights, layer, places));
  }
  embedding_ = places.Matrix(vocab, width, weights.embedding(), {});
  final_norm_ = places.Vector(weights.final_norm(), width);
  head_ = config_.tied_embeddings ? embedding_ : places.Matrix(vocab, width, weights.head(), {});
}

Status DeviceWeights::Upload(const PackedWeights& weights, const DeviceArray<std::byte>& staging,
                             cudaStream_t stream) {
  THRESHER_CHECK(weights.config().Hash() == config_.Hash(), "weights of another shape");
  Launches launch;
  valid_vocab_ = weights.valid_vocab();
  layers_.clear();
  if (set_ == DeviceKernelSet::kFp32) {
    UploadPanels(weights, stream, launch);
  } else {
    UploadRows(weights, staging, stream, launch);
  }
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
  return launch.status();
}

}  // namespace thresher::model
