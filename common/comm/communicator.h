#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"

struct CUstream_st;  // what cudaStream_t points to

namespace thresher::comm {

class FlightRecorder;

// Point-to-point and small collectives between learner ranks. Implementations: local (threads of
// one process, and the single rank), mpi, nccl. All waits are polled with back-off and have a
// deadline; a communicator that missed one or lost a peer is aborted for good and remembers why:
// every later call returns that status (kAborted / kDeadlineExceeded, naming peer, operation and
// sequence number). One thread issues the operations, in the same order on all ranks.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual LearnerRank rank() const = 0;
  virtual std::uint32_t size() const = 0;
  virtual const char* backend() const = 0;  // "local", "mpi", "nccl"
  // Whether another thread may issue operations while the one that made it does not.
  virtual bool any_thread() const { return true; }
  // Of its newest operations, for a watchdog.
  virtual std::shared_ptr<FlightRecorder> recorder() const = 0;

  // Sends `out` to `peer` and receives `in.size()` floats from it, both at once.
  virtual Status Exchange(LearnerRank peer, std::span<const float> out, std::span<float> in,
                          std::string_view operation) = 0;
  // Root's bytes to all; sizes must agree on all ranks.
  virtual Status Broadcast(LearnerRank root, std::span<std::byte> bytes,
                           std::string_view operation) = 0;
  // Fixed-size byte blocks of every rank, in rank order, to all.
  virtual Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all,
                           std::string_view operation) = 0;
  virtual Status Barrier(std::string_view operation) = 0;
  // One rank's bytes to another. Called on all ranks, so that operations have the same numbers
  // everywhere; `out` is looked at on the one, `in`, as long, on the other.
  virtual Status Send(LearnerRank from, LearnerRank to, std::span<const std::byte> out,
                      std::span<std::byte> in, std::string_view operation) = 0;

  // TreeAllReduce of memory on the ranks' devices, where the backend reaches it: after the work
  // that is queued on `after` so far; done when it returns. scratch: at least (data.size() + 1) / 2
  // elements. Errors: kInvalidArgument (the number of ranks is no power of two; scratch too short);
  // kFailedPrecondition where it does not.
  virtual bool reaches_devices() const { return false; }
  virtual Status TreeAllReduceOnDevice(std::span<float> data, std::span<float> scratch,
                                       CUstream_st* after, std::string_view operation);
};

// The only rank of a world of one.
std::unique_ptr<Communicator> MakeSingle();
// `size` communicators that talk through shared memory, one per thread (tests).
std::vector<std::unique_ptr<Communicator>> MakeLocalGroup(std::uint32_t size,
                                                          std::chrono::milliseconds deadline);
// Initialises MPI (MPI_THREAD_SERIALIZED at least) on first use; MPI-3.1 only. Where that takes
// longer than the deadline (a minute at least) the process ends with exit 3. The destructor
// finalises, or aborts the job if the communicator was aborted. Only in thresher_comm_mpi.
Result<std::unique_ptr<Communicator>> MakeMpi(std::chrono::milliseconds deadline);

// In-place sum over ranks in the fixed binary tree of DESIGN section 6: rank count must be a power
// of two; level d adds the partner at distance 2^d, lower half of the tree on the left; recursive
// halving (reduce-scatter) then doubling (all-gather). The bits equal those of adding the ranks'
// vectors pairwise, (0+1)+(2+3), on one rank.
Status TreeAllReduce(Communicator& comm, std::span<float> data, std::string_view operation);

// Elements [begin, end) of a vector.
struct TreeRange {
  std::size_t begin = 0, end = 0;
  std::size_t size() const { return end - begin; }
};
// The two halves of TreeAllReduce: after the first, rank r's TreeShard of `data` is the sum's, with
// the same bits, and the rest is undefined; the second hands each rank's shard to all. Shards are
// cut at multiples of `grain` elements: some may be empty. Errors: as TreeAllReduce.
TreeRange TreeShard(LearnerRank rank, std::uint32_t ranks, std::size_t count, std::size_t grain);
Status TreeReduceScatter(Communicator& comm, std::span<float> data, std::size_t grain,
                         std::string_view operation);
Status TreeAllGather(Communicator& comm, std::span<float> data, std::size_t grain,
                     std::string_view operation);

// What one rank does in that tree, step by step, whatever memory the vector lies in.
struct TreeStep {
  LearnerRank peer;
  std::size_t give_begin = 0, give_count = 0;  // elements sent to the peer
  std::size_t take_begin = 0, take_count = 0;  // the peer's elements of this range arrive, and are
  enum class Use { kAddRight, kAddLeft, kStore } use = Use::kStore;  // own + theirs, theirs + own,
};                                                                   // or replace the own ones
// `ranks` is a power of two. The first half of them reduces, the second gathers.
std::vector<TreeStep> TreeSteps(LearnerRank rank, std::uint32_t ranks, std::size_t count,
                                std::size_t grain = 1);

}  // namespace thresher::comm
