#pragma once

// Internal to common/model: what the check and the reader of a configuration share.

#include <cstdint>
#include <string>

namespace thresher::model {

// Far above any model of the families; low enough that every product of three fits 63 bits.
inline constexpr std::int32_t kMaxVocab = 1 << 22;
inline constexpr std::int32_t kMaxLayers = 1 << 12;
inline constexpr std::int32_t kMaxWidth = 1 << 18;
inline constexpr std::int32_t kMaxHeads = 1 << 12;
inline constexpr std::int32_t kMaxHeadDim = 256;      // kernels/cpu/attention.h
inline constexpr std::int32_t kMaxContext = 1 << 24;  // positions of common/base/random.h

inline constexpr double kMaxRopeTheta = 1e12;

inline std::string Architecture(const std::string& family) {
  if (family == "qwen3") return "Qwen3ForCausalLM";
  return family == "qwen2" ? "Qwen2ForCausalLM" : "LlamaForCausalLM";
}

}  // namespace thresher::model
