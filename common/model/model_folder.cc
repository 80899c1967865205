#include "common/data/files.h"
#include "common/model/json_fields.h"
#include "common/model/tokenizer.h"
#include "common/model/weights.h"

namespace thresher::model {
namespace {

// What `generate` starts from: the special tokens, and greedy unless told otherwise.
std::string GenerationConfigJson(const ModelConfig& config) {
  Json json = Json::object();
  if (config.bos_id >= 0) json["bos_token_id"] = config.bos_id;
  if (config.eos_id >= 0) json["eos_token_id"] = config.eos_id;
  if (config.pad_id >= 0) json["pad_token_id"] = config.pad_id;
  return json.dump(2) + "\n";
}

}  // namespace

Status SaveModelFolder(const std::filesystem::path& folder, const ModelConfig& config,
                       std::span<const float> flat, const Tokenizer& tokenizer) {
  THRESHER_RETURN_IF_ERROR(config.Validate());
  if (tokenizer.vocab() > config.vocab) {
    return InvalidArgument("model.vocab is " + std::to_string(config.vocab) + "; allowed: " +
                           std::to_string(tokenizer.vocab()) + ", the tokenizer's, or more");
  }
  if (flat.size() != ParameterCount(config)) {
    return InvalidArgument("weights: " + std::to_string(flat.size()) +
                           " floats; allowed: " + std::to_string(ParameterCount(config)));
  }
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(folder / "config.json", config.ToJson()));
  THRESHER_RETURN_IF_ERROR(
      WriteFileAtomic(folder / "generation_config.json", GenerationConfigJson(config)));
  THRESHER_RETURN_IF_ERROR(SaveTokenizer(folder, tokenizer));
  return WriteFileAtomic(folder / "model.safetensors", EncodeWeights(config, flat));
}

Result<LoadedModel> LoadModelFolder(const std::filesystem::path& folder) {
  LoadedModel model;
  const auto config_file = folder / "config.json";
  THRESHER_ASSIGN_OR_RETURN(const std::string config, ReadFile(config_file));
  THRESHER_ASSIGN_OR_RETURN(model.config, ModelConfig::FromJson(config, config_file.string()));
  THRESHER_ASSIGN_OR_RETURN(model.tokenizer, LoadTokenizer(folder));
  if (model.tokenizer->vocab() > model.config.vocab) {
    return InvalidArgument(
        config_file.string() + ": key 'vocab_size' is " + std::to_string(model.config.vocab) +
        "; allowed: " + std::to_string(model.tokenizer->vocab()) + ", the tokenizer's, or more");
  }
  const auto weights_file = folder / "model.safetensors";
  THRESHER_ASSIGN_OR_RETURN(const MappedFile weights, MappedFile::Open(weights_file));
  THRESHER_ASSIGN_OR_RETURN(model.flat,
                            DecodeWeights(model.config, weights.bytes(), weights_file.string()));
  return model;
}

}  // namespace thresher::model
