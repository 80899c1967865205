#pragma once

#include <filesystem>
#include <optional>

#include "broker/partials.h"
#include "broker/run_state.h"
#include "broker/token_tally.h"
#include "common/base/status.h"

namespace thresher::broker {

// `partials/`: a record log (record_log.h) of what is kept of unfinished samples, written by the
// journal in its groups, beside the ledger's history and never part of it.
//   kind 0   an encoded trajectory that is cancelled: of its sample the last one counts, as long as
//            the sample is issued and neither accepted nor dropped
//   kind 1   a TokenTally: the last one counts
// Old segments leave when nobody needs what lies there; what is still needed of the oldest is
// written anew when the log holds more than twice that and two segments.
enum class PartialKind : std::uint32_t { kPrefix = 0, kTally = 1 };

std::filesystem::path PartialsFolder(const std::filesystem::path& run);

struct RecoveredPartials {
  Partials partials;
  TokenTally tally;
};
// What is kept for `state`; nothing where the folder is missing. Changes no file. Errors:
// kDataLoss.
Result<RecoveredPartials> ReadPartials(const std::filesystem::path& run, const RunState& state);
// The prefix that lies there. Errors: kNotFound, kDataLoss.
Result<std::string> ReadPartial(const std::filesystem::path& run, LogPosition place);
// After damage: what is not finished is generated from its prompt. Errors: I/O.
Status RemovePartials(const std::filesystem::path& run);

}  // namespace thresher::broker
