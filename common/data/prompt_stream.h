#pragma once

#include <cstdint>
#include <vector>

#include "common/base/ids.h"
#include "common/data/permutation.h"

namespace thresher {

// Several sources in fixed proportions: a pure function of the ordinal. After n items each source
// has had its share of them to within less than one item, for every n.
// Source: Tijdeman 1980, "The chairman assignment problem".
class Interleave {
 public:
  static constexpr std::uint64_t kMostWeight = 1u << 20;  // of all, without their common divisor

  struct Turn {
    std::uint32_t source = 0;
    std::uint64_t ordinal = 0;  // the how manieth item of that source
    friend bool operator==(const Turn&, const Turn&) = default;
  };

  // weights: at least one, positive, the sum at most kMostWeight. Checked.
  explicit Interleave(std::vector<std::uint32_t> weights);
  Turn At(std::uint64_t n) const;

 private:
  std::vector<std::uint32_t> weights_;  // without their common divisor; a period has their sum
  std::vector<std::uint32_t> sources_;  // of one period
  std::vector<std::uint32_t> ranks_;    // of each turn among those of its source
};

// The prompts of a stream of a run: rows of weighted data sets, each permuted anew in every epoch.
class PromptStream {
 public:
  struct Source {
    std::uint64_t rows = 0;
    std::uint32_t weight = 1;
  };
  struct Prompt {
    std::uint32_t source = 0;
    std::uint64_t epoch = 0;
    std::uint64_t row = 0;
    friend bool operator==(const Prompt&, const Prompt&) = default;
  };

  PromptStream(std::uint64_t run_seed, Stream stream, const std::vector<Source>& sources);
  Prompt At(std::uint64_t item) const;

 private:
  Interleave interleave_;
  std::vector<std::uint64_t> rows_;
  std::vector<Permutation> permutations_;
};

}  // namespace thresher
