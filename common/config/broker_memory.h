#pragma once

#include <cstdint>

#include "common/config/config.h"

namespace thresher {

// How the broker spends broker.memory_bytes. What the process needs besides (code, weights in
// transfer, books of the run) is not of the budget.
struct BrokerMemory {
  std::uint64_t budget = 0;
  std::uint64_t credit = 0;  // uploads under way, until they are written
  std::uint64_t cache = 0;   // batches that a learner may ask for; the rest lies on disk, or, with
                             // journal.mode off, all that actors still keep
  std::uint64_t frames = 0;  // messages being received, decoded and answered
};
BrokerMemory PlanBrokerMemory(const Config& config);

// The least budget of a run: credit for one largest trajectory of each actor and of one that comes
// besides, a cache that holds the largest group, frames that are as long as they may be.
// With journal.mode off the cache holds KeptBytes instead.
std::uint64_t LeastBrokerMemory(const Config& config);

// Upper bound of the training samples that may be accepted and in no durable checkpoint: whole
// groups of the steps between two checkpoints (of twice as many with checkpoint.background), of
// those issued ahead, and of the one that is open.
std::uint64_t KeptBytes(const Config& config);

// Upper bound of one trajectory on the wire, whatever the policy writes.
std::uint64_t LargestTrajectoryBytes(const Config& config);

}  // namespace thresher
