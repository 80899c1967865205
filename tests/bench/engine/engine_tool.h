#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/weight_type.h"

// What run.py measures in C++: three functions, each from one JSON object to one.
namespace thresher::bench {

// What this machine can do at most. Asks for "threads": [1, 2]. Gives "variant" and for each thread
// count, as the sum over that many threads at work together, "read_gbytes_per_s" and by name of
// each kernel set that is native here the GFLOP/s of its instruction.
nlohmann::json MeasureLimits(const nlohmann::json& request);

// One decode step's kernels, each alone on one core: "seconds" by kernel, and their "sum". Asks for
// the model's "width", "layers", "heads", "kv_heads", "head_dim", "ffn_width", "vocab",
// "weight_type" ("f32", "bf16", "f16"), the "batch" and the "positions" before the step.
nlohmann::json MeasureKernels(const nlohmann::json& request);

// A model's products at one number of rows, by the strict kernels and by a library, in turns on one
// core. Asks for "library" (a shared library that exports BLAS's sgemm_ and perhaps MKL's
// cblas_sgemm_pack), "products": [[n, k, count], ...], "rows", "pairs". Gives "seconds" of
// a pass over the products by implementation, one for each turn. Ends the process if the library
// gives other products.
nlohmann::json MeasureStrictness(const nlohmann::json& request);

// A matrix W [N, K] of small random values of `type`, packed; 64-byte aligned.
class PackedWeights {
 public:
  PackedWeights(kernels::WeightType type, std::int64_t n, std::int64_t k, const void* values);
  kernels::PackedMatrix matrix() const;

 private:
  kernels::WeightType type_;
  std::vector<std::uint8_t> image_;
};

// `count` values in [-0.5, 0.5).
std::vector<float> SmallValues(std::int64_t count, std::uint32_t seed);

}  // namespace thresher::bench
