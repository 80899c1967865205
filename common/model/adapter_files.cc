#include "common/model/adapter_files.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "common/data/files.h"

namespace thresher::model {
namespace {

using nlohmann::json;

constexpr char kPrefix[] = "base_model.model.";

TensorView View(std::string name, const ParameterInfo& info, const float* values) {
  return {std::move(name),
          DType::kF32,
          info.shape,
          {reinterpret_cast<const char*>(values), info.count * sizeof(float)}};
}

// "q_proj" of each target; the whole names where a layer has none of it, which PEFT takes for
// suffixes too.
std::set<std::string> TargetNames(const Lora& lora) {
  std::set<std::string> names;
  const std::string weight = ".weight";
  for (const ParameterInfo& info : lora.targets()) {
    const std::string stem = info.name.substr(0, info.name.size() - weight.size());
    names.insert(lora.every_layer() ? stem.substr(stem.rfind('.') + 1) : stem);
  }
  return names;
}

Result<json> ParseConfig(const std::string& text, const std::string& origin) {
  json config = json::parse(text, nullptr, false);
  if (config.is_object()) return config;
  return DataLoss(origin + ": not a JSON object");
}

Status Differs(const std::filesystem::path& file, const char* key, const json& found,
               const json& wanted) {
  return FailedPrecondition(file.string() + ": " + key + " is " + found.dump() +
                            "; allowed: " + wanted.dump() + ", the run's");
}

// Appends the tensor's values.
Status Append(const Safetensors& file, const std::string& name, const ParameterInfo& info,
              std::vector<float>& out) {
  THRESHER_ASSIGN_OR_RETURN(const TensorView tensor, file.Find(name));
  if (tensor.dtype != DType::kF32 || tensor.shape != info.shape) {
    return FailedPrecondition("tensor " + name + " is " + DTypeName(tensor.dtype) + " " +
                              json(tensor.shape).dump() + "; allowed: F32 " +
                              json(info.shape).dump());
  }
  const std::size_t at = out.size();
  out.resize(at + info.count);
  std::memcpy(out.data() + at, tensor.data.data(), info.count * sizeof(float));
  return Status::Ok();
}

Result<std::vector<float>> ReadAll(const std::filesystem::path& path, const std::string& prefix,
                                   const std::vector<ParameterInfo>& list) {
  THRESHER_ASSIGN_OR_RETURN(const Safetensors file, Safetensors::Open(path));
  std::vector<float> out;
  for (const ParameterInfo& info : list) {
    const Status read = Append(file, prefix + info.name, info, out);
    if (!read.ok()) return read.WithContext(path.string());
  }
  if (file.tensors().size() == list.size()) return out;
  return FailedPrecondition(path.string() + ": " + std::to_string(file.tensors().size()) +
                            " tensors; allowed: " + std::to_string(list.size()) +
                            ", those of lora.targets");
}

}  // namespace

std::vector<TensorView> AdapterTensors(const Lora& lora, std::span<const float> adapters) {
  std::vector<TensorView> out;
  for (const ParameterInfo& info : lora.parameters()) {
    out.push_back(View(kPrefix + info.name, info, adapters.data() + info.offset));
  }
  return out;
}

std::string AdapterConfigJson(const Lora& lora, const std::string& base) {
  const json config = {{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"base_model_name_or_path", base},
                       {"r", lora.rank()},
                       {"lora_alpha", lora.options().alpha},
                       {"use_rslora", lora.options().rank_stabilised},
                       {"target_modules", TargetNames(lora)},
                       {"lora_dropout", 0.0},
                       {"bias", "none"},
                       {"fan_in_fan_out", false},
                       {"init_lora_weights", true},
                       {"inference_mode", true},
                       {"modules_to_save", nullptr}};
  return config.dump(2) + "\n";
}

Status CheckAdapterConfig(const std::filesystem::path& file, const Lora& lora) {
  THRESHER_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  THRESHER_ASSIGN_OR_RETURN(const json found, ParseConfig(text, file.string()));
  const json wanted = json::parse(AdapterConfigJson(lora, ""));
  const std::pair<const char*, const char*> keys[] = {{"r", "lora.rank"},
                                                      {"lora_alpha", "lora.alpha"},
                                                      {"use_rslora", "lora.rank_stabilised"},
                                                      {"target_modules", "lora.targets"}};
  for (const auto& [name, key] : keys) {
    const json is = found.value(name, json());
    if (is != wanted[name]) return Differs(file, key, is, wanted[name]);
  }
  return Status::Ok();
}

Result<std::vector<float>> ReadAdapters(const std::filesystem::path& file, const Lora& lora) {
  return ReadAll(file, kPrefix, lora.parameters());
}

Result<std::string> WithBase(const std::string& text, const std::string& base) {
  THRESHER_ASSIGN_OR_RETURN(json config, ParseConfig(text, kAdapterConfigFile));
  config["base_model_name_or_path"] = base;
  return config.dump(2) + "\n";
}

std::vector<TensorView> BaseTensors(const Lora& lora, std::span<const float> base) {
  std::vector<TensorView> out;
  for (const ParameterInfo& info : lora.targets()) {
    out.push_back(View(info.name, info, base.data()));
    base = base.subspan(info.count);
  }
  return out;
}

Result<std::vector<float>> ReadBase(const std::filesystem::path& file, const Lora& lora) {
  return ReadAll(file, "", lora.targets());
}

}  // namespace thresher::model
