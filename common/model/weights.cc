#include "common/model/weights.h"

#include <bit>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "common/base/check.h"
#include "common/data/safetensors.h"
#include "common/model/element_scan.h"
#include "common/model/stored_weights.h"

namespace thresher::model {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

Status Wrong(const std::string& origin, const std::string& tensor, const std::string& what) {
  return InvalidArgument(origin + ": tensor '" + tensor + "' " + what);
}

Status CheckTensor(const TensorView& tensor, const ParameterInfo& info, DType stored,
                   const std::string& origin) {
  if (tensor.dtype != stored) {
    return Wrong(
        origin, info.name,
        std::string("has dtype ") + DTypeName(tensor.dtype) + "; allowed: " + DTypeName(stored));
  }
  if (tensor.shape != info.shape) {
    return Wrong(origin, info.name,
                 "has shape " + ShapeText(tensor.shape) + "; allowed: " + ShapeText(info.shape));
  }
  THRESHER_CHECK(tensor.data.size() == info.count * DTypeBytes(stored), "tensor without its bytes");
  return Status::Ok();
}

// The first infinite one among elements of a 16-bit type.
std::optional<std::size_t> FirstInfinite(kernels::WeightType type, const char* elements,
                                         std::size_t count) {
  const std::size_t size = kernels::WeightBytes(type);
  for (std::size_t from = 0; from < count;) {
    const auto found = FirstNotFinite(type, elements + from * size, count - from);
    if (!found) return std::nullopt;
    float value = 0;
    Widen(type, elements + (from + *found) * size, 1, &value);
    if (std::isinf(value)) return from + *found;
    from += *found + 1;
  }
  return std::nullopt;
}

}  // namespace

Result<std::string> EncodeWeights(const ModelConfig& config, std::span<const float> flat) {
  THRESHER_CHECK(flat.size() == ParameterCount(config), "weights of another model");
  return EncodeParameters(config.dtype, ParameterList(config), flat);
}

std::string PublishedElements(const ModelConfig& config, std::span<const float> flat) {
  return Narrow(config.dtype, flat);
}

Result<std::string> EncodePublished(const ModelConfig& config,
                                    std::span<const std::byte> elements) {
  const std::size_t size = kernels::WeightBytes(config.dtype);
  THRESHER_CHECK(elements.size() == ParameterCount(config) * size, "weights of another model");
  const auto* at = reinterpret_cast<const char*>(elements.data());
  const std::vector<ParameterInfo> list = ParameterList(config);
  std::vector<TensorView> tensors;
  for (const ParameterInfo& info : list) {
    const char* data = at + info.offset * size;
    const auto bad = config.dtype == kernels::WeightType::kF32
                         ? std::nullopt
                         : FirstInfinite(config.dtype, data, info.count);
    if (bad) {
      return InvalidArgument("weights: tensor '" + info.name + "' at " +
                             IndexText(info.shape, *bad) + " is more than " +
                             kernels::WeightTypeName(config.dtype) + " holds");
    }
    tensors.push_back({info.name, StoredType(config.dtype), info.shape, {data, info.count * size}});
  }
  return EncodeSafetensors(tensors, {{"format", "pt"}});
}

Hash128 PublishedHash(const ModelConfig& config, std::span<const float> flat) {
  if (config.dtype == kernels::WeightType::kF32) return HashBytes128(std::as_bytes(flat));
  return HashText128(Narrow(config.dtype, flat));
}

Result<std::vector<float>> DecodeWeights(const ModelConfig& config, std::string_view blob,
                                         const std::string& origin) {
  THRESHER_ASSIGN_OR_RETURN(const Safetensors file, Safetensors::Parse(blob, origin));
  std::unordered_map<std::string, const TensorView*> unread;
  for (const TensorView& tensor : file.tensors()) unread.emplace(tensor.name, &tensor);
  const std::vector<ParameterInfo> list = ParameterList(config);
  // Before memory is taken for them: a header may promise any shape.
  for (const ParameterInfo& info : list) {
    const auto found = unread.find(info.name);
    if (found == unread.end()) return Wrong(origin, info.name, "is missing");
    THRESHER_RETURN_IF_ERROR(CheckTensor(*found->second, info, StoredType(config.dtype), origin));
  }
  std::vector<float> flat(ParameterCount(config));
  for (const ParameterInfo& info : list) {
    const auto found = unread.find(info.name);
    Widen(config.dtype, found->second->data.data(), info.count, flat.data() + info.offset);
    unread.erase(found);
  }
  for (const TensorView& tensor : file.tensors()) {
    if (unread.contains(tensor.name)) return Wrong(origin, tensor.name, "is not of this model");
  }
  return flat;
}

}  // namespace thresher::model
