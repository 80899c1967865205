#pragma once

#include <chrono>
#include <functional>

#include "common/base/status.h"

namespace thresher::gpu {

// Memory of a device that several processes have in turn (common/sync/device_turn.h): of one that
// was killed the driver has it back only a little after its turn has ended.
//
// Calls `take` until it returns something else than kResourceExhausted, with back-off, for at most
// `patience` (0: once). `take` has given everything back when it fails. Errors: its own; after the
// deadline with how long that was.
Status AwaitMemory(std::chrono::milliseconds patience, const std::function<Status()>& take);

}  // namespace thresher::gpu
