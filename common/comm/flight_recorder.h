#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/comm/operation_ring.h"

namespace thresher::comm {

// The newest operations of a communicator, written by the thread that issues them and read by a
// watchdog's. Thread-safe.
class FlightRecorder {
 public:
  // What is made of an operation's error before the communicator keeps it: the same code, more
  // text. Called on the thread that issues operations, without a lock.
  using Reporter = std::function<Status(const Status& failed)>;
  // An empty one: errors stay as they are.
  void ReportWith(Reporter reporter);

  void Post(OperationRing::Entry entry);
  void Start();
  void End(bool ok);
  Status Report(const Status& failed) const;

  OperationRing Copy() const;
  std::optional<OperationRing::Entry> Newest() const;

 private:
  mutable std::mutex mutex_;
  OperationRing ring_;
  Reporter reporter_;
};

}  // namespace thresher::comm
