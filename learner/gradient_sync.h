#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/comm/communicator.h"
#include "common/sync/condition.h"
#include "common/sync/task.h"
#include "learner/buckets.h"

namespace thresher::learner {

struct GradientSyncOptions {
  std::size_t count = 0;  // of elements
  std::uint64_t bucket_bytes = 8u << 20;
  // Each rank needs the sum of its shard alone (ShardOf).
  bool scatter = false;
  // From a thread of its own, while the rest is still computed.
  bool overlap = false;
};

// Adds a step's gradients over ranks in the fixed tree, bucket by bucket, from the last to the
// first: the backward pass is done with the last parameters first. The order, and every bit, is the
// same with and without overlap. Between the first Ready of a step and the end of its Finish the
// communicator is this object's; nobody else may use it. Ready is for any thread, one at a time,
// the rest for the owner's.
class GradientSync {
 public:
  // `comm`: borrowed.
  GradientSync(comm::Communicator& comm, const GradientSyncOptions& options);
  // Waits for a bucket that is being reduced.
  ~GradientSync();
  GradientSync(const GradientSync&) = delete;
  GradientSync& operator=(const GradientSync&) = delete;

  // Elements [from, count) of this rank's gradient, which begins at `gradient`, are final. `from`
  // descends within a step; the memory stays until Finish has returned.
  void Ready(float* gradient, std::size_t from);
  // The rest of `gradient` is ready, too. Blocks until all is added; a step begins anew. Errors:
  // the communicator's.
  Status Finish(float* gradient);

  std::span<const Piece> buckets() const { return buckets_; }
  // Of the last step: how long buckets took, other ranks' delay included, and how long Finish did.
  struct Figures {
    double reduce_ms = 0, wait_ms = 0;
  };
  const Figures& figures() const { return figures_; }

 private:
  void Loop(const std::stop_token& stop);
  // Reduces bucket `index`.
  Status Reduce(std::size_t index);
  bool Over() const { return left_ == 0 || !status_.ok(); }

  comm::Communicator& comm_;
  const GradientSyncOptions options_;
  const std::vector<Piece> buckets_;
  std::mutex mutex_;  // guards all below but thread_
  sync::Condition changed_;
  float* gradient_ = nullptr;
  std::size_t ready_ = 0;  // buckets from this one on are final
  std::size_t left_ = 0;   // buckets that are not reduced: the first so many
  Status status_;
  Figures figures_;
  sync::Task thread_;  // last: it uses the members above
};

}  // namespace thresher::learner
