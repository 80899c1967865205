#include "common/model/packed_model.h"

#include <map>
#include <mutex>
#include <tuple>

#include "common/base/check.h"
#include "common/model/weights.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rope.h"

namespace thresher::model {
namespace {

// Weights change with every step, the tables never: models of one shape share them.
std::shared_ptr<const RopeTables> SharedRopeTables(const ModelConfig& config) {
  using Key = std::tuple<std::int32_t, std::int32_t, double>;
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<const RopeTables>> known;
  const std::scoped_lock lock(mutex);
  auto& entry = known[{config.context, config.head_dim, config.rope_theta}];
  if (auto tables = entry.lock()) return tables;
  auto tables = std::make_shared<RopeTables>();
  const auto floats = static_cast<std::size_t>(config.context) * (config.head_dim / 2);
  tables->cos.resize(floats);
  tables->sin.resize(floats);
  kernels::RopeTable(config.context, config.head_dim, config.rope_theta, tables->cos.data(),
                     tables->sin.data());
  entry = tables;
  return tables;
}

AlignedFloats Copied(std::span<const float> flat, std::size_t offset, std::int64_t count) {
  const auto part = flat.subspan(offset, static_cast<std::size_t>(count));
  return AlignedFloats(part.begin(), part.end());
}

}  // namespace

std::shared_ptr<const PackedModel> PackedModel::Make(const ModelConfig& config,
                                                     std::span<const float> flat,
                                                     std::int32_t valid_vocab, bool with_backward) {
  return std::make_shared<PackedWeights>(config, flat, valid_vocab, with_backward);
}

PackedWeights::PackedWeights(const ModelConfig& config, std::span<const float> flat,
                             std::int32_t valid_vocab, bool with_backward)
    : config_(config),
      layout_(MakeLayout(config)),
      valid_vocab_(valid_vocab == 0 ? config.vocab : valid_vocab),
      with_backward_(with_backward),
      rope_(SharedRopeTables(config)) {
  const Status valid = config.Validate();
  THRESHER_CHECK(valid.ok(), valid.ToString());
  THRESHER_CHECK(flat.size() == ParameterCount(config), "weights of another model");
  THRESHER_CHECK(valid_vocab_ > 0 && valid_vocab_ <= config.vocab, "valid_vocab out of range");
  const std::int64_t vocab = config.vocab, width = config.width;
  embedding_ = Copied(flat, layout_.embedding, vocab * width);
  final_norm_ = Copied(flat, layout_.final_norm, width);
  head_ = Packed(flat.data() + layout_.head, vocab, width);
  head_transposed_ = Transposed(flat.data() + layout_.head, vocab, width);
  layers_.resize(layout_.layers.size());
  for (std::size_t i = 0; i < layers_.size(); ++i) PackLayer(flat, layout_.layers[i], layers_[i]);
}

void PackedWeights::PackLayer(std::span<const float> flat, const LayerLayout& from,
                              PackedLayer& to) const {
  const std::int64_t width = config_.width, q = config_.q_width(), ffn = config_.ffn_width;
  to.input_norm = Copied(flat, from.input_norm, width);
  to.post_norm = Copied(flat, from.post_norm, width);
  if (config_.qkv_bias) to.qkv_bias = Copied(flat, from.qkv_bias, qkv_width());
  const float* qkv = flat.data() + from.qkv;
  const float* o = flat.data() + from.o;
  const float* gate_up = flat.data() + from.gate_up;
  const float* down = flat.data() + from.down;
  to.qkv = Packed(qkv, qkv_width(), width);
  to.o = Packed(o, width, q);
  to.gate_up = Packed(gate_up, 2 * ffn, width);
  to.down = Packed(down, width, ffn);
  to.qkv_transposed = Transposed(qkv, qkv_width(), width);
  to.o_transposed = Transposed(o, width, q);
  to.gate_up_transposed = Transposed(gate_up, 2 * ffn, width);
  to.down_transposed = Transposed(down, width, ffn);
}

AlignedFloats PackedWeights::Packed(const float* w, std::int64_t n, std::int64_t k) const {
  constexpr auto kType = kernels::WeightType::kF32;
  AlignedFloats packed(kernels::PackedBytes(kType, n, k) / sizeof(float));
  kernels::PackRows(kType, n, k, 0, n, w, packed.data());
  return packed;
}

AlignedFloats PackedWeights::Transposed(const float* w, std::int64_t n, std::int64_t k) const {
  if (!with_backward_) return {};
  constexpr auto kType = kernels::WeightType::kF32;
  AlignedFloats packed(kernels::PackedBytes(kType, k, n) / sizeof(float));
  kernels::PackRowsTransposed(kType, n, k, 0, n, w, packed.data());
  return packed;
}

}  // namespace thresher::model
