#pragma once

// Internal to common/data: what the reader and the writer of safetensors share.

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "common/data/safetensors.h"

namespace thresher::safetensors {

inline constexpr std::size_t kLengthBytes = 8;
inline constexpr const char* kMetadataKey = "__metadata__";

std::optional<DType> ParseDType(std::string_view name);
// Bytes of a tensor; nothing when a dimension is negative or the product overflows.
std::optional<std::uint64_t> TensorBytes(DType dtype, const std::vector<std::int64_t>& shape);

}  // namespace thresher::safetensors
