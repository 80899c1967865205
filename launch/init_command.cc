#include <filesystem>
#include <iostream>

#include "common/data/folder.h"
#include "common/model/model_folder.h"
#include "common/model/tokenizer.h"
#include "common/model/weights.h"
#include "launch/commands.h"

namespace thresher::launch {
namespace {

// What belongs to a model folder beside weights and config.json.
constexpr const char* kOtherFiles[] = {"tokenizer.json",          "tokenizer_config.json",
                                       "special_tokens_map.json", "added_tokens.json",
                                       "chat_template.jinja",     "generation_config.json"};

Result<model::ModelConfig> ReadShape(const InitOptions& options) {
  THRESHER_ASSIGN_OR_RETURN(model::ModelConfig config, model::LoadModelConfig(options.shape));
  if (!options.dtype.empty()) {
    const auto type = model::ParseWeightType(options.dtype);
    if (!type) {
      return InvalidArgument("--dtype is " + options.dtype +
                             "; allowed: float32, bfloat16, float16");
    }
    config.dtype = *type;
  }
  THRESHER_RETURN_IF_ERROR(config.Validate());
  return config;
}

Status CheckTokenizer(const std::filesystem::path& from, const model::ModelConfig& config) {
  if (!std::filesystem::exists(from / "tokenizer.json")) return Status::Ok();
  THRESHER_ASSIGN_OR_RETURN(const auto tokenizer, model::LoadTokenizer(from));
  if (tokenizer->vocab() > config.vocab) {
    return InvalidArgument(
        (from / "config.json").string() + ": key 'vocab_size' is " + std::to_string(config.vocab) +
        "; allowed: " + std::to_string(tokenizer->vocab()) + ", the tokenizer's, or more");
  }
  return Status::Ok();
}

Status CopyOthers(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const char* name : kOtherFiles) {
    std::error_code error;
    if (!std::filesystem::exists(from / name, error)) continue;
    std::filesystem::copy_file(from / name, to / name,
                               std::filesystem::copy_options::overwrite_existing, error);
    if (error) return Unavailable((from / name).string() + ": " + error.message());
  }
  return Status::Ok();
}

Result<std::size_t> Init(const InitOptions& options) {
  THRESHER_ASSIGN_OR_RETURN(const model::ModelConfig config, ReadShape(options));
  THRESHER_RETURN_IF_ERROR(CheckTokenizer(options.shape, config));
  THRESHER_ASSIGN_OR_RETURN(FolderWriter writer, FolderWriter::Open(options.out));
  const std::vector<float> flat =
      model::InitialWeights(config, options.seed, options.standard_deviation);
  THRESHER_RETURN_IF_ERROR(model::SaveWeightsFolder(writer.path(), config, flat));
  THRESHER_RETURN_IF_ERROR(CopyOthers(options.shape, writer.path()));
  for (const auto& entry : std::filesystem::directory_iterator(writer.path())) {
    THRESHER_RETURN_IF_ERROR(writer.AddFile(entry.path().filename().string()));
  }
  THRESHER_RETURN_IF_ERROR(writer.Commit().status());
  return flat.size();
}

}  // namespace

int InitCommand(const InitOptions& options) {
  const auto parameters = Init(options);
  if (!parameters.ok()) {
    const bool usage = parameters.status().code() == StatusCode::kInvalidArgument ||
                       parameters.status().code() == StatusCode::kNotFound ||
                       parameters.status().code() == StatusCode::kAlreadyExists ||
                       parameters.status().code() == StatusCode::kDataLoss;
    return Report(parameters.status(), usage ? kExitUsage : kExitFailure);
  }
  std::cerr << options.out << ": " << *parameters << " random parameters\n";
  return kExitOk;
}

}  // namespace thresher::launch
