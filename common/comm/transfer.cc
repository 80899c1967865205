#include "common/comm/transfer.h"

#include <algorithm>
#include <cstring>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/log/log.h"

namespace thresher::comm {

std::string TransferCommunicator::Call::Prefix(LearnerRank rank) const {
  return "rank " + std::to_string(rank.value) + ": " + what + " #" + std::to_string(sequence) +
         ": ";
}

TransferCommunicator::Call TransferCommunicator::NewCall(const char* kind,
                                                         std::string_view operation) {
  Call call;
  call.what = std::string(kind) + " '" + std::string(operation) + "'";
  call.sequence = ++sequence_;
  return call;
}

std::vector<std::uint32_t> TransferCommunicator::Call::Peers() const {
  std::vector<std::uint32_t> peers;
  for (const Outgoing& send : sends) peers.push_back(send.to);
  for (const Incoming& receive : receives) peers.push_back(receive.from);
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  return peers;
}

Status TransferCommunicator::Run(const Call& call, const std::function<Status(const Call&)>& body) {
  if (!aborted_.ok()) return aborted_;
  OperationRing::Entry entry;
  entry.sequence = call.sequence;
  entry.what = call.what;
  for (const Outgoing& send : call.sends) entry.sent_bytes += send.bytes.size();
  for (const Incoming& receive : call.receives) entry.received_bytes += receive.bytes.size();
  entry.peers = call.Peers();
  recorder_->Post(std::move(entry));
  Status status = body(call);
  recorder_->End(status.ok());
  if (status.ok()) return status;
  aborted_ = recorder_->Report(status);
  LogWarning("rank " + std::to_string(rank_.value) + ": the newest operations of " + backend() +
             ", which is given up:");
  for (const std::string& line : recorder_->Copy().Lines(SystemClock().Now()))
    LogWarning("  " + line);
  return aborted_;
}

Status TransferCommunicator::RunTransfer(const Call& call) {
  return Run(call, [this](const Call& run) { return Transfer(run); });
}

void TransferCommunicator::NoteStarted() { recorder_->Start(); }

Status TransferCommunicator::Exchange(LearnerRank peer, std::span<const float> out,
                                      std::span<float> in, std::string_view operation) {
  THRESHER_CHECK(peer.value < size_ && peer != rank_,
                 "exchange with rank " + std::to_string(peer.value));
  Call call = NewCall("exchange", operation);
  call.sends.push_back({peer.value, std::as_bytes(out)});
  call.receives.push_back({peer.value, std::as_writable_bytes(in)});
  return RunTransfer(call);
}

Status TransferCommunicator::Broadcast(LearnerRank root, std::span<std::byte> bytes,
                                       std::string_view operation) {
  THRESHER_CHECK(root.value < size_, "broadcast from rank " + std::to_string(root.value));
  Call call = NewCall("broadcast", operation);
  if (root != rank_) call.receives.push_back({root.value, bytes});
  for (std::uint32_t r = 0; root == rank_ && r < size_; ++r) {
    if (r != rank_.value) call.sends.push_back({r, bytes});
  }
  return RunTransfer(call);
}

Status TransferCommunicator::AllGather(std::span<const std::byte> mine, std::span<std::byte> all,
                                       std::string_view operation) {
  THRESHER_CHECK(all.size() == mine.size() * size_, "all-gather of " + std::to_string(mine.size()) +
                                                        " bytes a rank into " +
                                                        std::to_string(all.size()));
  Call call = NewCall("all-gather", operation);
  for (std::uint32_t r = 0; r < size_; ++r) {
    if (r == rank_.value) continue;
    call.sends.push_back({r, mine});
    call.receives.push_back({r, all.subspan(r * mine.size(), mine.size())});
  }
  THRESHER_RETURN_IF_ERROR(RunTransfer(call));
  // memmove: `mine` may be its own place in `all`.
  if (!mine.empty()) std::memmove(all.data() + rank_.value * mine.size(), mine.data(), mine.size());
  return Status::Ok();
}

// Every rank hears of every other: none leaves before the last has entered.
Status TransferCommunicator::Barrier(std::string_view operation) {
  Call call = NewCall("barrier", operation);
  for (std::uint32_t r = 0; r < size_; ++r) {
    if (r == rank_.value) continue;
    call.sends.push_back({r, {}});
    call.receives.push_back({r, {}});
  }
  return RunTransfer(call);
}

Status TransferCommunicator::Send(LearnerRank from, LearnerRank to, std::span<const std::byte> out,
                                  std::span<std::byte> in, std::string_view operation) {
  THRESHER_CHECK(
      from.value < size_ && to.value < size_ && from != to,
      "send from rank " + std::to_string(from.value) + " to " + std::to_string(to.value));
  Call call = NewCall("send", operation);
  if (from == rank_) call.sends.push_back({to.value, out});
  if (to == rank_) call.receives.push_back({from.value, in});
  return RunTransfer(call);
}

std::string MissingText(const std::vector<std::uint32_t>& missing,
                        std::chrono::milliseconds deadline) {
  std::vector<std::uint32_t> ranks = missing;
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  return text + " did not answer within " + std::to_string(deadline.count()) + " ms";
}

}  // namespace thresher::comm
