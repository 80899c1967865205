// DeviceWeights::Pack: master weights on the device, rounded and brought into a kernel set's form.
#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/model/arena.h"
#include "common/model/cuda/device_weights.h"
#include "common/model/rope_scaling.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cuda/convert_bf16.h"
#include "kernels/cuda/pack_weights.h"

namespace thresher::model {
namespace {

namespace cuda = kernels::cuda;

struct Form {
  DeviceKernelSet set = DeviceKernelSet::kFp32;
  kernels::WeightType type = kernels::WeightType::kF32;
  bool transposes = false;
};

// Gives out one piece of memory after another, each filled from masters.
class MasterPlaces {
 public:
  MasterPlaces(const Form& form, std::byte* to, cudaStream_t stream, Launches& launch)
      : form_(form), to_(to), stream_(stream), launch_(launch) {}

  const float* Vector(const float* masters, std::int64_t count) {
    auto* at = reinterpret_cast<float*>(Take(static_cast<std::size_t>(count) * sizeof(float)));
    launch_("rounding of weights", cuda::RoundWeights(stream_, form_.type, count, masters, at));
    return at;
  }

  DeviceMatrix Matrix(const float* masters, std::int64_t n, std::int64_t k, bool transposed) {
    DeviceMatrix matrix;
    matrix.n = n, matrix.k = k;
    if (form_.set == DeviceKernelSet::kBf16) {
      const std::int64_t ld = cuda::Bf16RowStride(k);
      auto* rows = reinterpret_cast<std::uint16_t*>(
          Take(static_cast<std::size_t>(n * ld) * sizeof(std::uint16_t)));
      launch_("rows of weights", cuda::RoundToBf16(stream_, n, k, masters, k, rows, ld));
      matrix.rows = {rows, n, k, ld};
      return matrix;
    }
    std::byte* image = Take(kernels::PackedBytes(form_.type, n, k));
    launch_("panels of weights", cuda::PackPanels(stream_, form_.type, n, k, masters, image));
    matrix.packed = {image, form_.type};
    if (!transposed || !form_.transposes) return matrix;
    auto* turned =
        reinterpret_cast<float*>(Take(kernels::PackedBytes(kernels::WeightType::kF32, k, n)));
    launch_("panels of weights",
            cuda::PackPanelsTransposed(stream_, form_.type, n, k, masters, turned));
    matrix.transposed = {turned, kernels::WeightType::kF32};
    return matrix;
  }

  std::size_t taken() const { return taken_; }

 private:
  std::byte* Take(std::size_t bytes) {
    std::byte* at = to_ + taken_;
    taken_ += Arena::Rounded(bytes);
    return at;
  }

  const Form form_;
  std::byte* const to_;
  std::size_t taken_ = 0;
  cudaStream_t stream_;
  Launches& launch_;
};

DeviceLayer PlaceLayer(const ModelConfig& config, const LayerLayout& at, const float* masters,
                       MasterPlaces& places) {
  const std::int64_t width = config.width, ffn = config.ffn_width;
  const std::int64_t qkv = config.q_width() + 2 * std::int64_t{config.kv_width()};
  DeviceLayer to;
  to.input_norm = places.Vector(masters + at.input_norm, width);
  to.qkv = places.Matrix(masters + at.qkv, qkv, width, true);
  if (config.qkv_bias) to.qkv_bias = places.Vector(masters + at.qkv_bias, qkv);
  if (config.qk_norm()) {
    to.q_norm = places.Vector(masters + at.q_norm, config.head_dim);
    to.k_norm = places.Vector(masters + at.k_norm, config.head_dim);
  }
  to.o = places.Matrix(masters + at.o, width, config.q_width(), true);
  to.post_norm = places.Vector(masters + at.post_norm, width);
  to.gate_up = places.Matrix(masters + at.gate_up, 2 * ffn, width, true);
  to.down = places.Matrix(masters + at.down, width, ffn, true);
  return to;
}

// Of pageable memory, which the copies have taken when they return.
Status SendRope(const ModelConfig& config, const DeviceArray<float>& cos,
                const DeviceArray<float>& sin, cudaStream_t stream) {
  THRESHER_ASSIGN_OR_RETURN(
      const auto tables,
      RopeTables::Make(
          config, InverseFrequencies(config.head_dim, config.rope_theta, config.rope_scaling)));
  tables->Require(config.context);
  Launches launch;
  launch("copy of the rotary tables",
         cudaMemcpyAsync(cos.data(), tables->cos(), cos.bytes(), cudaMemcpyHostToDevice, stream));
  launch("copy of the rotary tables",
         cudaMemcpyAsync(sin.data(), tables->sin(), sin.bytes(), cudaMemcpyHostToDevice, stream));
  launch("copy of the rotary tables", cudaStreamSynchronize(stream));
  return launch.status();
}

}  // namespace

Status DeviceWeights::Pack(const float* masters, std::int32_t valid_vocab, cudaStream_t stream) {
  if (!has_rope_) {
    THRESHER_RETURN_IF_ERROR(SendRope(config_, cos_, sin_, stream));
    has_rope_ = true;
  }
  const Layout layout = MakeLayout(config_);
  const std::int64_t vocab = config_.vocab, width = config_.width;
  const bool tied = config_.tied_embeddings;
  Launches launch;
  MasterPlaces places({set_, config_.dtype, with_backward_}, memory_.data(), stream, launch);
  valid_vocab_ = valid_vocab == 0 ? config_.vocab : valid_vocab;
  layers_.clear();
  embedding_ = places.Matrix(masters + layout.embedding, vocab, width, tied);
  for (const LayerLayout& at : layout.layers) {
    layers_.push_back(PlaceLayer(config_, at, masters, places));
  }
  final_norm_ = places.Vector(masters + layout.final_norm, width);
  head_ = tied ? embedding_ : places.Matrix(masters + layout.head, vocab, width, true);
  THRESHER_CHECK(places.taken() <= memory_.bytes(), "weights beyond the room for them");
  return launch.status();
}

}  // namespace thresher::model
