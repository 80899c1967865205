#include "common/model/run_context.h"

#include <nlohmann/json.hpp>

#include "common/base/build_info.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/process.h"
#include "common/data/files.h"
#include "common/model/kernel_choice.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm.h"

namespace thresher::model {
namespace {

using nlohmann::json;

constexpr int kManifestFormat = 1;
constexpr char kAuto[] = "auto";

struct Manifest {
  Hash128 run_id;
  std::vector<DataHash> data;
};

Result<DataHash> DataFrom(const json& entry, const std::string& where) {
  const auto text = [&](const char* key) {
    const auto found = entry.find(key);
    return found != entry.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (!entry.is_object() || !entry.value("weight", json()).is_number_unsigned()) {
    return DataLoss(where + ": not the hash of a file");
  }
  auto hash = Hash128::Parse(text("hash"));
  if (!hash.ok()) return hash.status().WithContext(where + ".hash");
  return DataHash{text("key"), text("path"), entry["weight"].get<std::uint32_t>(), *hash};
}

Result<Manifest> ReadManifest(const std::filesystem::path& file) {
  THRESHER_ASSIGN_OR_RETURN(std::string text, ReadFile(file));
  json manifest = json::parse(text, nullptr, false);
  if (manifest.is_discarded() || !manifest.is_object() || !manifest.contains("run_id") ||
      !manifest["run_id"].is_string()) {
    return DataLoss(file.string() + ": not a run manifest: key run_id is missing");
  }
  if (manifest.value("format", 0) != kManifestFormat) {
    return DataLoss(file.string() + ": format is " + manifest.value("format", json(0)).dump() +
                    "; allowed: " + std::to_string(kManifestFormat));
  }
  Manifest out;
  auto id = Hash128::Parse(manifest["run_id"].get<std::string>());
  if (!id.ok()) return id.status().WithContext(file.string() + ": run_id");
  out.run_id = *id;
  const json data = manifest.value("data", json::array());
  if (!data.is_array()) return DataLoss(file.string() + ": data: not a list");
  for (const json& entry : data) {
    const std::string where = file.string() + ": data[" + std::to_string(out.data.size()) + "]";
    THRESHER_ASSIGN_OR_RETURN(DataHash hash, DataFrom(entry, where));
    out.data.push_back(std::move(hash));
  }
  return out;
}

json DataJson(const std::vector<DataHash>& data) {
  json out = json::array();
  for (const DataHash& d : data) {
    out.push_back(
        {{"key", d.key}, {"path", d.path}, {"weight", d.weight}, {"hash", d.hash.ToString()}});
  }
  return out;
}

// Of the task's keys, and of what else is learned from: contents and weights, not places.
std::string TaskText(const std::string& task_keys, const std::vector<DataHash>& data) {
  std::string text = task_keys;
  for (const DataHash& d : data) {
    text += "data " + d.key + " " + std::to_string(d.weight) + " " + d.hash.ToString() + "\n";
  }
  return text;
}

Hash128 RandomRunId() { return {NewIncarnation().value, NewIncarnation().value}; }

kernels::WeightType DTypeOf(const Config& config) {
  return config.model.dtype == "bfloat16" ? kernels::WeightType::kBf16 : kernels::WeightType::kF32;
}

// The lines of the result-relevant keys that begin with `prefix`.
std::string KeysOf(const std::string& keys, std::string_view prefix) {
  std::string out;
  std::size_t begin = 0;
  while (begin < keys.size()) {
    std::size_t end = std::min(keys.find('\n', begin), keys.size());
    std::string_view line(keys.data() + begin, end - begin);
    if (line.starts_with(prefix)) out += std::string(line) + "\n";
    begin = end + 1;
  }
  return out;
}

}  // namespace

ModelConfig ShapeFromConfig(const Config& config, std::int32_t vocab) {
  ModelConfig shape;
  shape.family = config.model.family;
  shape.dtype = DTypeOf(config);
  shape.vocab = vocab;
  shape.layers = config.model.layers;
  shape.width = config.model.width;
  shape.heads = config.model.heads;
  shape.kv_heads = config.model.kv_heads;
  shape.head_dim = config.model.head_dim;
  shape.ffn_width = config.model.ffn_width;
  shape.context = config.model.context;
  shape.tied_embeddings = config.model.tied_embeddings;
  shape.qkv_bias = config.model.family == "qwen2";
  shape.rope_theta = config.model.rope_theta;
  shape.norm_eps = config.model.norm_eps;
  shape.bos_id = Tokenizer::kBos;
  shape.eos_ids = {Tokenizer::kEos};
  shape.pad_id = Tokenizer::kPad;
  return shape;
}

RunIdentity MakeRunIdentity(const Config& config, const ModelConfig& model,
                            const Tokenizer& tokenizer, const std::vector<DataHash>& data) {
  RunIdentity identity;
  const bool tensor_cores = DeviceKernelSetOf(ChosenKernelSet()) == DeviceKernelSet::kBf16;
  identity.backend = tensor_cores ? "cuda" : "cpu";
  identity.architecture = tensor_cores ? "sm_90" : "x86-64";
  identity.kernel_set = ChosenKernelSet();
  identity.weight_type = kernels::WeightTypeName(model.dtype);
  identity.compute_type = identity.kv_type = kernels::WeightTypeName(
      tensor_cores ? kernels::WeightType::kBf16 : kernels::WeightType::kF32);
  identity.gemm_cut = static_cast<std::uint32_t>(kernels::kGemmKChunk);
  identity.attention_split = static_cast<std::uint32_t>(kernels::kAttentionSplit);
  identity.grad_leaves = static_cast<std::uint32_t>(config.learner.grad_leaves);
  identity.build = GetBuildInfo().revision;
  identity.model_shape = model.Hash();
  identity.tokenizer = tokenizer.Hash();
  std::string keys = ResultKeysText(config);
  identity.task = HashText128(TaskText(KeysOf(keys, "task."), data));
  identity.result_keys = HashText128(keys);
  identity.run_seed = config.run.seed;
  return identity;
}

Result<RunContext> OpenRun(const std::filesystem::path& folder) {
  RunContext run;
  run.folder = folder;
  THRESHER_ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(folder / "manifest.json"));
  run.run_id = manifest.run_id;
  run.data = std::move(manifest.data);
  run.config = LoadConfig(folder / "config.yaml", {});
  THRESHER_RETURN_IF_ERROR(ChooseKernelSet(run.config.engine.kernel_set, "engine.kernel_set"));
  std::filesystem::path shape_file = folder / "model" / "config.json";
  THRESHER_ASSIGN_OR_RETURN(std::string shape, ReadFile(shape_file));
  THRESHER_ASSIGN_OR_RETURN(run.model, ModelConfig::FromJson(shape, shape_file.string()));
  std::filesystem::path tokenizer_file = folder / "model" / "tokenizer.json";
  THRESHER_ASSIGN_OR_RETURN(std::string tokenizer, ReadFile(tokenizer_file));
  THRESHER_ASSIGN_OR_RETURN(run.tokenizer, Tokenizer::FromJson(tokenizer, tokenizer_file.string()));
  THRESHER_ASSIGN_OR_RETURN(run.trained, Trained::Of(run.config, run.model));
  run.identity = MakeRunIdentity(run.config, run.model, *run.tokenizer, run.data);
  return run;
}

Config WithKernelSetOf(const Config& run, Config config) {
  if (config.engine.kernel_set == kAuto) config.engine.kernel_set = run.engine.kernel_set;
  return config;
}

Result<RunContext> CreateRun(const std::filesystem::path& folder, const Config& asked,
                             const std::string& alphabet, const std::vector<DataHash>& data) {
  Config config = asked;
  if (config.engine.kernel_set == kAuto) {
    THRESHER_RETURN_IF_ERROR(ChooseCpuVariant(config.engine.kernels, "engine.kernels"));
    // GPUs compute the one set; CPUs beside them have to do the same.
    config.engine.kernel_set = kernels::KernelSetName(
        UsesGpus(config) ? kernels::KernelSet::kFp32 : FastestKernelSet(DTypeOf(config)));
  }
  std::filesystem::path manifest_file = folder / "manifest.json";
  if (Exists(manifest_file)) {
    return AlreadyExists(folder.string() + " is a run directory already");
  }
  THRESHER_RETURN_IF_ERROR(CreateDirectories(folder / "model"));
  THRESHER_ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::FromAlphabet(alphabet));
  ModelConfig shape = ShapeFromConfig(config, tokenizer->vocab());
  THRESHER_RETURN_IF_ERROR(shape.Validate());
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(folder / "model" / "config.json", shape.ToJson()));
  THRESHER_RETURN_IF_ERROR(
      WriteFileAtomic(folder / "model" / "tokenizer.json", tokenizer->ToJson()));
  THRESHER_RETURN_IF_ERROR(
      WriteFileAtomic(folder / "model" / "tokenizer_config.json", tokenizer->ConfigJson()));
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(folder / "config.yaml", ResolvedYaml(config)));
  const BuildInfo& build = GetBuildInfo();
  json manifest = {{"format", kManifestFormat},
                   {"run_id", RandomRunId().ToString()},
                   {"name", config.run.name},
                   {"seed", config.run.seed},
                   {"version", build.version},
                   {"revision", build.revision},
                   {"build_type", build.build_type},
                   {"compiler", build.compiler},
                   {"host", ThisProcess().host},
                   {"created_unix_ms", SystemClock().WallTime().count() / 1000000}};
  if (!data.empty()) manifest["data"] = DataJson(data);
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(manifest_file, manifest.dump(2) + "\n"));
  return OpenRun(folder);
}

}  // namespace thresher::model
