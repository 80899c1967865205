#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/hash.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/model/model_config.h"

namespace thresher::model {

// One parameter tensor in the canonical flat order of the model (the order of `ParameterList`).
struct ParameterInfo {
  std::string name;  // Hugging Face name, "model.layers.0.self_attn.q_proj.weight"
  std::vector<std::int64_t> shape;
  std::size_t offset = 0;  // in floats, in the flat vector
  std::size_t count = 0;
  bool decay = false;  // weight decay applies (matrices yes; norms and biases no)
};
// Embedding, layers in order (input norm, q, k, v, then biases or norms of q and k, o, post norm,
// gate, up, down), final norm, head when untied.
std::vector<ParameterInfo> ParameterList(const ModelConfig& config);
std::size_t ParameterCount(const ModelConfig& config);

// Random initialisation: normal with std `init_std` (residual outputs o, down scaled by
// 1/sqrt(2L)), norms 1, biases 0; Box-Muller over RandomStream(seed, purpose kInit), so a pure
// function of (config, seed).
std::vector<float> InitialWeights(const ModelConfig& config, std::uint64_t seed, double init_std);

// The published blob: a safetensors file with exactly ParameterList's tensors in that order, in
// config.dtype (rounded to nearest even), no metadata but {"format":"pt"}. Deterministic bytes.
// Error: kInvalidArgument (a finite weight that config.dtype cannot hold, by name).
Result<std::string> EncodeWeights(const ModelConfig& config, std::span<const float> flat);
// The elements of a blob without its header: the weights that everybody computes with.
std::string PublishedElements(const ModelConfig& config, std::span<const float> flat);
// The blob of such elements. Error: kInvalidArgument (an infinite one of a 16-bit type, by name).
Result<std::string> EncodePublished(const ModelConfig& config, std::span<const std::byte> elements);
// Hash of those elements.
Hash128 PublishedHash(const ModelConfig& config, std::span<const float> flat);
// Bounds-checked. Errors: kDataLoss (damaged), kInvalidArgument (a tensor missing, unknown,
// of another shape or dtype), naming `origin` and tensor.
Result<std::vector<float>> DecodeWeights(const ModelConfig& config, std::string_view blob,
                                         const std::string& origin);

// A whole folder in Hugging Face layout: SaveWeightsFolder (model_folder.h) and the tokenizer's
// files; and back, fp32 whatever the stored type of the matrices, which config.dtype says (whatever
// config.json says; fp32 where they differ).
// Errors as there; kInvalidArgument (a tokenizer larger than the model's vocabulary).
Status SaveModelFolder(const std::filesystem::path& folder, const ModelConfig& config,
                       std::span<const float> flat, const class Tokenizer& tokenizer);
struct LoadedModel {
  ModelConfig config;
  std::vector<float> flat;
  std::unique_ptr<class Tokenizer> tokenizer;
};
Result<LoadedModel> LoadModelFolder(const std::filesystem::path& folder);

}  // namespace thresher::model
