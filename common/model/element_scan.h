#pragma once

// Internal to common/model: what is done to the elements of a stored tensor. Elements may have any
// alignment.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cpu/weight_type.h"

namespace thresher::model {

// The first of `count` elements that is infinite or no number.
std::optional<std::size_t> FirstNotFinite(kernels::WeightType type, const char* elements,
                                          std::size_t count);
// Exactly.
void Widen(kernels::WeightType type, const char* elements, std::size_t count, float* out);
// To the nearest, ties to even; what is too large becomes infinite.
std::string Narrow(kernels::WeightType type, std::span<const float> values);
// What Narrow and Widen give one after the other: the nearest values that `type` holds.
void RoundTo(kernels::WeightType type, std::span<const float> values, float* out);

// "nan", "-inf", "0.5".
std::string ElementText(kernels::WeightType type, const char* element);
// "[2, 3]": a shape; or the place of element `index` in a tensor of that shape.
std::string ShapeText(const std::vector<std::int64_t>& shape);
std::string IndexText(const std::vector<std::int64_t>& shape, std::size_t index);

// Drops the pages of a read-only file mapping that `bytes` touches: they no longer count as this
// process's memory, and come back from the page cache when they are read again.
void ReleasePages(std::string_view bytes);

}  // namespace thresher::model
