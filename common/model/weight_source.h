#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/base/status.h"
#include "common/model/weights.h"
#include "kernels/cpu/weight_type.h"

namespace thresher::model {

// Where the weights of a model come from while they are packed: tensor by tensor in the order of
// ParameterList, each from its first row to its last, so that no more than a few rows need to be in
// memory beside the packed copy. One reader, one pass.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Type of the matrices as Matrix gives them.
  virtual kernels::WeightType type() const = 0;
  // Rows [row0, row0 + rows) of a matrix, [rows, shape[1]] elements of type(), of any alignment.
  // Valid until the next call. Errors: those of the source.
  virtual Result<const void*> Matrix(const ParameterInfo& info, std::int64_t row0,
                                     std::int64_t rows) = 0;
  // A norm's or bias's elements, widened.
  virtual Status Vector(const ParameterInfo& info, float* out) = 0;
};

// The flat fp32 vector of all parameters, matrices and vectors alike rounded to `type` (to nearest
// even). Never fails. Borrows `flat`.
class FlatWeights final : public WeightSource {
 public:
  FlatWeights(std::span<const float> flat, kernels::WeightType type) : flat_(flat), type_(type) {}
  kernels::WeightType type() const override { return type_; }
  Result<const void*> Matrix(const ParameterInfo& info, std::int64_t row0,
                             std::int64_t rows) override;
  Status Vector(const ParameterInfo& info, float* out) override;

 private:
  std::span<const float> flat_;
  kernels::WeightType type_;
  std::string narrowed_;
};

}  // namespace thresher::model
