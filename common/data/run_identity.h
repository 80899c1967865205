#pragma once

#include <string>
#include <vector>

#include "common/base/ids.h"

namespace thresher {

// Everything that must be equal on both sides for results to be reproducible bit for bit
// (DESIGN section 2, Identities). Travels in the first frame of every peer and, as its hash, in
// every trajectory and checkpoint.
struct RunIdentity {
  // Numerics id.
  std::string backend;       // "cpu"
  std::string architecture;  // "x86-64"
  std::string kernel_set;    // "cpu-fp32-v1"; its variants share bits
  std::string weight_type;   // "f32"
  std::string compute_type;  // "f32"
  std::string kv_type;       // "f32"
  std::uint32_t gemm_cut = 0;
  std::uint32_t attention_split = 0;
  std::uint32_t grad_leaves = 0;
  // The rest of the run identity.
  std::string build;  // revision of the sources
  Hash128 model_shape;
  Hash128 tokenizer;
  Hash128 task;         // environment name and every knob; data-set and grader hashes later
  Hash128 result_keys;  // ResultKeysText of the configuration
  std::uint64_t run_seed = 0;

  Hash128 Hash() const;
  Hash128 NumericsHash() const;
  // "kernel_set: ours 'cpu-fp32-v1', theirs 'cuda-bf16-v1'; ..." or empty when equal.
  std::string Difference(const RunIdentity& other) const;
  // Whether the same policy on the same data is computed with other roundings.
  bool DiffersInNumericsAlone(const RunIdentity& other) const;
  friend bool operator==(const RunIdentity&, const RunIdentity&) = default;
};

}  // namespace thresher
