#include "launch/policy.h"

#include <cstdio>

#include "common/config/config.h"
#include "common/model/model_folder.h"
#include "launch/checkpoints.h"

namespace thresher::launch {
namespace {

std::optional<std::uint32_t> StepOf(const std::filesystem::path& folder) {
  unsigned step = 0;
  if (std::sscanf(folder.filename().c_str(), "step_%u", &step) != 1) return std::nullopt;
  return step;
}

}  // namespace

Result<ModelSource> FindModel(const std::string& name) {
  std::filesystem::path path = std::filesystem::absolute(name).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  std::error_code error;
  if (IsRunDirectory(path)) {
    auto checkpoints = ListCheckpoints(path);
    if (checkpoints.empty()) return NotFound(name + ": no checkpoint in this run directory yet");
    return ModelSource{checkpoints.back(), path};
  }
  if (!std::filesystem::exists(path / "config.json", error)) {
    return NotFound(name + ": neither a model folder (config.json) nor a run directory");
  }
  std::filesystem::path run = path.parent_path().parent_path();
  if (IsRunDirectory(run)) return ModelSource{path, run};
  return ModelSource{path, std::nullopt};
}

Result<std::string> KernelSetOf(const std::string& model) {
  THRESHER_ASSIGN_OR_RETURN(const ModelSource source, FindModel(model));
  if (!source.run) return std::string("auto");
  return LoadConfig(*source.run / "config.yaml", {}).engine.kernel_set;
}

Result<LoadedPolicy> LoadPolicy(const std::string& model, const PolicyOptions& options) {
  THRESHER_ASSIGN_OR_RETURN(ModelSource source, FindModel(model));
  LoadedPolicy policy;
  policy.folder = source.folder;
  if (source.run) policy.step = StepOf(source.folder);
  model::LoadOptions load;
  std::error_code error;
  if (std::filesystem::exists(source.folder / "tokenizer.json", error)) {
    auto tokenizer = model::LoadTokenizer(source.folder);
    policy.without_tokenizer = tokenizer.status();
    if (tokenizer.ok()) {
      policy.tokenizer = std::move(tokenizer).value();
      load.valid_vocab = policy.tokenizer->vocab();
    }
  } else {
    policy.without_tokenizer =
        FailedPrecondition(source.folder.string() + " has no tokenizer.json");
  }
  if (options.widen_weights) load.weight_type = kernels::WeightType::kF32;
  THRESHER_ASSIGN_OR_RETURN(policy.weights, model::LoadPackedModel(source.folder, load));
  THRESHER_ASSIGN_OR_RETURN(policy.defaults,
                            model::LoadGenerationDefaults(source.folder, policy.weights->config()));
  return policy;
}

Result<std::vector<std::int32_t>> EncodePrompt(const LoadedPolicy& policy,
                                               const std::string& text) {
  if (policy.tokenizer == nullptr) {
    const Status& why = policy.without_tokenizer;
    return Status(why.code(), why.message() + "; token ids can be given instead of text");
  }
  std::vector<std::int32_t> ids = policy.tokenizer->EncodeWithSpecial(text);
  const std::int32_t bos = policy.weights->config().bos_id;
  const bool own_alphabet =
      bos == model::Tokenizer::kBos && policy.tokenizer->TokenId("<bos>") == bos;
  if (own_alphabet && (ids.empty() || ids.front() != bos)) ids.insert(ids.begin(), bos);
  return ids;
}

}  // namespace thresher::launch
