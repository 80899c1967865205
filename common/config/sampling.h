#pragma once

#include "common/config/config.h"
#include "common/data/trajectory.h"

namespace thresher {

// How samples of a stream are drawn: at eval.temperature from the whole distribution, or as the
// section `sampling` says.
SamplingParams SamplingOf(const Config& config, Stream stream);

}  // namespace thresher
