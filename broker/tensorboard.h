#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "broker/metrics_line.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/data/file_handle.h"

namespace thresher::broker {

// RUN/tensorboard/: the numbers of metrics.jsonl as event files (common/data/event_file.h), an
// event a line. They are derived: what the newest file lacks is written when a broker starts, so
// nothing is missing or there twice after a kill, and a folder that was deleted comes back whole.
// Each broker makes a file of its own, with its first event. What cannot be written (disk full) is
// counted, and written with the next line. One owner.
class TensorBoard {
 public:
  TensorBoard(std::filesystem::path run, const Clock& clock, BrokerEpoch epoch)
      : folder_(std::move(run) / "tensorboard"), clock_(&clock), epoch_(epoch) {}

  // `lines`: what metrics.jsonl holds. Before the first Add.
  void CatchUp(std::string_view lines);
  void Add(const MetricsLine& line);
  std::uint64_t lost_events() const { return lost_; }

 private:
  void Put(const MetricsLine& line);
  void Flush();
  Status Write();
  Status Create();

  std::filesystem::path folder_;
  const Clock* clock_;
  BrokerEpoch epoch_;
  FileHandle file_;
  std::uint64_t bytes_ = 0;   // of the file
  std::string waiting_;       // records to be written next
  std::uint64_t events_ = 0;  // in them; not 0 after a failure, until they are written
  std::uint64_t lost_ = 0;
};

}  // namespace thresher::broker
