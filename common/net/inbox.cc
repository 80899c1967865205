#include "common/net/inbox.h"

#include <utility>

namespace thresher::net {

void Inbox::Put(wire::Message message) {
  std::lock_guard lock(mutex_);
  messages_.push_back(std::move(message));
  arrived_.NotifyOne();
}

void Inbox::Fail(Status failure) {
  std::lock_guard lock(mutex_);
  failure_ = std::move(failure);
  arrived_.NotifyOne();
}

Status Inbox::Await(std::unique_lock<std::mutex>& lock, Duration timeout) {
  arrived_.WaitFor(lock, timeout, [&] { return !messages_.empty() || !failure_.ok(); });
  return messages_.empty() ? failure_ : Status::Ok();
}

Result<std::deque<wire::Message>> Inbox::TakeAll(Duration timeout) {
  std::unique_lock lock(mutex_);
  THRESHER_RETURN_IF_ERROR(Await(lock, timeout));
  return std::exchange(messages_, {});
}

Result<std::unique_ptr<wire::Message>> Inbox::TakeOne(Duration timeout) {
  std::unique_lock lock(mutex_);
  THRESHER_RETURN_IF_ERROR(Await(lock, timeout));
  if (messages_.empty()) return std::unique_ptr<wire::Message>();
  auto message = std::make_unique<wire::Message>(std::move(messages_.front()));
  messages_.pop_front();
  return message;
}

}  // namespace thresher::net
