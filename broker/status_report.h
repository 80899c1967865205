#pragma once

#include <map>
#include <mutex>
#include <string>

#include "broker/context.h"
#include "common/base/clock.h"

namespace thresher::broker {

// The texts that leave the broker for people and tools. docs/status.md documents the fields.

// status.json.
std::string StatusJson(BrokerContext& context, const std::map<std::string, double>& learner);
// How long after it was begun it is made again, when it took `took`: of thousands of peers that is
// milliseconds, and is to be a small part of the time; but a process that was stopped meanwhile is
// not to be silent for minutes.
Duration StatusInterval(Duration took);
// summary.json: the result of a finished run.
std::string SummaryJson(BrokerContext& context, const std::map<std::string, double>& learner);

// The newest texts, handed from the loop's thread to those of the HTTP server. Thread-safe.
class StatusBoard {
 public:
  void Put(std::string json, std::string prometheus) {
    std::lock_guard lock(mutex_);
    json_ = std::move(json);
    prometheus_ = std::move(prometheus);
  }
  std::string json() const {
    std::lock_guard lock(mutex_);
    return json_;
  }
  std::string prometheus() const {
    std::lock_guard lock(mutex_);
    return prometheus_;
  }

 private:
  mutable std::mutex mutex_;
  std::string json_ = "{}";
  std::string prometheus_;
};

}  // namespace thresher::broker
