#include "common/sync/scheduler.h"

#include <utility>

namespace thresher::sync {
namespace {

thread_local Scheduler* current = nullptr;

}  // namespace

Scheduler* CurrentScheduler() { return current; }

Scheduler* SubstituteScheduler(Scheduler* scheduler) { return std::exchange(current, scheduler); }

}  // namespace thresher::sync
