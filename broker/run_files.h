#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/data/files.h"
#include "common/data/run_identity.h"

namespace thresher::broker {

// RUN/manifest.json, key run_id. Errors: kNotFound, kDataLoss naming file and key.
Result<Hash128> ReadRunId(const std::filesystem::path& run);

// A run identity as JSON (identities.h).
Status WriteIdentity(const std::filesystem::path& file, const RunIdentity& identity);
// Nothing when the file does not exist yet. Error: kDataLoss.
Result<std::optional<RunIdentity>> ReadIdentity(const std::filesystem::path& file);

// A file of JSON lines that is only appended to. A line that cannot be written (disk full) is
// counted and dropped: these files inform, they decide nothing. One owner.
class JsonLines {
 public:
  // Error: kUnavailable.
  static Result<JsonLines> Open(const std::filesystem::path& path);
  // False: it could not be written.
  bool Append(const std::string& json_line);
  std::uint64_t lost_lines() const { return lost_; }

 private:
  explicit JsonLines(AppendFile file) : file_(std::move(file)) {}
  AppendFile file_;
  std::uint64_t lost_ = 0;
};

// RUN/events.jsonl: one line per notable event,
//   {"time": unix seconds, "level": "info|warning|alarm", "event": "...", "detail": "..."}.
// An alarm means that a promise is in danger; warnings are faults the run survives. Whoever speaks
// for ever must not fill the disk: of what is no alarm at most kMostOfAKind lines of a kind are
// written in a minute, and the next one tells how many were not. All are counted.
enum class EventLevel { kInfo, kWarning, kAlarm };
class EventLog {
 public:
  static constexpr std::uint64_t kMostOfAKind = 200;
  static Result<EventLog> Open(const std::filesystem::path& run, const Clock& clock);
  void Add(EventLevel level, std::string_view event, std::string_view detail);
  std::uint64_t alarms() const { return alarms_; }
  std::uint64_t warnings() const { return warnings_; }
  // Alarms and warnings by event, of this process.
  const std::map<std::string, std::uint64_t, std::less<>>& by_kind() const { return by_kind_; }
  // The newest alarm or warning, for the status page.
  const std::string& last_fault() const { return last_fault_; }

 private:
  struct Recent {
    TimePoint since{};
    std::uint64_t lines = 0;
    std::uint64_t left_out = 0;
  };
  EventLog(JsonLines lines, const Clock& clock) : lines_(std::move(lines)), clock_(&clock) {}
  // How many were left out before this one; nothing when it is left out, too.
  std::optional<std::uint64_t> Room(std::string_view event);

  JsonLines lines_;
  const Clock* clock_;
  std::uint64_t alarms_ = 0;
  std::uint64_t warnings_ = 0;
  std::map<std::string, std::uint64_t, std::less<>> by_kind_;
  std::map<std::string, Recent, std::less<>> recent_;  // by kind
  std::string last_fault_;
};

}  // namespace thresher::broker
