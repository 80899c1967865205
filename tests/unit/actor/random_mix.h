#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "actor/engine/engine.h"
#include "common/base/random.h"
#include "kernels/cpu/kernel_table.h"
#include "tests/unit/model/small_model.h"

namespace thresher::actor {

// Random models, requests and engines for properties of the whole engine, and how results of the
// same request are compared.

// Chances of a test's own, apart from those of the engine.
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : random_(seed, {}, RandomPurpose::kBootstrap) {}
  int Between(int low, int high) { return static_cast<int>(random_.Between(low, high)); }
  bool OneIn(std::uint64_t n) { return random_.Below(n) == 0; }
  float Unit() { return static_cast<float>(random_.NextUniform()); }
  template <typename T>
  const T& Of(const std::vector<T>& values) {
    return values[random_.Below(values.size())];
  }
  template <typename T>
  void Shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i) {
      std::swap(values[i - 1], values[random_.Below(i)]);
    }
  }

 private:
  RandomSequence random_;
};

inline model::ModelConfig RandomShape(Chance& chance) {
  static const std::vector<std::string> kFamilies = {"llama", "llama3", "qwen2", "qwen3"};
  static const std::vector<kernels::WeightType> kTypes = {
      kernels::WeightType::kF32, kernels::WeightType::kBf16, kernels::WeightType::kF16};
  model::ModelConfig shape = model::SmallConfig(chance.Of(kFamilies), chance.OneIn(2));
  shape.dtype = chance.Of(kTypes);
  shape.vocab = chance.OneIn(4) ? chance.Between(257, 600) : chance.Between(20, 120);
  shape.layers = chance.Between(1, 2);
  shape.head_dim = 8 * chance.Between(1, 2);
  shape.kv_heads = chance.Between(1, 2);
  shape.heads = shape.kv_heads * chance.Between(1, 3);
  shape.width = 8 * chance.Between(2, 6);
  // A product of more than one chunk of K is rare, for it is slow.
  shape.ffn_width = 8 * (chance.OneIn(8) ? chance.Between(65, 70) : chance.Between(2, 9));
  shape.context = 160;
  return shape;
}

inline SamplingParams RandomSampling(Chance& chance, std::int32_t vocab) {
  SamplingParams sampling;
  sampling.max_new_tokens = static_cast<std::uint32_t>(chance.Between(1, 40));
  sampling.temperature = chance.OneIn(8) ? 0.0f : 0.4f + chance.Unit();
  if (!chance.OneIn(3)) return sampling;
  if (chance.OneIn(2)) sampling.top_k = static_cast<std::uint32_t>(chance.Between(1, 30));
  if (chance.OneIn(2)) sampling.top_p = 0.3f + 0.69f * chance.Unit();
  if (chance.OneIn(3)) sampling.min_p = 0.1f * chance.Unit();
  if (chance.OneIn(3)) sampling.repetition_penalty = 0.8f + chance.Unit();
  if (chance.OneIn(3)) sampling.logit_bias = {{1, 2 * chance.Unit()}, {5, -3.0f}};
  if (chance.OneIn(4)) {
    for (std::int32_t token = 0; token < vocab; token += 3)
      sampling.allowed_tokens.push_back(token);
  }
  return sampling;
}

// A model and up to 64 requests: groups with one prompt, prompts that begin alike, strangers.
struct Mix {
  explicit Mix(std::uint64_t seed) {
    Chance chance(seed);
    shape = RandomShape(chance);
    kernel_set = kernels::kKernelSets[chance.Between(0, 2)];
    weights = model::PackedModel::Make(shape, model::LivelyWeights(shape, seed), 0, false);
    const int count = chance.OneIn(6) ? chance.Between(30, 64) : chance.Between(1, 12);
    std::vector<std::int32_t> prompt;
    while (static_cast<int>(requests.size()) < count) {
      const std::vector<std::int32_t> fresh =
          model::RandomTokens(1000 * seed + requests.size(), chance.Between(1, 70), shape.vocab);
      const bool continues = chance.OneIn(3) && prompt.size() < 60;
      const std::size_t kept = continues ? prompt.size() / 2 : 0;
      prompt.resize(kept);
      prompt.insert(prompt.end(), fresh.begin(), fresh.end());
      prompt.resize(std::min<std::size_t>(prompt.size(), 110));
      const SamplingParams sampling = RandomSampling(chance, shape.vocab);
      for (int sample = chance.OneIn(2) ? chance.Between(2, 8) : 1; sample > 0; --sample) {
        GenerationRequest request;
        request.id.item = requests.size();
        request.prompt = prompt;
        request.sampling = sampling;
        request.run_seed = seed;
        if (chance.OneIn(3)) request.stop_tokens = {3, 4};
        if (chance.OneIn(5)) request.top_logprobs = 3;
        requests.push_back(request);
      }
    }
  }

  std::int32_t LongestPages() const {
    std::size_t longest = 0;
    for (const GenerationRequest& request : requests) {
      longest = std::max(longest, request.prompt.size() + request.sampling.max_new_tokens);
    }
    return PagesFor(longest);
  }

  model::ModelConfig shape;
  kernels::KernelSet kernel_set = kernels::KernelSet::kFp32;
  std::shared_ptr<const model::PackedModel> weights;
  std::vector<GenerationRequest> requests;
};

inline EngineOptions RandomOptions(Chance& chance, const Mix& mix) {
  EngineOptions options;
  options.max_batch = chance.OneIn(3) ? 64 : chance.Between(1, 64);
  options.prefill_chunk = chance.OneIn(2) ? chance.Between(1, 30) : 512;
  options.kv_pages = mix.LongestPages() + (chance.OneIn(2) ? chance.Between(0, 3) : 200);
  options.prefix_sharing = !chance.OneIn(3);
  return options;
}

inline std::string Describe(std::uint64_t seed, const EngineOptions& options) {
  return "mix " + std::to_string(seed) + ": batch " + std::to_string(options.max_batch) +
         ", chunk " + std::to_string(options.prefill_chunk) + ", pages " +
         std::to_string(options.kv_pages) + ", sharing " + std::to_string(options.prefix_sharing);
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// What two results of one request differ in; empty if in nothing.
inline std::string Difference(const GenerationResult& a, const GenerationResult& b) {
  const std::string name = a.id.ToString() + ": ";
  if (a.tokens != b.tokens) return name + "tokens";
  if (!SameBits(a.logprobs, b.logprobs)) return name + "logprobs";
  if (!SameBits(a.kept_mass_logprobs, b.kept_mass_logprobs)) return name + "kept mass";
  if (a.top_logprobs != b.top_logprobs) return name + "top logprobs";
  if (a.finish != b.finish || a.stop_string != b.stop_string) return name + "finish";
  if (a.kv_history != b.kv_history) return name + "KV history";
  if (a.versions != b.versions) return name + "versions";
  return "";
}

}  // namespace thresher::actor
