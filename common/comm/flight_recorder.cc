#include "common/comm/flight_recorder.h"

#include <utility>

namespace thresher::comm {

void FlightRecorder::ReportWith(Reporter reporter) {
  std::lock_guard lock(mutex_);
  reporter_ = std::move(reporter);
}

void FlightRecorder::Post(OperationRing::Entry entry) {
  std::lock_guard lock(mutex_);
  ring_.Post(std::move(entry), SystemClock().Now());
}

void FlightRecorder::Start() {
  std::lock_guard lock(mutex_);
  ring_.Start(SystemClock().Now());
}

void FlightRecorder::End(bool ok) {
  std::lock_guard lock(mutex_);
  ring_.End(ok, SystemClock().Now());
}

Status FlightRecorder::Report(const Status& failed) const {
  Reporter reporter;
  {
    std::lock_guard lock(mutex_);
    reporter = reporter_;
  }
  return reporter ? reporter(failed) : failed;
}

OperationRing FlightRecorder::Copy() const {
  std::lock_guard lock(mutex_);
  return ring_;
}

std::optional<OperationRing::Entry> FlightRecorder::Newest() const {
  std::lock_guard lock(mutex_);
  if (ring_.entries().empty()) return std::nullopt;
  return ring_.entries().back();
}

}  // namespace thresher::comm
