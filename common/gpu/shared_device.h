#pragma once

#include <chrono>
#include <functional>

#include "common/base/status.h"

namespace thresher::gpu {

// How two processes take turns on one device: each gives its memory back when it has nothing to do,
// and who begins asks again for as long as the other one holds what it needs.
//
// Calls `take` until it returns something else than kResourceExhausted, with back-off, for at most
// `patience` (0: once). `take` has given everything back when it fails. Errors: its own; after the
// deadline with how long that was.
Status TakeTurn(std::chrono::milliseconds patience, const std::function<Status()>& take);

}  // namespace thresher::gpu
