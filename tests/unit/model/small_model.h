#pragma once

#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "common/base/random.h"
#include "common/model/forward.h"
#include "common/model/weights.h"
#include "kernels/cpu/dispatch.h"

namespace thresher::model {

// A model small enough for milliseconds and odd enough to reach every edge: widths that fill no
// panel, several heads to a KV head, a context of several attention splits. "llama3" is a llama
// with scaled frequencies: some kept, some stretched in part, some fully.
inline ModelConfig SmallConfig(const std::string& family, bool tied) {
  ModelConfig config;
  config.family = family == "llama3" ? "llama" : family;
  if (family == "llama3") {
    config.rope_scaling = {RopeScaling::Kind::kLlama3, 8, 1, 4, 64};
  }
  config.vocab = 37;
  config.layers = 2;
  config.width = 40;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.ffn_width = 56;
  config.context = 320;
  config.tied_embeddings = tied;
  config.qkv_bias = family == "qwen2";
  config.bos_id = 1;
  config.eos_ids = {2};
  config.pad_id = 0;
  return config;
}

// Weights far from the initialisation: every tensor, norms and biases too, is random, so that none
// can be left out unnoticed.
inline std::vector<float> LivelyWeights(const ModelConfig& config, std::uint64_t seed,
                                        double init_std = 0.3) {
  std::vector<float> flat = InitialWeights(config, seed, init_std);
  TrajectoryId id;
  id.item = 1000;
  RandomSequence random(seed, id, RandomPurpose::kBootstrap);
  for (const ParameterInfo& info : ParameterList(config)) {
    if (info.shape.size() == 2) continue;
    for (std::size_t i = 0; i < info.count; ++i) {
      flat[info.offset + i] += static_cast<float>(0.4 * (random.NextUniform() - 0.5));
    }
  }
  return flat;
}

inline std::vector<std::int32_t> RandomTokens(std::uint64_t seed, int count, int vocab) {
  TrajectoryId id;
  id.item = 2000;
  RandomSequence random(seed, id, RandomPurpose::kBootstrap);
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < count; ++i) {
    tokens.push_back(static_cast<std::int32_t>(random.Below(static_cast<std::uint64_t>(vocab))));
  }
  return tokens;
}

// Adds positions [begin, end) of a sequence to a batch. Tokens and page table are borrowed.
inline void Append(const std::vector<std::int32_t>& tokens, int begin, int end,
                   const std::vector<std::int32_t>& pages, RowBatch& batch) {
  for (int i = begin; i < end; ++i) {
    batch.token.push_back(tokens[static_cast<std::size_t>(i)]);
    batch.position.push_back(i);
    batch.page_table.push_back(pages.data());
  }
}

// Page ids first, first + step, ... enough for `positions`.
inline std::vector<std::int32_t> PageTable(int first, int step, int positions) {
  std::vector<std::int32_t> pages;
  for (int i = 0; i < (positions + 15) / 16; ++i) pages.push_back(first + i * step);
  return pages;
}

// Runs `batch` through the model; [T, D].
inline std::vector<float> HiddenOf(const PackedModel& model, const RowBatch& batch, KvCache& cache,
                                   Tape* tape = nullptr) {
  std::vector<float> hidden(batch.token.size() * static_cast<std::size_t>(model.config().width));
  const WorkspacePtr workspace = NewWorkspace();
  Forward(model, batch, cache, *workspace, hidden, tape);
  return hidden;
}

// Sets every kernel set in turn, and the first one again at the end.
template <typename Body>
void ForEachKernelSet(const Body& body) {
  const kernels::KernelSet before = kernels::ActiveKernelSet();
  for (kernels::KernelSet set : kernels::kKernelSets) {
    kernels::SetKernelSet(set);
    body(set);
  }
  kernels::SetKernelSet(before);
}

// Sets every available kernel variant in turn, and the first one again at the end.
template <typename Body>
void ForEachVariant(const Body& body) {
  const kernels::CpuVariant before = kernels::ActiveCpuVariant();
  for (kernels::CpuVariant variant : kernels::kCpuVariants) {
    if (!kernels::CpuVariantAvailable(variant)) continue;
    kernels::SetCpuVariant(variant);
    body(variant);
  }
  kernels::SetCpuVariant(before);
}

}  // namespace thresher::model
