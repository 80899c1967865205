#pragma once

#include <deque>
#include <memory>
#include <mutex>

#include "common/base/status.h"
#include "common/sync/condition.h"
#include "common/wire/messages.h"

namespace thresher::net {

// What a PeerLink hands over, for the thread that owns the conversation: messages in order, and at
// the end perhaps the link's failure, which is told when they are all taken. Thread-safe.
class Inbox {
 public:
  void Put(wire::Message message);
  void Fail(Status failure);

  // All that is there; waits for something up to `timeout`, and then returns nothing. A timeout of
  // zero does not wait. Error: the failure, when nothing is there.
  Result<std::deque<wire::Message>> TakeAll(Duration timeout);
  // The same for the oldest message alone; null when nothing came.
  Result<std::unique_ptr<wire::Message>> TakeOne(Duration timeout);

 private:
  // With the lock held. Error: as above.
  Status Await(std::unique_lock<std::mutex>& lock, Duration timeout);

  std::mutex mutex_;
  sync::Condition arrived_;
  std::deque<wire::Message> messages_;
  Status failure_;
};

}  // namespace thresher::net
