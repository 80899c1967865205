#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/comm/communicator.h"
#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/data/trajectory.h"
#include "learner/leaf.h"
#include "learner/session.h"

namespace thresher::learner {

// This rank's gradient leaves of one batch, ready to be computed, and what is known of the whole.
struct StepBatch {
  std::vector<LeafWork> leaves;    // my leaves in order: rank r holds [r L / R, (r + 1) L / R)
  Hash128 digest;                  // recomputed from the contents of all ranks' trajectories
  std::uint64_t trajectories = 0;  // of the whole batch
  std::uint64_t loss_tokens = 0;
  double reward_mean = 0;  // over the whole batch; 0 when it is empty
  bool stopped = false;    // some rank was asked to stop: nothing is trained
};

// Asks the broker for the first of this rank's leaves of a step, for FetchBatch to find when it
// comes to them.
Status PrefetchBatch(Session& session, const comm::Communicator& comm, const Config& config,
                     std::uint32_t step, std::uint32_t lineage);

// Fetches this rank's leaves of the step, agrees with the other ranks whether all have theirs,
// checks the digest, and computes advantages (after permuting rewards over the whole batch, if so
// configured). `ready` waits for what the rank computes with, before the ranks agree; as with the
// leaves, kCancelled stops them all. Collective. Errors: kDataLoss (a record is damaged, or the
// digest is not the broker's), those of `ready`, the session's and the communicator's.
Result<StepBatch> FetchBatch(Session& session, comm::Communicator& comm, const Config& config,
                             const StepPlan& plan, std::uint32_t lineage,
                             const std::function<Status()>& ready);

// Indices 0..n-1 shuffled (Fisher-Yates) by the run's random numbers for this step: position i
// receives the reward of position result[i].
std::vector<std::size_t> RewardPermutation(std::uint64_t seed, std::uint32_t step, std::size_t n);

}  // namespace thresher::learner
