#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/data/byte_order.h"
#include "common/data/json.h"
#include "common/data/safetensors.h"
#include "common/data/safetensors_format.h"

namespace thresher {

using safetensors::ParseDType;
using safetensors::TensorBytes;

// Turns a header into views, one checked step after another.
class SafetensorsParser {
 public:
  SafetensorsParser(std::string_view bytes, const std::string& origin) : bytes_(bytes) {
    file_.origin_ = origin;
  }

  Result<Safetensors> Parse() {
    THRESHER_ASSIGN_OR_RETURN(std::string_view header, Header());
    Result<nlohmann::json> root = ParseJson(header);
    if (!root.ok()) return Damaged("header", root.status().message());
    if (!root->is_object()) return Damaged("header", "is no JSON object");
    for (const auto& [name, value] : root->items()) {
      if (name == safetensors::kMetadataKey) {
        THRESHER_RETURN_IF_ERROR(ReadMetadata(value));
      } else {
        THRESHER_RETURN_IF_ERROR(ReadTensor(name, value));
      }
    }
    THRESHER_RETURN_IF_ERROR(CheckTiling());
    return std::move(file_);
  }

 private:
  Status Damaged(const std::string& part, const std::string& problem) const {
    return DataLoss(file_.origin_ + ": " + part + ": " + problem);
  }
  Status DamagedTensor(const std::string& name, const std::string& problem) const {
    return Damaged("tensor '" + name + "'", problem);
  }

  Result<std::string_view> Header() {
    if (bytes_.size() < safetensors::kLengthBytes) return Damaged("header", "cut off");
    std::uint64_t length = LoadLittle<std::uint64_t>(bytes_.data());
    if (length > kMaxSafetensorsHeaderBytes || length > bytes_.size() - safetensors::kLengthBytes) {
      return Damaged("header", "length " + std::to_string(length) + " in a file of " +
                                   std::to_string(bytes_.size()) + " bytes");
    }
    data_ = bytes_.substr(safetensors::kLengthBytes + length);
    return bytes_.substr(safetensors::kLengthBytes, length);
  }

  Status ReadMetadata(const nlohmann::json& value) {
    if (!value.is_object()) return Damaged("__metadata__", "is no object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) return Damaged("__metadata__", "'" + key + "' is no text");
      file_.metadata_[key] = text.get<std::string>();
    }
    return Status::Ok();
  }

  Status ReadTensor(const std::string& name, const nlohmann::json& value) {
    if (!value.is_object() || value.size() != 3 || !value.contains("dtype") ||
        !value.contains("shape") || !value.contains("data_offsets")) {
      return DamagedTensor(name, "does not hold exactly dtype, shape and data_offsets");
    }
    TensorView tensor;
    tensor.name = name;
    if (!value["dtype"].is_string()) return DamagedTensor(name, "dtype is no text");
    std::string dtype_name = value["dtype"].get<std::string>();
    std::optional<DType> dtype = ParseDType(dtype_name);
    if (!dtype) {
      return InvalidArgument(file_.origin_ + ": tensor '" + name + "': dtype is '" + dtype_name +
                             "'; allowed: F32, F16, BF16, I32, I64, U8");
    }
    tensor.dtype = *dtype;
    THRESHER_RETURN_IF_ERROR(ReadShape(name, value["shape"], tensor));
    THRESHER_RETURN_IF_ERROR(ReadData(name, value["data_offsets"], tensor));
    file_.tensors_.push_back(std::move(tensor));
    return Status::Ok();
  }

  Status ReadShape(const std::string& name, const nlohmann::json& value, TensorView& tensor) {
    if (!value.is_array()) return DamagedTensor(name, "shape is no array");
    for (const nlohmann::json& dimension : value) {
      if (!dimension.is_number_unsigned() ||
          dimension.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
        return DamagedTensor(name, "dimension " + dimension.dump() + " is no size");
      }
      tensor.shape.push_back(dimension.get<std::int64_t>());
    }
    return Status::Ok();
  }

  Status ReadData(const std::string& name, const nlohmann::json& value, TensorView& tensor) {
    if (!value.is_array() || value.size() != 2 || !value[0].is_number_unsigned() ||
        !value[1].is_number_unsigned()) {
      return DamagedTensor(name, "data_offsets are no two sizes");
    }
    auto begin = value[0].get<std::uint64_t>();
    auto end = value[1].get<std::uint64_t>();
    if (begin > end || end > data_.size()) {
      return DamagedTensor(name, "data_offsets [" + std::to_string(begin) + ", " +
                                     std::to_string(end) + ") in " + std::to_string(data_.size()) +
                                     " bytes of data");
    }
    std::optional<std::uint64_t> expected = TensorBytes(tensor.dtype, tensor.shape);
    if (!expected || *expected != end - begin) {
      return DamagedTensor(name, std::to_string(end - begin) + " bytes of data; its shape takes " +
                                     (expected ? std::to_string(*expected) : "more than 2^64"));
    }
    tensor.data = data_.substr(begin, end - begin);
    return Status::Ok();
  }

  // In order of offsets every tensor begins where the one before ends, from 0 to the end.
  Status CheckTiling() {
    auto offset = [&](const TensorView& tensor) { return tensor.data.data() - data_.data(); };
    std::sort(file_.tensors_.begin(), file_.tensors_.end(),
              [&](const TensorView& a, const TensorView& b) {
                auto key = [&](const TensorView& t) {
                  return std::tuple(offset(t), t.data.size(), std::string_view(t.name));
                };
                return key(a) < key(b);
              });
    std::size_t end = 0;
    for (std::size_t i = 0; i < file_.tensors_.size(); ++i) {
      const TensorView& tensor = file_.tensors_[i];
      auto begin = static_cast<std::size_t>(offset(tensor));
      if (begin != end) {
        return DamagedTensor(
            tensor.name, begin < end ? "overlaps the tensor before it" : "leaves a gap before it");
      }
      end += tensor.data.size();
      file_.by_name_[tensor.name] = i;
    }
    if (end != data_.size()) {
      return Damaged("data", std::to_string(data_.size() - end) + " bytes belong to no tensor");
    }
    return Status::Ok();
  }

  std::string_view bytes_;
  std::string_view data_;
  Safetensors file_;
};

Result<Safetensors> Safetensors::Parse(std::string_view bytes, const std::string& origin) {
  return SafetensorsParser(bytes, origin).Parse();
}

Result<Safetensors> Safetensors::Open(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  THRESHER_ASSIGN_OR_RETURN(Safetensors parsed, Parse(file.bytes(), path.string()));
  parsed.file_ = std::move(file);
  return parsed;
}

Result<TensorView> Safetensors::Find(const std::string& name) const {
  auto found = by_name_.find(name);
  if (found == by_name_.end()) {
    return InvalidArgument(origin_ + ": tensor '" + name + "' is missing");
  }
  return tensors_[found->second];
}

}  // namespace thresher
