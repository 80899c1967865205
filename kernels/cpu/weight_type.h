#pragma once

#include <cstddef>
#include <cstdint>

// How the weights of a matrix product are stored. Activations are fp32 everywhere.
namespace thresher::kernels {

enum class WeightType : std::uint8_t {
  kF32,   // IEEE binary32
  kBf16,  // the upper half of a binary32
  kF16,   // IEEE binary16
};

// 4 or 2.
constexpr std::size_t WeightBytes(WeightType type) { return type == WeightType::kF32 ? 4 : 2; }

// "float32", "bfloat16", "float16": the names of the types in a Hugging Face config.json.
const char* WeightTypeName(WeightType type);

// A packed matrix, borrowed: the image that PackRows or PackRowsTransposed (gemm.h) wrote. 64-byte
// alignment is fastest; 4-byte alignment is required.
struct PackedMatrix {
  const void* data = nullptr;
  WeightType type = WeightType::kF32;
};

}  // namespace thresher::kernels
