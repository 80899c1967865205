#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/model/forward.h"
#include "common/model/model_config.h"
#include "kernels/cpu/weight_type.h"

namespace thresher::model {

// Model folders in Hugging Face layout, as far as weights go: config.json, generation_config.json,
// and model.safetensors or its shards with their index. LoadModelFolder and SaveModelFolder
// (weights.h) add the tokenizer.

struct LoadOptions {
  // Of the packed matrices: as they are stored (the default), or kF32, which is the same policy in
  // more memory.
  std::optional<kernels::WeightType> weight_type = std::nullopt;
  std::int32_t valid_vocab = 0;  // the tokenizer's size; 0: the model's
  bool with_backward = false;
};

// Packs a folder's weights tensor by tensor from the mapped files: memory peaks at the packed size
// and a few MiB. config().dtype of the result is the type the matrices are stored in, whatever
// config.json says. Errors, naming file and key or tensor: those of LoadModelConfig and
// StoredWeights::Open; kDataLoss (an element that is not finite); kInvalidArgument (matrices of
// several types without weight_type kF32, another weight_type than these, a valid_vocab above the
// model's); kResourceExhausted (memory).
Result<std::shared_ptr<const PackedModel>> LoadPackedModel(const std::filesystem::path& folder,
                                                           const LoadOptions& options);

// The flat fp32 vector of a folder's weights, widened where they are stored in 16 bits. `config`:
// the folder's. Errors as LoadPackedModel.
Result<std::vector<float>> LoadFlatWeights(const std::filesystem::path& folder,
                                           const ModelConfig& config);

// Hash of the elements as they are stored, in the order of ParameterList: of a checkpoint, the hash
// that its run committed. Errors: those of LoadModelConfig and StoredWeights::Open.
Result<Hash128> FolderWeightsHash(const std::filesystem::path& folder);

// A file of weights grows to this at most, unless one tensor alone is larger.
inline constexpr std::uint64_t kDefaultShardBytes = 2'000'000'000;

// Writes config.json, generation_config.json and the weights to `folder` (which exists), matrices
// and vectors alike in config.dtype (rounded to nearest even): model.safetensors, or shards and
// model.safetensors.index.json if that passes `shard_bytes`. Weight files of an earlier save that
// do not belong to this one are removed. Errors: kInvalidArgument (a configuration that does not
// validate, weights of another size, a finite weight that config.dtype cannot hold, by name); I/O.
Status SaveWeightsFolder(const std::filesystem::path& folder, const ModelConfig& config,
                         std::span<const float> flat,
                         std::uint64_t shard_bytes = kDefaultShardBytes);

}  // namespace thresher::model
