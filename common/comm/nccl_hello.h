#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/comm/communicator.h"
#include "common/comm/nccl_abi.h"

namespace thresher::comm {

// What every rank tells every other before an NCCL communicator is made: NCCL itself hangs when the
// ranks do not fit together. Pure.
struct NcclHello {
  LearnerRank rank;
  std::uint32_t size = 0;  // of the world
  int version = 0;         // of the rank's NCCL
  std::string library;     // its file
  std::string failure;     // why the rank cannot take part; empty: it can
  nccl::UniqueId id{};     // rank 0's counts
};

// Always of the same length; texts are cut.
std::string EncodeHello(const NcclHello& hello);
// The id to meet under, given the encoded hellos of all ranks in rank order. Errors, one line that
// names the ranks: kFailedPrecondition (a rank cannot take part; other versions of NCCL; another
// protocol), kInvalidArgument (other ranks or sizes than the places say).
Result<nccl::UniqueId> AgreeOnHellos(const std::vector<std::string>& hellos);

// Gives every rank the strings of all, in rank order; all are of one length. How ranks meet is the
// caller's: by another communicator, through the broker.
using GatherStrings = std::function<Result<std::vector<std::string>>(const std::string& mine)>;
// `comm` is borrowed.
GatherStrings GatherOver(Communicator& comm);

}  // namespace thresher::comm
