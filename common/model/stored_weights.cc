#include "common/model/stored_weights.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>

#include "common/base/check.h"
#include "common/data/files.h"
#include "common/model/element_scan.h"
#include "common/model/json_fields.h"

namespace thresher::model {
namespace {

using kernels::WeightType;

constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kHead[] = "lm_head.weight";
// A table that old Llama files hold and that everybody computes.
constexpr char kFrequencyTable[] = ".rotary_emb.inv_freq";
// Bytes after which pages are given back: a system call for each chunk would cost more than it
// saves.
constexpr std::size_t kGiveBackBytes = 4 << 20;

Status Wrong(const std::string& file, const std::string& tensor, const std::string& what) {
  return InvalidArgument(file + ": tensor '" + tensor + "' " + what);
}

std::optional<WeightType> TypeOf(DType dtype) {
  if (dtype == DType::kF32) return WeightType::kF32;
  if (dtype == DType::kBF16) return WeightType::kBf16;
  if (dtype == DType::kF16) return WeightType::kF16;
  return std::nullopt;
}

// File name of each tensor. Names stay inside the folder.
Result<std::map<std::string, std::string>> ReadIndex(const std::filesystem::path& index) {
  const std::string origin = index.string();
  THRESHER_ASSIGN_OR_RETURN(const std::string text, ReadFile(index));
  THRESHER_ASSIGN_OR_RETURN(const Json json, ParseStrictJsonObject(text, origin));
  JsonFields fields(json, origin);
  const Json* map = fields.Find("weight_map");
  if (map == nullptr || !map->is_object()) {
    fields.Fail("weight_map", "an object: tensor name -> file name");
    return fields.status();
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (!name.ends_with(".safetensors") || name.find_first_of("/\\") != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return Wrong(
          origin, tensor,
          "is in " + file.dump(-1, ' ', true) + "; allowed: a .safetensors file beside it");
    }
    files[tensor] = name;
  }
  return files;
}

}  // namespace

DType StoredType(WeightType type) {
  if (type == WeightType::kBf16) return DType::kBF16;
  return type == WeightType::kF16 ? DType::kF16 : DType::kF32;
}

Status PutParameters(WeightType type, std::span<const ParameterInfo> list,
                     std::span<const float> flat,
                     const std::function<Status(std::string_view)>& put) {
  const std::size_t size = kernels::WeightBytes(type);
  std::vector<TensorView> tensors;
  for (const ParameterInfo& info : list) {
    // Of the header: the length counts, and that is not more than the floats have.
    const auto* bytes = reinterpret_cast<const char*>(flat.data() + info.offset);
    tensors.push_back({info.name, StoredType(type), info.shape, {bytes, info.count * size}});
  }
  THRESHER_ASSIGN_OR_RETURN(const std::string header,
                            EncodeSafetensorsHeader(tensors, {{"format", "pt"}}));
  THRESHER_RETURN_IF_ERROR(put(header));
  for (std::size_t i = 0; i < list.size(); ++i) {
    const ParameterInfo& info = list[i];
    if (type == WeightType::kF32) {
      THRESHER_RETURN_IF_ERROR(put(tensors[i].data));
      continue;
    }
    const auto values = flat.subspan(info.offset, info.count);
    const std::string narrow = Narrow(type, values);
    const auto bad = FirstNotFinite(type, narrow.data(), info.count);
    if (bad && std::isfinite(values[*bad])) {
      return InvalidArgument("weights: tensor '" + info.name + "' holds " +
                             std::to_string(values[*bad]) + " at " + IndexText(info.shape, *bad) +
                             ", which " + kernels::WeightTypeName(type) + " cannot hold");
    }
    THRESHER_RETURN_IF_ERROR(put(narrow));
  }
  return Status::Ok();
}

Result<std::string> EncodeParameters(WeightType type, std::span<const ParameterInfo> list,
                                     std::span<const float> flat) {
  std::string bytes;
  bytes.reserve(flat.size() * kernels::WeightBytes(type));
  THRESHER_RETURN_IF_ERROR(PutParameters(type, list, flat, [&](std::string_view piece) {
    bytes.append(piece);
    return Status::Ok();
  }));
  return bytes;
}

Result<StoredWeights> StoredWeights::Open(const std::filesystem::path& folder,
                                          const ModelConfig& config) {
  StoredWeights weights;
  weights.config_ = config;
  const auto single = folder / "model.safetensors";
  const auto index = folder / "model.safetensors.index.json";
  if (Exists(single) || !Exists(index)) {
    THRESHER_RETURN_IF_ERROR(weights.AddFile(single));
  } else {
    THRESHER_RETURN_IF_ERROR(weights.AddIndexed(index));
  }
  THRESHER_RETURN_IF_ERROR(weights.CheckTensors(folder));
  return weights;
}

Status StoredWeights::AddFile(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(Safetensors file, Safetensors::Open(path));
  for (const TensorView& view : file.tensors()) {
    if (view.name.ends_with(kFrequencyTable)) continue;
    const auto type = TypeOf(view.dtype);
    if (!type) {
      return Wrong(path.string(), view.name,
                   std::string("has dtype ") + DTypeName(view.dtype) + "; allowed: F32, BF16, F16");
    }
    const auto [entry, added] = tensors_.try_emplace(view.name, view, *type, path.string());
    if (!added) return Wrong(path.string(), view.name, "is in " + entry->second.file + " as well");
  }
  files_.push_back(std::move(file));
  return Status::Ok();
}

Status StoredWeights::AddIndexed(const std::filesystem::path& index) {
  THRESHER_ASSIGN_OR_RETURN(const auto promised, ReadIndex(index));
  std::map<std::string, bool> opened;
  for (const auto& [tensor, file] : promised) {
    if (!std::exchange(opened[file], true)) {
      THRESHER_RETURN_IF_ERROR(AddFile(index.parent_path() / file));
    }
  }
  for (const auto& [tensor, file] : promised) {
    if (tensor.ends_with(kFrequencyTable)) continue;
    const auto found = tensors_.find(tensor);
    const std::string path = (index.parent_path() / file).string();
    if (found == tensors_.end() || found->second.file != path) {
      return Wrong(index.string(), tensor, "is not in " + path + ", where the index has it");
    }
  }
  for (const auto& [name, tensor] : tensors_) {
    if (!promised.contains(name)) return Wrong(tensor.file, name, "is not in " + index.string());
  }
  return Status::Ok();
}

Status StoredWeights::CheckTensors(const std::filesystem::path& folder) {
  std::size_t known = 0;
  const auto check = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return Wrong(folder.string(), name, "is missing");
    const Tensor& tensor = found->second;
    ++known;
    if (tensor.view.shape == shape) return Status::Ok();
    return Wrong(tensor.file, name,
                 "has shape " + ShapeText(tensor.view.shape) +
                     "; allowed by config.json: " + ShapeText(shape));
  };
  for (const ParameterInfo& info : ParameterList(config_)) {
    THRESHER_RETURN_IF_ERROR(check(info.name, info.shape));
  }
  if (tied_head() != nullptr) {
    THRESHER_RETURN_IF_ERROR(check(kHead, {config_.vocab, config_.width}));
    if (at(kHead).type != at(kEmbedding).type) {
      return Wrong(at(kHead).file, kHead, "has another dtype than the embedding it is tied to");
    }
  }
  if (known == tensors_.size()) return Status::Ok();
  std::map<std::string, std::string> strange;  // by name, so that the same one is always named
  for (const auto& [name, tensor] : tensors_) strange.emplace(name, tensor.file);
  for (const ParameterInfo& info : ParameterList(config_)) strange.erase(info.name);
  if (config_.tied_embeddings) strange.erase(kHead);
  return Wrong(strange.begin()->second, strange.begin()->first, "is not of this model");
}

const StoredWeights::Tensor* StoredWeights::tied_head() const {
  const auto found = config_.tied_embeddings ? tensors_.find(kHead) : tensors_.end();
  return found == tensors_.end() ? nullptr : &found->second;
}

Result<WeightType> StoredWeights::MatrixType() const {
  const WeightType type = at(kEmbedding).type;
  for (const ParameterInfo& info : ParameterList(config_)) {
    const Tensor& tensor = at(info.name);
    if (info.shape.size() < 2 || tensor.type == type) continue;
    return Wrong(tensor.file, info.name,
                 std::string("is ") + kernels::WeightTypeName(tensor.type) +
                     "; allowed: " + kernels::WeightTypeName(type) +
                     ", as the other matrices (or widen all to float32)");
  }
  return type;
}

Result<const void*> StoredSource::Matrix(const ParameterInfo& info, std::int64_t row0,
                                         std::int64_t rows) {
  const auto width = static_cast<std::size_t>(info.shape[1]);
  const std::size_t first = static_cast<std::size_t>(row0) * width;
  const std::size_t count = static_cast<std::size_t>(rows) * width;
  const StoredWeights::Tensor& tensor = stored_.at(info.name);
  THRESHER_ASSIGN_OR_RETURN(const char* elements, Elements(tensor, first, count));
  THRESHER_RETURN_IF_ERROR(
      CompareTiedHead(info, first, {elements, count * kernels::WeightBytes(tensor.type)}));
  if (tensor.type == type_) return static_cast<const void*>(elements);
  THRESHER_CHECK(type_ == WeightType::kF32, "weights are widened or left as they are");
  Widen(tensor.type, elements, count, Reserve(widened_, count));
  return static_cast<const void*>(widened_.data());
}

Status StoredSource::Vector(const ParameterInfo& info, float* out) {
  const StoredWeights::Tensor& tensor = stored_.at(info.name);
  THRESHER_ASSIGN_OR_RETURN(const char* elements, Elements(tensor, 0, info.count));
  Widen(tensor.type, elements, info.count, out);
  return Status::Ok();
}

Result<const char*> StoredSource::Elements(const StoredWeights::Tensor& tensor, std::size_t first,
                                           std::size_t count) {
  const std::size_t size = kernels::WeightBytes(tensor.type);
  const std::string_view bytes = tensor.view.data.substr(first * size, count * size);
  const bool continues = read_.data() + read_.size() == bytes.data();
  GiveBack(continues ? kGiveBackBytes : 0);
  read_ = read_.empty() ? bytes : std::string_view(read_.data(), read_.size() + bytes.size());
  const auto bad = FirstNotFinite(tensor.type, bytes.data(), count);
  if (!bad) return bytes.data();
  return DataLoss(tensor.file + ": tensor '" + tensor.view.name + "' holds " +
                  ElementText(tensor.type, bytes.data() + *bad * size) + " at " +
                  IndexText(tensor.view.shape, first + *bad));
}

Status StoredSource::CompareTiedHead(const ParameterInfo& info, std::size_t first,
                                     std::string_view bytes) {
  const StoredWeights::Tensor* head = stored_.tied_head();
  if (head == nullptr || info.name != kEmbedding) return Status::Ok();
  const std::size_t offset = first * kernels::WeightBytes(head->type);
  const std::string_view copy = head->view.data.substr(offset, bytes.size());
  if (copy != bytes) {
    return DataLoss(head->file + ": tensor '" + kHead + "' differs from " + kEmbedding +
                    ", although config.json ties them");
  }
  ReleasePages(copy);
  return Status::Ok();
}

void StoredSource::GiveBack(std::size_t bytes) {
  if (read_.size() < bytes || read_.empty()) return;
  ReleasePages(read_);
  read_ = {};
}

}  // namespace thresher::model
