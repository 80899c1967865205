#include <cstring>
#include <deque>
#include <mutex>

#include "common/base/check.h"
#include "common/comm/transfer.h"
#include "common/sync/condition.h"

namespace thresher::comm {
namespace {

struct Message {
  std::string what;
  std::vector<std::byte> bytes;
};

// What the ranks of one group share. All fields under `mutex`.
struct Group {
  explicit Group(std::uint32_t n) : size(n), channels(std::size_t{n} * n), gone(n, false) {}
  std::deque<Message>& Channel(std::uint32_t from, std::uint32_t to) {
    return channels[from * size + to];
  }

  const std::uint32_t size;
  std::mutex mutex;
  sync::Condition changed;
  std::vector<std::deque<Message>> channels;  // [from][to], in order
  std::vector<bool> gone;                     // the rank's communicator was destroyed
  std::string aborted_by;                     // text of the first failure; empty: none
};

class LocalCommunicator : public TransferCommunicator {
 public:
  LocalCommunicator(std::shared_ptr<Group> group, std::uint32_t rank,
                    std::chrono::milliseconds deadline)
      : TransferCommunicator(LearnerRank(rank), group->size),
        group_(std::move(group)),
        deadline_(deadline) {}

  ~LocalCommunicator() override {
    std::lock_guard lock(group_->mutex);
    group_->gone[rank().value] = true;
    group_->changed.NotifyAll();
  }

  const char* backend() const override { return "local"; }

 protected:
  Status Transfer(const Call& call) override {
    auto end = SystemClock().Now() + deadline_;
    std::unique_lock lock(group_->mutex);
    for (const Outgoing& send : call.sends) {
      group_->Channel(rank().value, send.to)
          .push_back({call.what, {send.bytes.begin(), send.bytes.end()}});
    }
    group_->changed.NotifyAll();
    bool ended =
        group_->changed.WaitUntil(lock, end, [&] { return AllAnswered(call) || Broken(call); });
    if (AllAnswered(call)) return TakeAll(call);
    if (!group_->aborted_by.empty())
      return Aborted(call.Prefix(rank()) + "aborted: " + group_->aborted_by);
    std::vector<std::uint32_t> missing = Missing(call);
    if (ended)
      return Abort(
          Aborted(call.Prefix(rank()) + "rank " + std::to_string(missing[0]) + " is gone"));
    return Abort(DeadlineExceeded(call.Prefix(rank()) + MissingText(missing, deadline_)));
  }

 private:
  bool AllAnswered(const Call& call) { return Missing(call).empty(); }

  std::vector<std::uint32_t> Missing(const Call& call) {
    std::vector<std::uint32_t> missing;
    for (const Incoming& receive : call.receives) {
      if (group_->Channel(receive.from, rank().value).empty()) missing.push_back(receive.from);
    }
    return missing;
  }

  bool Broken(const Call& call) {
    if (!group_->aborted_by.empty()) return true;
    for (std::uint32_t peer : Missing(call)) {
      if (group_->gone[peer]) return true;
    }
    return false;
  }

  Status TakeAll(const Call& call) {
    for (const Incoming& receive : call.receives) {
      std::deque<Message>& channel = group_->Channel(receive.from, rank().value);
      Message message = std::move(channel.front());
      channel.pop_front();
      if (message.what != call.what || message.bytes.size() != receive.bytes.size()) {
        return Abort(Aborted(call.Prefix(rank()) + "rank " + std::to_string(receive.from) +
                             " is in " + message.what + " with " +
                             std::to_string(message.bytes.size()) + " bytes; expected " +
                             std::to_string(receive.bytes.size())));
      }
      if (!message.bytes.empty())
        std::memcpy(receive.bytes.data(), message.bytes.data(), message.bytes.size());
    }
    return Status::Ok();
  }

  Status Abort(Status status) {
    if (group_->aborted_by.empty()) group_->aborted_by = status.message();
    group_->changed.NotifyAll();
    return status;
  }

  const std::shared_ptr<Group> group_;
  const std::chrono::milliseconds deadline_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeLocalGroup(std::uint32_t size,
                                                          std::chrono::milliseconds deadline) {
  THRESHER_CHECK(size >= 1, "a group without ranks");
  auto group = std::make_shared<Group>(size);
  std::vector<std::unique_ptr<Communicator>> out;
  for (std::uint32_t rank = 0; rank < size; ++rank) {
    out.push_back(std::make_unique<LocalCommunicator>(group, rank, deadline));
  }
  return out;
}

std::unique_ptr<Communicator> MakeSingle() {
  return std::move(MakeLocalGroup(1, std::chrono::milliseconds(0))[0]);
}

}  // namespace thresher::comm
