#pragma once

#include <string>

#include "tests/support/sim/farm.h"

namespace thresher::sim {

// What a finished run says of itself: weights, chain, evaluations. Equal for two runs of one
// workload, whatever happened to them.
struct RunResult {
  std::string text;
  friend bool operator==(const RunResult&, const RunResult&) = default;
};
Result<RunResult> ReadResult(const std::filesystem::path& run);

// Whether a run that has ended kept DESIGN's promises P4-P9, as far as its files can tell: the
// journal folds to a balanced ledger, the audit finds nothing, no alarm was raised but of a full
// disk, and the result is `expected`. What is wrong, one a line. Uses Files().
std::string CheckEnd(const std::filesystem::path& run, const Config& config,
                     const RunResult& expected);

}  // namespace thresher::sim
