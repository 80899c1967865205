#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/comm/communicator.h"
#include "common/comm/flight_recorder.h"

namespace thresher::comm {

// What every backend shares: each operation is a set of sends and receives that start together and
// are waited for together, so that a missed deadline can name the ranks that were missing. A
// backend implements Transfer alone. Collectives are linear in the number of ranks: they carry
// little, and the gradients go through TreeAllReduce. The newest operations are remembered, and
// written to the log when one fails.
class TransferCommunicator : public Communicator {
 public:
  TransferCommunicator(LearnerRank rank, std::uint32_t size) : rank_(rank), size_(size) {}
  LearnerRank rank() const override { return rank_; }
  std::uint32_t size() const override { return size_; }

  Status Exchange(LearnerRank peer, std::span<const float> out, std::span<float> in,
                  std::string_view operation) override;
  Status Broadcast(LearnerRank root, std::span<std::byte> bytes,
                   std::string_view operation) override;
  Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all,
                   std::string_view operation) override;
  Status Barrier(std::string_view operation) override;
  Status Send(LearnerRank from, LearnerRank to, std::span<const std::byte> out,
              std::span<std::byte> in, std::string_view operation) override;
  std::shared_ptr<FlightRecorder> recorder() const override { return recorder_; }

 protected:
  struct Outgoing {
    std::uint32_t to;
    std::span<const std::byte> bytes;
  };
  struct Incoming {
    std::uint32_t from;
    std::span<std::byte> bytes;
  };
  struct Call {
    std::string what;            // "exchange 'gradients'": equal on both sides
    std::uint64_t sequence = 0;  // of this communicator's calls, from 1
    std::vector<Outgoing> sends;
    std::vector<Incoming> receives;
    // "rank 0: exchange 'gradients' #12: "
    std::string Prefix(LearnerRank rank) const;
    // Ranks that it sends to or receives from, ascending.
    std::vector<std::uint32_t> Peers() const;
  };

  // Does the whole call or gives up at its deadline. Errors: kDeadlineExceeded, kAborted.
  virtual Status Transfer(const Call& call) = 0;

  // For operations that a backend adds: the numbered call, and its run, which `body` does. Once a
  // body has failed, none runs any more, and its status is what every run returns.
  Call NewCall(const char* kind, std::string_view operation);
  Status Run(const Call& call, const std::function<Status(const Call&)>& body);
  // From a body: every peer is known to be in the same operation.
  void NoteStarted();
  bool aborted() const { return !aborted_.ok(); }

 private:
  Status RunTransfer(const Call& call);

  const LearnerRank rank_;
  const std::uint32_t size_;
  std::uint64_t sequence_ = 0;
  Status aborted_;
  const std::shared_ptr<FlightRecorder> recorder_ = std::make_shared<FlightRecorder>();
};

// "ranks 1, 3 did not answer within 500 ms"
std::string MissingText(const std::vector<std::uint32_t>& missing,
                        std::chrono::milliseconds deadline);

}  // namespace thresher::comm
