#include "common/model/lora.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "common/base/random.h"
#include "common/model/buffer.h"
#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm.h"

namespace thresher::model {
namespace {

constexpr std::int64_t kRows = 64;  // of a matrix that are merged at a time
// Ordinals of random streams: those below are of the model's own tensors.
constexpr std::uint64_t kFirstStream = std::uint64_t{1} << 32;
constexpr std::uint64_t kPerStream = std::uint64_t{4} << 24;  // four words of each position

// "q_proj" of "model.layers.0.self_attn.q_proj.weight"; "" of what is in no layer.
std::string ProjectionOf(const std::string& name) {
  if (!name.starts_with("model.layers.") || !name.ends_with("_proj.weight")) return "";
  const std::size_t end = name.rfind('.');
  const std::size_t begin = name.rfind('.', end - 1) + 1;
  return name.substr(begin, end - begin);
}

bool IsTarget(const std::vector<std::string>& targets, const std::string& name) {
  const std::string projection = ProjectionOf(name);
  if (projection.empty()) return false;
  return targets.front() == "all-linear" || std::ranges::find(targets, projection) != targets.end();
}

// Uniform in (-bound, bound), rounded once.
void FillUniform(std::uint64_t seed, std::size_t ordinal, double bound, std::span<float> out) {
  for (std::size_t begin = 0; begin < out.size(); begin += kPerStream) {
    TrajectoryId id;
    id.item = kFirstStream + ordinal;
    id.sample = static_cast<std::uint32_t>(begin / kPerStream);
    const RandomStream random(seed, id, RandomPurpose::kInit);
    const std::size_t end = std::min<std::size_t>(out.size(), begin + kPerStream);
    for (std::size_t i = begin; i < end; ++i) {
      const auto block = random.Block(static_cast<std::uint32_t>((i - begin) / 4));
      const double uniform = (static_cast<double>(block[(i - begin) % 4]) + 0.5) * 0x1.0p-32;
      out[i] = static_cast<float>(bound * (2.0 * uniform - 1.0));
    }
  }
}

void Scale(float scale, std::span<float> values) {
  for (float& value : values) value *= scale;
}

}  // namespace

Result<Lora> Lora::Make(const LoraConfig& options, const ModelConfig& model,
                        const std::vector<bool>& frozen) {
  const std::vector<std::string> targets = ListItems(options.targets);
  THRESHER_CHECK(options.rank > 0 && !targets.empty(), "adapters without rank or targets");
  Lora lora;
  lora.options_ = options;
  lora.rank_ = static_cast<std::size_t>(options.rank);
  lora.scale_ = static_cast<float>(
      options.alpha / (options.rank_stabilised ? std::sqrt(options.rank) : options.rank));
  std::size_t ordinal = 0;
  for (const ParameterInfo& info : ParameterList(model)) {
    const bool stays = !frozen.empty() && frozen[ordinal];
    ++ordinal;
    if (!IsTarget(targets, info.name)) continue;
    lora.every_layer_ = lora.every_layer_ && !stays;
    if (stays) continue;
    const std::string stem = info.name.substr(0, info.name.rfind('.'));
    const auto add = [&](const char* which, std::int64_t rows, std::int64_t columns) {
      const auto count = static_cast<std::size_t>(rows * columns);
      lora.parameters_.push_back({stem + which, {rows, columns}, lora.count_, count, true});
      lora.count_ += count;
    };
    add(".lora_A.weight", options.rank, info.shape[1]);
    add(".lora_B.weight", info.shape[0], options.rank);
    lora.base_at_.push_back(lora.base_count_);
    lora.base_count_ += info.count;
    lora.targets_.push_back(info);
  }
  if (!lora.targets_.empty()) return lora;
  return InvalidArgument("lora.targets: value '" + options.targets +
                         "'; allowed: a matrix that learner.freeze leaves to train");
}

std::vector<float> Lora::Initial(std::uint64_t seed) const {
  std::vector<float> adapters(count_, 0.0f);
  for (std::size_t i = 0; i < parameters_.size(); i += 2) {
    const ParameterInfo& a = parameters_[i];
    FillUniform(seed, i / 2, 1.0 / std::sqrt(static_cast<double>(a.shape[1])),
                std::span(adapters).subspan(a.offset, a.count));
  }
  return adapters;
}

std::vector<float> Lora::BaseOf(std::span<const float> weights) const {
  std::vector<float> base;
  base.reserve(base_count_);
  for (const ParameterInfo& info : targets_) {
    const auto own = weights.subspan(info.offset, info.count);
    base.insert(base.end(), own.begin(), own.end());
  }
  return base;
}

void Lora::Merge(std::size_t index, std::span<const float> base, std::span<const float> adapters,
                 std::span<float> weights) const {
  const kernels::ScopedFpEnv environment;
  const ParameterInfo& info = targets_[index];
  const float* a = adapters.data() + parameters_[2 * index].offset;
  const float* b = adapters.data() + parameters_[2 * index + 1].offset;
  const auto rank = static_cast<std::int64_t>(rank_);
  const std::int64_t outputs = info.shape[0], inputs = info.shape[1];
  std::vector<float> transposed(rank_ * kRows);
  std::vector<float> product(static_cast<std::size_t>(kRows * inputs));
  for (std::int64_t row = 0; row < outputs; row += kRows) {
    const std::int64_t rows = std::min(kRows, outputs - row);
    for (std::int64_t n = 0; n < rows; ++n) {
      for (std::int64_t j = 0; j < rank; ++j) {
        transposed[static_cast<std::size_t>(j * kRows + n)] = b[(row + n) * rank + j];
      }
    }
    std::ranges::fill(product, 0.0f);
    kernels::GemmAccumulateWeightGrad(rank, rows, inputs, transposed.data(), kRows, a, inputs,
                                      product.data());
    const float* from = base.data() + base_at_[index] + row * inputs;
    float* to = weights.data() + info.offset + row * inputs;
    for (std::int64_t i = 0; i < rows * inputs; ++i) {
      const float p = product[static_cast<std::size_t>(i)];
      to[i] = p == 0.0f ? from[i] : from[i] + scale_ * p;
    }
  }
}

void Lora::Project(std::span<const float> adapters, std::span<const float> gradient,
                   std::span<float> out) const {
  THRESHER_CHECK(adapters.size() == count_ && out.size() == count_, "adapters of another model");
  const kernels::ScopedFpEnv environment;
  const auto rank = static_cast<std::int64_t>(rank_);
  AlignedFloats packed;
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    const ParameterInfo &a = parameters_[2 * i], &b = parameters_[2 * i + 1];
    const std::int64_t outputs = targets_[i].shape[0], inputs = targets_[i].shape[1];
    const float* g = gradient.data() + targets_[i].offset;
    const auto da = out.subspan(a.offset, a.count), db = out.subspan(b.offset, b.count);
    std::ranges::fill(da, 0.0f);
    kernels::GemmAccumulateWeightGrad(outputs, rank, inputs, adapters.data() + b.offset, rank, g,
                                      inputs, da.data());
    const auto type = kernels::WeightType::kF32;
    Reserve(packed, kernels::PackedBytes(type, rank, inputs) / sizeof(float));
    kernels::PackRows(type, rank, inputs, 0, rank, adapters.data() + a.offset, packed.data());
    kernels::Gemm(outputs, rank, inputs, g, inputs, {packed.data(), type}, nullptr, db.data(),
                  rank);
    Scale(scale_, da);
    Scale(scale_, db);
  }
}

}  // namespace thresher::model
