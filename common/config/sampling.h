#pragma once

#include "common/config/config.h"
#include "common/data/trajectory.h"

namespace thresher {

// How samples of a stream are drawn: at eval.temperature from the whole distribution, or as the
// section `sampling` says.
SamplingParams SamplingOf(const Config& config, Stream stream);

// After how many more tokens of an unfinished sequence the broker gets what there is of it: half of
// actors.partial_tokens, so that what is on its way when everything dies is within that too. 0:
// never, for no sequence can become so long.
std::uint32_t PartialInterval(const Config& config);

}  // namespace thresher
