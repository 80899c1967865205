#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/comm/communicator.h"
#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/data/trajectory.h"
#include "learner/advantage.h"
#include "learner/leaf.h"
#include "learner/session.h"

namespace thresher::learner {

// What is optimised at once: this rank's part of it, and what is known of the whole.
struct Minibatch {
  std::vector<LeafWork> leaves;   // of mine, those whose number is this one's modulo rl.minibatches
  std::uint64_t loss_tokens = 0;  // of all ranks; without sequences that are masked
  std::uint64_t sequences = 0;    // of all ranks, that have loss tokens
  std::uint64_t example_tokens = 0;  // of all ranks, of the supervised loss beside the policy's
};
// One batch, ready to be computed: rank r holds leaves [r L / R, (r + 1) L / R).
struct StepBatch {
  std::vector<Minibatch> minibatches;     // in the order of their steps
  Hash128 digest;                         // recomputed from the contents of all ranks' trajectories
  std::uint64_t trajectories = 0;         // of the whole batch
  std::uint64_t loss_tokens = 0;          // of it, masked ones included
  std::map<std::string, double> metrics;  // of an RL batch that is not empty (docs/metrics.md)
  bool stopped = false;                   // some rank was asked to stop: nothing is trained

  // What the estimator compares: all ranks' samples in canonical order, and where mine begin.
  std::vector<Scored> samples;
  std::vector<std::size_t> group_sizes;
  std::size_t mine_begin = 0;
  std::vector<RewardScale> scales;  // of each sample's group, where steps are compared too
};

// This rank's leaves in canonical order.
std::vector<LeafWork*> OwnLeaves(StepBatch& batch);
// Takes so much off the reward of each sample of the batch (all ranks'), whose advantages are made
// anew; with a critic they are the penalty's of each token to make. Not for kAccepted, whose masks
// stand.
void PenaliseSamples(const Config& config, std::span<const double> penalties, StepBatch& batch);

// Asks the broker for the first of this rank's leaves of a step, for FetchBatch to find when it
// comes to them.
Status PrefetchBatch(Session& session, const comm::Communicator& comm, const Config& config,
                     std::uint32_t step, std::uint32_t lineage);

// A rank's part of a batch as the broker gave it.
struct FetchedPart {
  std::vector<std::vector<Trajectory>> leaves;
  bool stopped = false;  // asked to: the rank has none
  Hash128 broker_digest;
  std::uint64_t trajectories = 0, loss_tokens = 0;  // of the whole batch
};
// The batch of which this rank has `part`. Collective. Errors: as FetchBatch, but the session's.
Result<StepBatch> MakeBatch(comm::Communicator& comm, const Config& config, const StepPlan& plan,
                            const FetchedPart& part);

// Fetches this rank's leaves of the step, agrees with the other ranks whether all have theirs,
// checks the digest, and computes advantages over the whole batch (after permuting its rewards, if
// so configured, and taking off what long answers cost). `ready` waits for what the rank computes
// with, before the ranks agree; as with the leaves, kCancelled stops them all. Collective. Errors:
// kDataLoss (a record is damaged, or the digest is not the broker's), those of `ready`, the
// session's and the communicator's.
Result<StepBatch> FetchBatch(Session& session, comm::Communicator& comm, const Config& config,
                             const StepPlan& plan, std::uint32_t lineage,
                             const std::function<Status()>& ready);

// Indices 0..n-1 shuffled (Fisher-Yates) by the run's random numbers for this step: position i
// receives the reward of position result[i].
std::vector<std::size_t> RewardPermutation(std::uint64_t seed, std::uint32_t step, std::size_t n);

}  // namespace thresher::learner
