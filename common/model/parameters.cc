#include <cmath>
#include <numbers>

#include "common/base/random.h"
#include "common/model/layout.h"
#include "common/model/weights.h"

namespace thresher::model {
namespace {

constexpr std::uint64_t kNormalsPerStream = std::uint64_t{2} << 24;  // two for each position

// Appends tensors one behind the other and returns their offsets.
class ListBuilder {
 public:
  std::size_t Add(std::string name, std::vector<std::int64_t> shape) {
    ParameterInfo info;
    info.name = std::move(name);
    info.offset = next_;
    info.count = 1;
    for (std::int64_t size : shape) info.count *= static_cast<std::size_t>(size);
    info.decay = shape.size() == 2;
    info.shape = std::move(shape);
    next_ += info.count;
    list_.push_back(std::move(info));
    return list_.back().offset;
  }
  std::size_t next() const { return next_; }
  std::vector<ParameterInfo> Take() { return std::move(list_); }

 private:
  std::vector<ParameterInfo> list_;
  std::size_t next_ = 0;
};

LayerLayout AddLayer(const ModelConfig& config, int index, ListBuilder& list) {
  const std::string layer = "model.layers." + std::to_string(index) + ".";
  const std::string attention = layer + "self_attn.";
  const std::int64_t width = config.width, ffn = config.ffn_width;
  LayerLayout layout;
  layout.input_norm = list.Add(layer + "input_layernorm.weight", {width});
  layout.qkv = list.Add(attention + "q_proj.weight", {config.q_width(), width});
  list.Add(attention + "k_proj.weight", {config.kv_width(), width});
  list.Add(attention + "v_proj.weight", {config.kv_width(), width});
  if (config.qkv_bias) {
    layout.qkv_bias = list.Add(attention + "q_proj.bias", {config.q_width()});
    list.Add(attention + "k_proj.bias", {config.kv_width()});
    list.Add(attention + "v_proj.bias", {config.kv_width()});
  }
  if (config.qk_norm()) {
    layout.q_norm = list.Add(attention + "q_norm.weight", {config.head_dim});
    layout.k_norm = list.Add(attention + "k_norm.weight", {config.head_dim});
  }
  layout.o = list.Add(attention + "o_proj.weight", {width, config.q_width()});
  layout.post_norm = list.Add(layer + "post_attention_layernorm.weight", {width});
  layout.gate_up = list.Add(layer + "mlp.gate_proj.weight", {ffn, width});
  list.Add(layer + "mlp.up_proj.weight", {ffn, width});
  layout.down = list.Add(layer + "mlp.down_proj.weight", {width, ffn});
  return layout;
}

Layout BuildList(const ModelConfig& config, ListBuilder& list) {
  Layout layout;
  layout.embedding = list.Add("model.embed_tokens.weight", {config.vocab, config.width});
  for (int i = 0; i < config.layers; ++i) layout.layers.push_back(AddLayer(config, i, list));
  layout.final_norm = list.Add("model.norm.weight", {config.width});
  if (config.tied_embeddings) {
    layout.head = layout.embedding;
    layout.head_gradient = list.next();
  } else {
    layout.head = list.Add("lm_head.weight", {config.vocab, config.width});
    layout.head_gradient = layout.head;
  }
  return layout;
}

double UniformOf(std::uint32_t high, std::uint32_t low) {
  const std::uint64_t bits = (static_cast<std::uint64_t>(high) << 32) | low;
  return (static_cast<double>(bits >> 12) + 0.5) * 0x1.0p-52;
}

// Standard normals of tensor `ordinal`, scaled. Elements 2i and 2i + 1 come from one block: Box and
// Muller 1958. Computed in double and rounded once.
void FillNormal(std::uint64_t seed, std::size_t ordinal, double scale, std::span<float> out) {
  for (std::size_t begin = 0; begin < out.size(); begin += kNormalsPerStream) {
    TrajectoryId id;
    id.item = ordinal;
    id.sample = static_cast<std::uint32_t>(begin / kNormalsPerStream);
    const RandomStream random(seed, id, RandomPurpose::kInit);
    const std::size_t end = std::min<std::size_t>(out.size(), begin + kNormalsPerStream);
    for (std::size_t i = begin; i < end; i += 2) {
      const auto block = random.Block(static_cast<std::uint32_t>((i - begin) / 2));
      const double radius = scale * std::sqrt(-2.0 * std::log(UniformOf(block[0], block[1])));
      const double angle = 2.0 * std::numbers::pi * UniformOf(block[2], block[3]);
      out[i] = static_cast<float>(radius * std::cos(angle));
      if (i + 1 < end) out[i + 1] = static_cast<float>(radius * std::sin(angle));
    }
  }
}

}  // namespace

Layout MakeLayout(const ModelConfig& config) {
  ListBuilder list;
  return BuildList(config, list);
}

std::vector<ParameterInfo> ParameterList(const ModelConfig& config) {
  ListBuilder list;
  BuildList(config, list);
  return list.Take();
}

std::size_t ParameterCount(const ModelConfig& config) {
  ListBuilder list;
  BuildList(config, list);
  return list.next();
}

std::vector<float> InitialWeights(const ModelConfig& config, std::uint64_t seed, double init_std) {
  const auto list = ParameterList(config);
  std::vector<float> flat(ParameterCount(config));
  const double residual = init_std / std::sqrt(2.0 * config.layers);
  for (std::size_t ordinal = 0; ordinal < list.size(); ++ordinal) {
    const ParameterInfo& info = list[ordinal];
    const auto out = std::span(flat).subspan(info.offset, info.count);
    if (info.name.ends_with("norm.weight")) {
      std::ranges::fill(out, 1.0f);
    } else if (info.shape.size() == 2) {
      const bool to_residual =
          info.name.ends_with("o_proj.weight") || info.name.ends_with("down_proj.weight");
      FillNormal(seed, ordinal, to_residual ? residual : init_std, out);
    }
  }
  return flat;
}

}  // namespace thresher::model
