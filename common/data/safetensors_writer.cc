#include <nlohmann/json.hpp>

#include "common/data/byte_order.h"
#include "common/data/safetensors.h"
#include "common/data/safetensors_format.h"

namespace thresher {
namespace {

struct DTypeRow {
  const char* name;
  std::size_t bytes;
};
constexpr DTypeRow kDTypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2},
                                {"I32", 4}, {"I64", 8}, {"U8", 1}};

const DTypeRow& Row(DType dtype) {
  auto index = static_cast<std::size_t>(dtype);
  THRESHER_CHECK(index < std::size(kDTypes), "unknown dtype " + std::to_string(index));
  return kDTypes[index];
}

}  // namespace

const char* DTypeName(DType dtype) { return Row(dtype).name; }
std::size_t DTypeBytes(DType dtype) { return Row(dtype).bytes; }

std::optional<DType> safetensors::ParseDType(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kDTypes); ++i) {
    if (name == kDTypes[i].name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> safetensors::TensorBytes(DType dtype,
                                                      const std::vector<std::int64_t>& shape) {
  std::uint64_t bytes = DTypeBytes(dtype);
  for (std::int64_t dimension : shape) {
    if (dimension < 0 ||
        __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dimension), &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

Result<std::string> EncodeSafetensorsHeader(const std::vector<TensorView>& tensors,
                                            const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[safetensors::kMetadataKey] = metadata;
  std::uint64_t end = 0;
  for (const TensorView& tensor : tensors) {
    auto wrong = [&](const std::string& problem) {
      return InvalidArgument("tensor '" + tensor.name + "': " + problem);
    };
    std::optional<std::uint64_t> bytes = safetensors::TensorBytes(tensor.dtype, tensor.shape);
    if (!bytes || *bytes != tensor.data.size()) {
      return wrong("its data has " + std::to_string(tensor.data.size()) +
                   " bytes, which is not what its shape takes");
    }
    if (tensor.name == safetensors::kMetadataKey || header.contains(tensor.name)) {
      return wrong("the name is taken");
    }
    header[tensor.name] = {{"dtype", DTypeName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {end, end + *bytes}}};
    end += *bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& error) {  // a name or metadata that is not UTF-8
    return InvalidArgument(std::string("safetensors header: ") + error.what());
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');

  std::string file;
  AppendLittle<std::uint64_t>(file, text.size());
  return file + text;
}

Result<std::string> EncodeSafetensors(const std::vector<TensorView>& tensors,
                                      const std::map<std::string, std::string>& metadata) {
  THRESHER_ASSIGN_OR_RETURN(std::string file, EncodeSafetensorsHeader(tensors, metadata));
  std::size_t bytes = file.size();
  for (const TensorView& tensor : tensors) bytes += tensor.data.size();
  file.reserve(bytes);
  for (const TensorView& tensor : tensors) file.append(tensor.data);
  return file;
}

}  // namespace thresher
