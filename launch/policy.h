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

// A policy that is ready to run.
struct LoadedPolicy {
  std::filesystem::path folder;
  std::shared_ptr<const model::PackedModel> weights;
  std::unique_ptr<model::Tokenizer> tokenizer;  // null: the folder has none, only ids can be used
  model::GenerationDefaults defaults;
  std::optional<std::uint32_t> step;  // of a checkpoint
};

struct PolicyOptions {
  bool widen_weights = false;  // 16-bit weights in fp32: the same policy in twice the memory
};

// Errors, naming file and key or tensor: those of FindModel, LoadPackedModel, LoadTokenizer,
// LoadGenerationDefaults.
Result<LoadedPolicy> LoadPolicy(const std::string& model, const PolicyOptions& options = {});

// The ids a text becomes as a prompt: with the special tokens that its tokenizer puts around a
// text; with a farm's own alphabet of characters <bos> comes first, as in its tasks' prompts.
// Error: kFailedPrecondition (no tokenizer).
Result<std::vector<std::int32_t>> EncodePrompt(const LoadedPolicy& policy, const std::string& text);

}  // namespace thresher::launch
