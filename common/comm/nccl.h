#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "common/comm/device_port.h"
#include "common/comm/nccl_abi.h"
#include "common/comm/nccl_hello.h"
#include "common/comm/nccl_library.h"
#include "common/comm/poll.h"
#include "common/comm/transfer.h"

namespace thresher::comm {

struct NcclOptions {
  LearnerRank rank;
  std::uint32_t size = 1;
  std::chrono::milliseconds deadline{600000};  // of the creation and of each operation
  // How long ncclCommFinalize and ncclCommAbort may take.
  std::chrono::milliseconds end_patience{30000};
  // Tests; the process's (ProcessNccl) if empty.
  std::function<Result<const NcclLibrary*>()> library;
};

// Ranks that each hold a device, over NCCL. The communicator is non-blocking: every call is started
// and then polled, with a deadline, for NCCL itself waits for a lost peer for ever. An operation
// begins with a small hello to and from each peer, so that one in another operation, or with other
// sizes, is named at once instead of mixing up data, and so that a missed deadline names who did
// not come. On any failure the communicator is aborted (ncclCommAbort) and stays so.
//
// The destructor ends it in order, or aborts it. Should NCCL not come back from that within the
// patience, the process ends with exit code 3: its threads still use memory that would be freed.
class NcclCommunicator : public TransferCommunicator {
 public:
  using MakePort = std::function<Result<std::unique_ptr<DevicePort>>()>;

  // Opens library and device, tells the other ranks of the outcome by `gather`, compares versions,
  // and meets them. Blocks until all have come. Errors: of ProcessNccl, `make_port` and `gather`;
  // kFailedPrecondition (another rank failed, or has another version; NCCL_COMM_BLOCKING is set);
  // kDeadlineExceeded, kAborted.
  static Result<std::unique_ptr<NcclCommunicator>> Make(const NcclOptions& options,
                                                        const MakePort& make_port,
                                                        const GatherStrings& gather);
  ~NcclCommunicator() override;

  const char* backend() const override { return "nccl"; }
  bool any_thread() const override { return false; }  // the device is a thread's choice

  // The forms below take device memory, use it after the work that is queued on `after` so far, and
  // return when it is done.
  Status ExchangeOnDevice(LearnerRank peer, std::span<const float> out, std::span<float> in,
                          nccl::Stream after, std::string_view operation);
  // By the library's broadcast.
  Status BroadcastOnDevice(LearnerRank root, std::span<std::byte> bytes, nccl::Stream after,
                           std::string_view operation);
  // In place, by the library's all-reduce, which promises no order of summation: not strict.
  Status AllReduceOnDevice(std::span<float> data, nccl::Stream after, std::string_view operation);
  bool reaches_devices() const override { return true; }
  Status TreeAllReduceOnDevice(std::span<float> data, std::span<float> scratch, nccl::Stream after,
                               std::string_view operation) override;

 protected:
  Status Transfer(const Call& call) override;

 private:
  struct Greeting;

  NcclCommunicator(const NcclOptions& options, const NcclLibrary& library,
                   std::unique_ptr<DevicePort> port);
  Status Meet(const nccl::UniqueId& id);
  // Greets the call's peers, then runs `body`; aborts on failure.
  Status Greeted(const Call& call, const std::function<Status(const Poller&)>& body);
  Status Greet(const Call& call, const std::vector<std::uint32_t>& peers, const Poller& poller);
  void WriteGreetings(const Call& call, const std::vector<std::uint32_t>& peers);
  Status CheckGreetings(const Call& call, const std::vector<std::uint32_t>& peers) const;
  std::vector<std::uint32_t> Silent(const std::vector<std::uint32_t>& peers);

  // The next `round_bytes_` of every transfer, from `begin` on, through the staging.
  Status TransferRound(const Call& call, std::size_t begin, const Poller& poller);
  Status ReserveSlots(std::size_t transfers, std::size_t largest_bytes);
  // Greeted, after what is queued on `after`; `enqueue` is one group, `then` follows on the stream.
  Status RunOnDevice(const Call& call, nccl::Stream after,
                     const std::function<nccl::Code()>& enqueue,
                     const std::function<Status()>& then = {});
  Status ExchangeThen(LearnerRank peer, std::span<const float> out, std::span<float> in,
                      nccl::Stream after, std::string_view operation,
                      const std::function<Status()>& then);

  // Starts what `enqueue` calls as one group and waits until NCCL has put it on the stream.
  Status Group(const Poller& poller, const std::function<nccl::Code()>& enqueue);
  Result<bool> Settled() const;
  // Waits until the device has done all that is on the stream.
  Status Finish(const Poller& poller);
  Status Error(nccl::Code code) const;
  void Abort();

  const nccl::Api& api_;
  const std::chrono::milliseconds deadline_, end_patience_;
  const std::size_t round_bytes_;  // of each transfer that pass through the staging at once
  std::unique_ptr<DevicePort> port_;
  DevicePort::Staging greetings_;  // mine to each rank, then each rank's to me
  DevicePort::Staging slots_;      // one for each transfer of a call
  std::size_t slot_bytes_ = 0;
  nccl::Comm comm_ = nullptr;

  // ncclCommAbort runs on a thread of its own: it may not return.
  std::mutex mutex_;  // guards abort_returned_
  std::condition_variable abort_changed_;
  bool abort_returned_ = true;
  std::jthread aborter_;
};

}  // namespace thresher::comm
