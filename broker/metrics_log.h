#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "broker/metrics_line.h"
#include "broker/run_files.h"
#include "broker/tensorboard.h"
#include "common/base/clock.h"

namespace thresher::broker {

// RUN/metrics.jsonl, a line a committed step and a line an evaluation round, and its copy for
// TensorBoard. A step that is committed again, or a round that is evaluated again, because the
// record of the first time was lost with a killed broker, is not written again. One owner.
class MetricsLog {
 public:
  struct Options {
    bool tensorboard = true;
    BrokerEpoch epoch;
  };
  // Reads what is there. Error: kUnavailable.
  static Result<MetricsLog> Open(const std::filesystem::path& run, const Clock& clock,
                                 Options options);

  // A line of JSON as docs/metrics.md has it.
  void Add(const std::string& json_line);

  // The newest line of each kind; nothing: none by this process, nor in the last 8 MiB of what it
  // found.
  const std::optional<MetricsLine>& newest(MetricsLine::Kind kind) const {
    return newest_[static_cast<int>(kind)];
  }
  // Lines and events that could not be written, by this process.
  std::uint64_t lost() const {
    return lines_.lost_lines() + (tensorboard_ ? tensorboard_->lost_events() : 0);
  }

 private:
  explicit MetricsLog(JsonLines lines) : lines_(std::move(lines)) {}
  void Remember(MetricsLine line);
  void ReadBack(std::string_view text);

  JsonLines lines_;
  std::optional<TensorBoard> tensorboard_;
  std::optional<MetricsLine> newest_[2];  // by kind
  std::set<std::uint32_t> rounds_;        // written
};

}  // namespace thresher::broker
