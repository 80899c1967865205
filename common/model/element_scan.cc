#include "common/model/element_scan.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/model/half.h"

namespace thresher::model {
namespace {

using kernels::WeightType;

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

// Elements handled at a time: a fixed number, so that the loops over them become vectors.
constexpr std::size_t kBlock = 64;

// Loads a block; what lies beyond `count` is zero.
template <typename Unit>
void Load(const char* elements, std::size_t count, Unit (&block)[kBlock]) {
  if (count < kBlock) std::memset(block, 0, sizeof block);
  std::memcpy(block, elements, std::min(count, kBlock) * sizeof(Unit));
}

// An exponent of all ones overflows into the sign's place when its lowest bit is added.
template <typename Unit, Unit kExponent>
std::optional<std::size_t> FirstWithFullExponent(const char* elements, std::size_t count) {
  constexpr Unit kLowest = kExponent & static_cast<Unit>(-kExponent);
  constexpr Unit kTop = Unit{1} << (8 * sizeof(Unit) - 1);
  for (std::size_t i = 0; i < count; i += kBlock) {
    Unit block[kBlock];
    Load(elements + i * sizeof(Unit), count - i, block);
    Unit any = 0;
    for (Unit bits : block) any |= static_cast<Unit>((bits & kExponent) + kLowest);
    if ((any & kTop) == 0) continue;
    const auto* first =
        std::ranges::find_if(block, [](Unit bits) { return (bits & kExponent) == kExponent; });
    return i + static_cast<std::size_t>(first - block);
  }
  return std::nullopt;
}

template <float (*kWide)(std::uint16_t)>
void WidenHalves(const char* elements, std::size_t count, float* out) {
  for (std::size_t i = 0; i < count; i += kBlock) {
    std::uint16_t block[kBlock];
    float wide[kBlock];
    Load(elements + i * sizeof block[0], count - i, block);
    for (std::size_t j = 0; j < kBlock; ++j) wide[j] = kWide(block[j]);
    std::memcpy(out + i, wide, std::min(count - i, kBlock) * sizeof(float));
  }
}

}  // namespace

std::optional<std::size_t> FirstNotFinite(WeightType type, const char* elements,
                                          std::size_t count) {
  switch (type) {
    case WeightType::kF32:
      return FirstWithFullExponent<std::uint32_t, 0x7F800000>(elements, count);
    case WeightType::kBf16:
      return FirstWithFullExponent<std::uint16_t, 0x7F80>(elements, count);
    case WeightType::kF16:
      return FirstWithFullExponent<std::uint16_t, 0x7C00>(elements, count);
  }
  return std::nullopt;
}

void Widen(WeightType type, const char* elements, std::size_t count, float* out) {
  switch (type) {
    case WeightType::kF32:
      std::memcpy(out, elements, count * sizeof(float));
      return;
    case WeightType::kBf16:
      return WidenHalves<Bf16ToFloat>(elements, count, out);
    case WeightType::kF16:
      return WidenHalves<F16ToFloat>(elements, count, out);
  }
}

std::string Narrow(WeightType type, std::span<const float> values) {
  std::string bytes(values.size() * kernels::WeightBytes(type), '\0');
  if (type == WeightType::kF32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t half =
        type == WeightType::kBf16 ? FloatToBf16(values[i]) : FloatToF16(values[i]);
    std::memcpy(bytes.data() + i * sizeof half, &half, sizeof half);
  }
  return bytes;
}

void RoundTo(WeightType type, std::span<const float> values, float* out) {
  Widen(type, Narrow(type, values).data(), values.size(), out);
}

std::string ElementText(WeightType type, const char* element) {
  float value = 0;
  Widen(type, element, 1, &value);
  return std::to_string(value);
}

std::string ShapeText(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

std::string IndexText(const std::vector<std::int64_t>& shape, std::size_t index) {
  std::vector<std::int64_t> place(shape.size());
  for (std::size_t i = shape.size(); i-- > 0;) {
    place[i] = static_cast<std::int64_t>(index) % shape[i];
    index /= static_cast<std::size_t>(shape[i]);
  }
  return ShapeText(place);
}

void ReleasePages(std::string_view bytes) {
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(bytes.data() + bytes.size());
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace thresher::model
