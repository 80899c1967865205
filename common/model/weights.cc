#include "common/model/weights.h"

#include <bit>
#include <cstring>
#include <unordered_map>

#include "common/base/check.h"
#include "common/data/safetensors.h"
#include "common/model/element_scan.h"

namespace thresher::model {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

Status Wrong(const std::string& origin, const std::string& tensor, const std::string& what) {
  return InvalidArgument(origin + ": tensor '" + tensor + "' " + what);
}

Status CheckTensor(const TensorView& tensor, const ParameterInfo& info, const std::string& origin) {
  if (tensor.dtype != DType::kF32) {
    return Wrong(origin, info.name,
                 std::string("has dtype ") + DTypeName(tensor.dtype) + "; allowed: F32");
  }
  if (tensor.shape != info.shape) {
    return Wrong(origin, info.name,
                 "has shape " + ShapeText(tensor.shape) + "; allowed: " + ShapeText(info.shape));
  }
  THRESHER_CHECK(tensor.data.size() == info.count * sizeof(float), "tensor without its bytes");
  return Status::Ok();
}

}  // namespace

std::string EncodeWeights(const ModelConfig& config, std::span<const float> flat) {
  THRESHER_CHECK(flat.size() == ParameterCount(config), "weights of another model");
  std::vector<TensorView> tensors;
  for (ParameterInfo& info : ParameterList(config)) {
    const auto* bytes = reinterpret_cast<const char*>(flat.data() + info.offset);
    tensors.push_back({std::move(info.name), DType::kF32, std::move(info.shape),
                       std::string_view(bytes, info.count * sizeof(float))});
  }
  return EncodeSafetensors(tensors, {{"format", "pt"}}).value();
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
    THRESHER_RETURN_IF_ERROR(CheckTensor(*found->second, info, origin));
  }
  std::vector<float> flat(ParameterCount(config));
  for (const ParameterInfo& info : list) {
    const auto found = unread.find(info.name);
    std::memcpy(flat.data() + info.offset, found->second->data.data(), info.count * sizeof(float));
    unread.erase(found);
  }
  for (const TensorView& tensor : file.tensors()) {
    if (unread.contains(tensor.name)) return Wrong(origin, tensor.name, "is not of this model");
  }
  return flat;
}

}  // namespace thresher::model
