#include <filesystem>
#include <iostream>

#include "common/data/folder.h"
#include "common/model/model_folder.h"
#include "common/model/tokenizer.h"
#include "common/model/weights.h"
#include "launch/commands.h"
#include "launch/model_files.h"

namespace thresher::launch {
namespace {

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

Result<std::size_t> Init(const InitOptions& options) {
  THRESHER_ASSIGN_OR_RETURN(const model::ModelConfig config, ReadShape(options));
  THRESHER_RETURN_IF_ERROR(CheckTokenizer(options.shape, config));
  THRESHER_ASSIGN_OR_RETURN(FolderWriter writer, FolderWriter::Open(options.out));
  const std::vector<float> flat =
      model::InitialWeights(config, options.seed, options.standard_deviation);
  THRESHER_RETURN_IF_ERROR(model::SaveWeightsFolder(writer.path(), config, flat));
  THRESHER_RETURN_IF_ERROR(CopyModelFiles(options.shape, writer.path()));
  THRESHER_RETURN_IF_ERROR(PublishAll(writer));
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
