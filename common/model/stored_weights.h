#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/base/status.h"
#include "common/data/safetensors.h"
#include "common/model/buffer.h"
#include "common/model/model_config.h"
#include "common/model/weight_source.h"

namespace thresher::model {

// The type of a stored tensor whose elements are `type`.
DType StoredType(kernels::WeightType type);

// A safetensors file of some parameters of `flat` (all of them), rounded to `type` (to nearest
// even). Error: kInvalidArgument (a finite weight that `type` cannot hold, by name).
Result<std::string> EncodeParameters(kernels::WeightType type, std::span<const ParameterInfo> list,
                                     std::span<const float> flat);
// The same handed to `put` piece by piece: of 16-bit types no more than a tensor is in memory.
// Errors: `put`'s, too.
Status PutParameters(kernels::WeightType type, std::span<const ParameterInfo> list,
                     std::span<const float> flat,
                     const std::function<Status(std::string_view)>& put);

// The weights of a model folder: mapped and checked by their headers, not yet read. They lie in
// model.safetensors or, without it, in the files that model.safetensors.index.json names.
// Immutable; views live as long as it does.
class StoredWeights {
 public:
  struct Tensor {
    TensorView view;
    kernels::WeightType type;
    std::string file;  // for errors
  };

  // Errors, naming file and tensor: kNotFound (no weights), kDataLoss (a damaged file or index),
  // kInvalidArgument: a tensor that is missing, not of this model, of another shape than `config`
  // says, of a type other than F32, BF16, F16, in two files, or not in the file that the index
  // names. A tied model may hold its head a second time.
  static Result<StoredWeights> Open(const std::filesystem::path& folder, const ModelConfig& config);

  const Tensor& at(const std::string& name) const { return tensors_.at(name); }
  // The second copy of a tied head, or null.
  const Tensor* tied_head() const;
  // The one type of all matrices. Error: kInvalidArgument naming a tensor that differs.
  Result<kernels::WeightType> MatrixType() const;

 private:
  Status AddFile(const std::filesystem::path& path);
  Status AddIndexed(const std::filesystem::path& index);
  Status CheckTensors(const std::filesystem::path& folder);

  ModelConfig config_;
  std::vector<Safetensors> files_;
  std::unordered_map<std::string, Tensor> tensors_;
};

// Reads stored weights in order, as they are or widened to fp32. Each element is looked at once:
// one that is not finite is kDataLoss naming file, tensor and index, as is a tied model's second
// head that differs from its embedding. Pages of the mapping that have been read are given back, so
// that no more than a few MiB of it count as used memory. Borrows `stored`.
class StoredSource final : public WeightSource {
 public:
  // type: the matrices' own (StoredWeights::MatrixType), or kF32.
  StoredSource(const StoredWeights& stored, kernels::WeightType type)
      : stored_(stored), type_(type) {}
  ~StoredSource() override { GiveBack(0); }
  StoredSource(const StoredSource&) = delete;
  StoredSource& operator=(const StoredSource&) = delete;

  kernels::WeightType type() const override { return type_; }
  Result<const void*> Matrix(const ParameterInfo& info, std::int64_t row0,
                             std::int64_t rows) override;
  Status Vector(const ParameterInfo& info, float* out) override;

 private:
  // Elements [first, first + count) of a tensor, checked.
  Result<const char*> Elements(const StoredWeights::Tensor& tensor, std::size_t first,
                               std::size_t count);
  Status CompareTiedHead(const ParameterInfo& info, std::size_t first, std::string_view bytes);
  // Gives back the pages read since the last time if there are at least so many bytes of them.
  void GiveBack(std::size_t bytes);

  const StoredWeights& stored_;
  kernels::WeightType type_;
  AlignedFloats widened_;
  std::string_view read_;  // of a mapping, not yet given back
};

}  // namespace thresher::model
