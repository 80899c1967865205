#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/data/safetensors.h"
#include "common/model/lora.h"

namespace thresher::model {

// Adapters as PEFT keeps them: adapter_model.safetensors (fp32, the names of Lora::parameters
// behind "base_model.model.") and adapter_config.json.
inline constexpr char kAdapterFile[] = "adapter_model.safetensors";
inline constexpr char kAdapterConfigFile[] = "adapter_config.json";

// Views of `adapters`, which has to outlive them.
std::vector<TensorView> AdapterTensors(const Lora& lora, std::span<const float> adapters);
// base: of the model that the adapters are for; may be empty.
std::string AdapterConfigJson(const Lora& lora, const std::string& base);

// Reads what these two wrote for the same adapters. Errors, naming file and key or tensor:
// kFailedPrecondition (adapters of another rank, scale or of other targets), kDataLoss (damaged),
// kNotFound.
Status CheckAdapterConfig(const std::filesystem::path& file, const Lora& lora);
Result<std::vector<float>> ReadAdapters(const std::filesystem::path& file, const Lora& lora);

// `json`, an adapter_config.json, with another base. Error: kDataLoss.
Result<std::string> WithBase(const std::string& json, const std::string& base);

// Views of the targets' own matrices in `base`, by their names in the model; and back.
std::vector<TensorView> BaseTensors(const Lora& lora, std::span<const float> base);
Result<std::vector<float>> ReadBase(const std::filesystem::path& file, const Lora& lora);

}  // namespace thresher::model
