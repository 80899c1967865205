#include "common/model/packed_model.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

#include "common/base/check.h"
#include "common/model/element_scan.h"
#include "common/model/rope_scaling.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rope.h"

namespace thresher::model {
namespace {

using kernels::PackedBytes;
using kernels::PackedMatrix;
using kernels::WeightType;

// Bytes of a source that are packed at a time: they fit the cache beside their packed image.
constexpr std::int64_t kChunkBytes = 256 << 10;

// Positions that are filled at once: a decoding sequence asks for one more at a time.
constexpr std::int32_t kRopeBlock = 256;

// Weights change with every step, the tables never: models of one shape share them.
Result<std::shared_ptr<RopeTables>> SharedRopeTables(const ModelConfig& config) {
  using Key = std::tuple<std::int32_t, std::vector<float>>;
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<RopeTables>> known;
  auto frequencies = InverseFrequencies(config.head_dim, config.rope_theta, config.rope_scaling);
  const std::scoped_lock lock(mutex);
  auto& entry = known[{config.context, frequencies}];
  if (auto tables = entry.lock()) return tables;
  THRESHER_ASSIGN_OR_RETURN(auto tables, RopeTables::Make(config, std::move(frequencies)));
  entry = tables;
  return tables;
}

// The transposes are fp32 whatever the weights are: the backward pass multiplies gradients, which
// no kernel set may round to 16 bits, by the widened weights.
constexpr WeightType kTransposedType = WeightType::kF32;

}  // namespace

std::size_t PackedModelBytes(const ModelConfig& config, WeightType type, bool with_backward) {
  std::size_t bytes = 0;
  for (const ParameterInfo& info : ParameterList(config)) {
    if (info.shape.size() == 1) {
      bytes += Arena::Rounded(info.count * sizeof(float));
      continue;
    }
    bytes += Arena::Rounded(PackedBytes(type, info.shape[0], info.shape[1]));
    if (!with_backward) continue;
    bytes += Arena::Rounded(PackedBytes(kTransposedType, info.shape[1], info.shape[0]));
  }
  return bytes;
}

Result<std::shared_ptr<RopeTables>> RopeTables::Make(const ModelConfig& config,
                                                     std::vector<float> frequencies) {
  const std::size_t floats = static_cast<std::size_t>(config.context) * frequencies.size();
  THRESHER_ASSIGN_OR_RETURN(ZeroPages cos, ZeroPages::Make(floats));
  THRESHER_ASSIGN_OR_RETURN(ZeroPages sin, ZeroPages::Make(floats));
  return std::shared_ptr<RopeTables>(
      new RopeTables(config, std::move(frequencies), std::move(cos), std::move(sin)));
}

RopeTables::RopeTables(const ModelConfig& config, std::vector<float> frequencies, ZeroPages cos,
                       ZeroPages sin)
    : context_(config.context),
      head_dim_(config.head_dim),
      frequencies_(std::move(frequencies)),
      cos_(std::move(cos)),
      sin_(std::move(sin)) {}

void RopeTables::Require(std::int32_t positions) {
  if (filled_.load(std::memory_order_acquire) >= positions) return;
  THRESHER_CHECK(positions <= context_, "position beyond the context");
  const std::scoped_lock lock(filling_);
  const std::int32_t begin = filled_.load(std::memory_order_relaxed);
  if (begin >= positions) return;
  const std::int32_t end =
      std::min(context_, (positions - 1) / kRopeBlock * kRopeBlock + kRopeBlock);
  kernels::RopeTable(begin, end, head_dim_, frequencies_.data(), cos_.data(), sin_.data());
  filled_.store(end, std::memory_order_release);
}

// Packs the tensors of a source in the order of ParameterList, several of them to one matrix where
// they are neighbours there. Stops at the first error of the source and remembers it.
class Packer {
 public:
  Packer(PackedWeights& model, WeightSource& source)
      : model_(model), source_(source), list_(ParameterList(model.config())) {}

  Status Pack() {
    const ModelConfig& config = model_.config_;
    const std::int64_t vocab = config.vocab, width = config.width;
    const bool tied = config.tied_embeddings;
    model_.embedding_ = Matrix(vocab, width, 1, tied ? &model_.head_transposed_ : nullptr);
    for (PackedLayer& layer : model_.layers_) Layer(layer);
    model_.final_norm_ = Vector(width, 1);
    model_.head_ = tied ? model_.embedding_ : Matrix(vocab, width, 1, &model_.head_transposed_);
    THRESHER_CHECK(!status_.ok() || next_ == list_.size(), "a parameter was not packed");
    return status_;
  }

 private:
  void Layer(PackedLayer& to) {
    const ModelConfig& config = model_.config_;
    const std::int64_t width = config.width, ffn = config.ffn_width;
    to.input_norm = Vector(width, 1);
    to.qkv = Matrix(model_.qkv_width(), width, 3, &to.qkv_transposed);
    if (config.qkv_bias) to.qkv_bias = Vector(model_.qkv_width(), 3);
    if (config.qk_norm()) {
      to.q_norm = Vector(config.head_dim, 1);
      to.k_norm = Vector(config.head_dim, 1);
    }
    to.o = Matrix(width, config.q_width(), 1, &to.o_transposed);
    to.post_norm = Vector(width, 1);
    to.gate_up = Matrix(2 * ffn, width, 2, &to.gate_up_transposed);
    to.down = Matrix(width, ffn, 1, &to.down_transposed);
  }

  // The next `parts` tensors one above the other: W [n, k]. Its transpose goes to `transposed` when
  // that is wanted and there is a backward pass.
  PackedMatrix Matrix(std::int64_t n, std::int64_t k, int parts, PackedMatrix* transposed) {
    const WeightType type = model_.type_;
    std::byte* image = model_.arena_.Take(PackedBytes(type, n, k));
    std::byte* image_transposed = nullptr;
    if (transposed != nullptr && model_.with_backward_) {
      image_transposed = model_.arena_.Take(PackedBytes(kTransposedType, k, n));
      *transposed = {image_transposed, kTransposedType};
    }
    std::int64_t row = 0;
    for (int part = 0; part < parts && status_.ok(); ++part) {
      const ParameterInfo& info = list_[next_++];
      THRESHER_CHECK(info.shape.size() == 2 && info.shape[1] == k, info.name);
      Rows(info, n, row, image, image_transposed);
      row += info.shape[0];
    }
    THRESHER_CHECK(!status_.ok() || row == n, "tensors of another matrix");
    return {image, type};
  }

  // One tensor to the rows from row0 on of W [n, k].
  void Rows(const ParameterInfo& info, std::int64_t n, std::int64_t row0, std::byte* image,
            std::byte* image_transposed) {
    const WeightType type = model_.type_;
    const std::int64_t k = info.shape[1], rows = info.shape[0];
    const auto row_bytes = k * static_cast<std::int64_t>(kernels::WeightBytes(type));
    // Whole panels, as far as row0 lets them be.
    const std::int64_t chunk =
        std::max<std::int64_t>(1, kChunkBytes / row_bytes / kernels::kGemmPanel) *
        kernels::kGemmPanel;
    for (std::int64_t row = 0; row < rows; row += chunk) {
      const std::int64_t count = std::min(chunk, rows - row);
      const auto from = source_.Matrix(info, row, count);
      if (!from.ok()) return Fail(from.status());
      kernels::PackRows(type, n, k, row0 + row, count, *from, image);
      if (image_transposed == nullptr) continue;
      const float* widened = Widened(*from, static_cast<std::size_t>(count * k));
      kernels::PackRowsTransposed(kTransposedType, n, k, row0 + row, count, widened,
                                  image_transposed);
    }
  }

  const float* Widened(const void* elements, std::size_t count) {
    if (model_.type_ == WeightType::kF32) return static_cast<const float*>(elements);
    float* out = Reserve(widened_, count);
    Widen(model_.type_, static_cast<const char*>(elements), count, out);
    return out;
  }

  // The next `parts` tensors one behind the other: [n].
  const float* Vector(std::int64_t n, int parts) {
    auto* out =
        reinterpret_cast<float*>(model_.arena_.Take(static_cast<std::size_t>(n) * sizeof(float)));
    std::size_t at = 0;
    for (int part = 0; part < parts && status_.ok(); ++part) {
      const ParameterInfo& info = list_[next_++];
      THRESHER_CHECK(info.shape.size() == 1, info.name);
      const Status read = source_.Vector(info, out + at);
      if (!read.ok()) Fail(read);
      at += info.count;
    }
    THRESHER_CHECK(!status_.ok() || at == static_cast<std::size_t>(n), "tensors of another vector");
    return out;
  }

  void Fail(const Status& status) {
    if (status_.ok()) status_ = status;
  }

  PackedWeights& model_;
  WeightSource& source_;
  std::vector<ParameterInfo> list_;
  std::size_t next_ = 0;
  AlignedFloats widened_;
  Status status_;
};

Result<const void*> FlatWeights::Matrix(const ParameterInfo& info, std::int64_t row0,
                                        std::int64_t rows) {
  const auto width = static_cast<std::size_t>(info.shape[1]);
  const auto values = flat_.subspan(info.offset + static_cast<std::size_t>(row0) * width,
                                    static_cast<std::size_t>(rows) * width);
  if (type_ == WeightType::kF32) return static_cast<const void*>(values.data());
  narrowed_ = Narrow(type_, values);
  return static_cast<const void*>(narrowed_.data());
}

Status FlatWeights::Vector(const ParameterInfo& info, float* out) {
  RoundTo(type_, flat_.subspan(info.offset, info.count), out);
  return Status::Ok();
}

std::shared_ptr<const PackedModel> PackedModel::Make(const ModelConfig& config,
                                                     std::span<const float> flat,
                                                     std::int32_t valid_vocab, bool with_backward,
                                                     std::shared_ptr<const PackedModel> spare) {
  THRESHER_CHECK(flat.size() == ParameterCount(config), "weights of another model");
  FlatWeights source(flat, config.dtype);
  return PackedWeights::Pack(config, source, valid_vocab, with_backward, std::move(spare)).value();
}

PackedWeights::PackedWeights(const ModelConfig& config, std::int32_t valid_vocab,
                             bool with_backward, WeightType type, Arena arena,
                             std::shared_ptr<RopeTables> rope)
    : config_(config),
      layout_(MakeLayout(config)),
      valid_vocab_(valid_vocab == 0 ? config.vocab : valid_vocab),
      with_backward_(with_backward),
      type_(type),
      arena_(std::move(arena)),
      rope_(std::move(rope)),
      layers_(static_cast<std::size_t>(config.layers)) {}

Result<std::shared_ptr<const PackedWeights>> PackedWeights::Pack(
    const ModelConfig& config, WeightSource& source, std::int32_t valid_vocab, bool with_backward,
    std::shared_ptr<const PackedModel> spare) {
  const Status valid = config.Validate();
  THRESHER_CHECK(valid.ok(), valid.ToString());
  THRESHER_CHECK(valid_vocab >= 0 && valid_vocab <= config.vocab, "valid_vocab out of range");
  const WeightType type = source.type();
  const std::size_t bytes = PackedModelBytes(config, type, with_backward);
  Arena* old = nullptr;
  if (spare.use_count() == 1) {  // nobody reads it any more
    old = &const_cast<PackedWeights&>(Of(*spare)).arena_;
  }
  const bool again = old != nullptr && old->room() == bytes;
  THRESHER_ASSIGN_OR_RETURN(Arena arena,
                            again ? Result<Arena>(std::move(*old)) : Arena::Make(bytes));
  arena.Clear();
  spare.reset();
  THRESHER_ASSIGN_OR_RETURN(auto rope, SharedRopeTables(config));
  std::shared_ptr<PackedWeights> model(new PackedWeights(config, valid_vocab, with_backward, type,
                                                         std::move(arena), std::move(rope)));
  THRESHER_RETURN_IF_ERROR(Packer(*model, source).Pack());
  return std::shared_ptr<const PackedWeights>(std::move(model));
}

}  // namespace thresher::model
