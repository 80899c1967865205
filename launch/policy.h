#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/model/forward.h"
#include "common/model/generation_config.h"
#include "common/model/tokenizer.h"

namespace thresher::launch {

// A model folder, and the run directory it belongs to, if any.
struct ModelSource {
  std::filesystem::path folder;
  std::optional<std::filesystem::path> run;
};

// What MODEL names on a command line: a folder in Hugging Face layout (a checkpoint is one), or a
// run directory, which stands for its newest checkpoint. Error: kNotFound.
Result<ModelSource> FindModel(const std::string& name);

// What a run's models are computed with, so that commands find the bits of its actors: the kernel
// set of the run that MODEL belongs to, "auto" for any other model. Errors: those of FindModel.
// Throws ConfigError for the run's config.yaml.
Result<std::string> KernelSetOf(const std::string& model);

// A policy that is ready to run.
struct LoadedPolicy {
  std::filesystem::path folder;
  std::shared_ptr<const model::PackedModel> weights;
  std::unique_ptr<model::Tokenizer> tokenizer;  // null: only ids can be used, and here is why:
  Status without_tokenizer = Status::Ok();
  model::GenerationDefaults defaults;
  std::optional<std::uint32_t> step;  // of a checkpoint
};

struct PolicyOptions {
  bool widen_weights = false;  // 16-bit weights in fp32: the same policy in twice the memory
};

// Errors, naming file and key or tensor: those of FindModel, LoadPackedModel,
// LoadGenerationDefaults. A tokenizer that is refused is no error: ids do without it.
Result<LoadedPolicy> LoadPolicy(const std::string& model, const PolicyOptions& options = {});

// The ids a text becomes as a prompt: with the special tokens that its tokenizer puts around a
// text; with a farm's own alphabet of characters <bos> comes first, as in its tasks' prompts.
// Error: without_tokenizer.
Result<std::vector<std::int32_t>> EncodePrompt(const LoadedPolicy& policy, const std::string& text);

}  // namespace thresher::launch
