#include "common/model/model_folder.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "common/base/check.h"
#include "common/data/files.h"
#include "common/data/safetensors.h"
#include "common/model/element_scan.h"
#include "common/model/generation_config.h"
#include "common/model/json_fields.h"
#include "common/model/packed_model.h"
#include "common/model/stored_weights.h"
#include "common/model/tokenizer.h"
#include "common/model/weights.h"

namespace thresher::model {
namespace {

using kernels::WeightType;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

std::string ShardName(std::size_t number, std::size_t count) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", number, count);
  return name;
}

// Consecutive parameters that go to one file.
using Shard = std::span<const ParameterInfo>;

std::vector<Shard> CutIntoShards(std::span<const ParameterInfo> list, WeightType type,
                                 std::uint64_t shard_bytes) {
  std::vector<Shard> shards;
  std::size_t begin = 0;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::uint64_t size = list[i].count * kernels::WeightBytes(type);
    if (i > begin && bytes + size > shard_bytes) {
      shards.push_back(list.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += size;
  }
  shards.push_back(list.subspan(begin));
  return shards;
}

std::string IndexJson(const std::vector<Shard>& shards, WeightType type) {
  std::uint64_t total = 0;
  Json map = Json::object();
  for (std::size_t i = 0; i < shards.size(); ++i) {
    for (const ParameterInfo& info : shards[i]) {
      map[info.name] = ShardName(i + 1, shards.size());
      total += info.count * kernels::WeightBytes(type);
    }
  }
  Json json;
  json["metadata"] = {{"total_size", total}};
  json["weight_map"] = std::move(map);
  return json.dump(2) + "\n";
}

bool IsShardName(const std::string& name) {
  return name.starts_with("model-") && name.find("-of-") != std::string::npos &&
         name.ends_with(".safetensors");
}

// Weight files that an earlier save left, of `shards` files now.
Status RemoveOtherWeights(const std::filesystem::path& folder, std::size_t shards) {
  THRESHER_ASSIGN_OR_RETURN(const auto entries, Files().List(folder));
  for (const auto& [name, kind] : entries) {
    bool ours = shards == 1 ? name == kSingleFile : name == kIndexFile;
    for (std::size_t i = 1; shards > 1 && i <= shards; ++i) ours |= name == ShardName(i, shards);
    const bool weights = name == kSingleFile || name == kIndexFile || IsShardName(name);
    if (!weights || ours) continue;
    const Status removed = Files().Remove(folder / name);
    if (!removed.ok()) return removed.WithContext(folder.string() + ": removing old weights");
  }
  return Status::Ok();
}

// The configuration with the type the weights are really stored in, and their source's type.
struct Stored {
  ModelConfig config;
  StoredWeights weights;
  WeightType type;
};

Result<Stored> OpenStored(const std::filesystem::path& folder, const LoadOptions& options) {
  THRESHER_ASSIGN_OR_RETURN(ModelConfig config, LoadModelConfig(folder));
  if (options.valid_vocab < 0 || options.valid_vocab > config.vocab) {
    return InvalidArgument((folder / "config.json").string() + ": key 'vocab_size' is " +
                           std::to_string(config.vocab) + "; allowed: " +
                           std::to_string(options.valid_vocab) + ", the tokenizer's, or more");
  }
  THRESHER_ASSIGN_OR_RETURN(StoredWeights weights, StoredWeights::Open(folder, config));
  const auto type = weights.MatrixType();
  if (options.weight_type == WeightType::kF32) {
    config.dtype = type.ok() ? *type : WeightType::kF32;
    return Stored{std::move(config), std::move(weights), WeightType::kF32};
  }
  THRESHER_RETURN_IF_ERROR(type.status());
  if (options.weight_type && *options.weight_type != *type) {
    return InvalidArgument(
        folder.string() + ": weight type is " + kernels::WeightTypeName(*options.weight_type) +
        "; allowed: " + kernels::WeightTypeName(*type) + ", as it is stored, or float32");
  }
  config.dtype = *type;
  return Stored{std::move(config), std::move(weights), *type};
}

}  // namespace

Result<std::shared_ptr<const PackedModel>> LoadPackedModel(const std::filesystem::path& folder,
                                                           const LoadOptions& options) {
  THRESHER_ASSIGN_OR_RETURN(const Stored stored, OpenStored(folder, options));
  StoredSource source(stored.weights, stored.type);
  THRESHER_ASSIGN_OR_RETURN(
      auto packed,
      PackedWeights::Pack(stored.config, source, options.valid_vocab, options.with_backward, {}));
  return std::shared_ptr<const PackedModel>(std::move(packed));
}

Result<std::vector<float>> LoadFlatWeights(const std::filesystem::path& folder,
                                           const ModelConfig& config) {
  THRESHER_ASSIGN_OR_RETURN(const StoredWeights weights, StoredWeights::Open(folder, config));
  StoredSource source(weights, WeightType::kF32);
  std::vector<float> flat(ParameterCount(config));
  for (const ParameterInfo& info : ParameterList(config)) {
    if (info.shape.size() == 1) {
      THRESHER_RETURN_IF_ERROR(source.Vector(info, flat.data() + info.offset));
      continue;
    }
    // By rows, so that what is widened stays small.
    const std::size_t width = static_cast<std::size_t>(info.shape[1]);
    for (std::int64_t row = 0; row < info.shape[0]; ++row) {
      THRESHER_ASSIGN_OR_RETURN(const void* values, source.Matrix(info, row, 1));
      std::memcpy(flat.data() + info.offset + static_cast<std::size_t>(row) * width, values,
                  width * sizeof(float));
    }
  }
  return flat;
}

Result<Hash128> FolderWeightsHash(const std::filesystem::path& folder) {
  THRESHER_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(folder));
  THRESHER_ASSIGN_OR_RETURN(const StoredWeights weights, StoredWeights::Open(folder, config));
  Hasher128 hasher;
  for (const ParameterInfo& info : ParameterList(config)) {
    const std::string_view bytes = weights.at(info.name).view.data;
    hasher.Update(bytes);
    ReleasePages(bytes);
  }
  return hasher.Finish();
}

Status SaveWeightsFolder(const std::filesystem::path& folder, const ModelConfig& config,
                         std::span<const float> flat, std::uint64_t shard_bytes) {
  THRESHER_RETURN_IF_ERROR(config.Validate());
  if (flat.size() != ParameterCount(config)) {
    return InvalidArgument("weights: " + std::to_string(flat.size()) +
                           " floats; allowed: " + std::to_string(ParameterCount(config)));
  }
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(folder / "config.json", config.ToJson()));
  THRESHER_RETURN_IF_ERROR(
      WriteFileAtomic(folder / "generation_config.json", GenerationConfigJson(config)));
  const std::vector<ParameterInfo> list = ParameterList(config);
  const std::vector<Shard> shards = CutIntoShards(list, config.dtype, shard_bytes);
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? kSingleFile : ShardName(i + 1, shards.size());
    THRESHER_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(folder / name));
    THRESHER_RETURN_IF_ERROR(PutParameters(
        config.dtype, shards[i], flat, [&](std::string_view bytes) { return file.Append(bytes); }));
    THRESHER_RETURN_IF_ERROR(file.Publish());
  }
  if (shards.size() > 1) {
    THRESHER_RETURN_IF_ERROR(WriteFileAtomic(folder / kIndexFile, IndexJson(shards, config.dtype)));
  }
  return RemoveOtherWeights(folder, shards.size());
}

Status SaveModelFolder(const std::filesystem::path& folder, const ModelConfig& config,
                       std::span<const float> flat, const Tokenizer& tokenizer) {
  if (tokenizer.vocab() > config.vocab) {
    return InvalidArgument("model.vocab is " + std::to_string(config.vocab) + "; allowed: " +
                           std::to_string(tokenizer.vocab()) + ", the tokenizer's, or more");
  }
  THRESHER_RETURN_IF_ERROR(SaveWeightsFolder(folder, config, flat));
  return SaveTokenizer(folder, tokenizer);
}

Result<LoadedModel> LoadModelFolder(const std::filesystem::path& folder) {
  LoadedModel model;
  THRESHER_ASSIGN_OR_RETURN(model.config, LoadModelConfig(folder));
  THRESHER_ASSIGN_OR_RETURN(model.tokenizer, LoadTokenizer(folder));
  if (model.tokenizer->vocab() > model.config.vocab) {
    return InvalidArgument((folder / "config.json").string() + ": key 'vocab_size' is " +
                           std::to_string(model.config.vocab) + "; allowed: " +
                           std::to_string(model.tokenizer->vocab()) + ", the tokenizer's, or more");
  }
  THRESHER_ASSIGN_OR_RETURN(const StoredWeights weights, StoredWeights::Open(folder, model.config));
  // Of several types: the one that holds them all.
  const auto type = weights.MatrixType();
  model.config.dtype = type.ok() ? *type : WeightType::kF32;
  THRESHER_ASSIGN_OR_RETURN(model.flat, LoadFlatWeights(folder, model.config));
  return model;
}

}  // namespace thresher::model
