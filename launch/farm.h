#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "common/base/status.h"
#include "common/config/config.h"

namespace thresher::launch {

// How a run on this machine ended.
enum class FarmEnd { kFinished, kStopped, kFailed };
struct FarmOutcome {
  FarmEnd end = FarmEnd::kFailed;
  std::string message;  // failed: why; stopped: what was saved
};

// Makes the run directory or opens an existing one for going on. An existing one must have been
// made with the same result-relevant configuration (others may change: the file is rewritten).
// Errors: kFailedPrecondition (another configuration, naming the keys; a half-written directory;
// already being run by another process), I/O. The returned descriptor holds the directory's lock.
Result<int> PrepareRunDirectory(const std::filesystem::path& run, const Config& config);

// Supervises the run in `run` until it ends, with live progress. SIGINT and SIGTERM (blocked by the
// caller, see BlockSignals) ask for an orderly stop; a second one ends it at once.
Result<FarmOutcome> RunFarm(const std::filesystem::path& run, const Config& config);

// Blocks SIGINT, SIGTERM and SIGUSR1 in this thread; RunFarm waits for them itself.
void BlockSignals();

// The broker's status of a run that is going on. Errors: kNotFound (no rendezvous), kUnavailable,
// kDeadlineExceeded.
Result<nlohmann::json> FetchStatus(const std::filesystem::path& run, int timeout_ms);
// RUN/summary.json of a finished run. Errors: kNotFound, kDataLoss.
Result<nlohmann::json> ReadSummary(const std::filesystem::path& run);

}  // namespace thresher::launch
