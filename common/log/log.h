#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace thresher {

// The log of a process (spdlog behind it). Lines go to standard error, short, and to a rotating
// file when one is given, with date and thread; the last kFlightRecordLines are kept in memory, of
// every level from debug on, and written out when a check fails. Control characters are shown as
// \xNN in every line: text that models wrote cannot move a terminal's cursor. Thread-safe. Before
// InitLog lines go to standard error from info on.
enum class LogLevel : std::uint8_t { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };
// "debug", "info", "warning", "error".
const char* LogLevelName(LogLevel level);
Result<LogLevel> ParseLogLevel(std::string_view name);

struct LogOptions {
  std::string process;               // "broker", "actor-3": stands in every line
  std::filesystem::path file;        // empty: standard error only
  LogLevel level = LogLevel::kInfo;  // of the file
  LogLevel stderr_level = LogLevel::kInfo;
  std::size_t max_file_bytes = 16u << 20;  // then it is renamed to name.1.ext, .2, ...
  std::size_t max_files = 3;               // kept besides the current one
};
inline constexpr std::size_t kFlightRecordLines = 200;

// Replaces the log of the process and becomes the flight recorder of its checks. Error:
// kUnavailable when the file cannot be opened; the log is then as it was.
Status InitLog(const LogOptions& options);

void Log(LogLevel level, std::string_view text);
inline void LogDebug(std::string_view text) { Log(LogLevel::kDebug, text); }
inline void LogInfo(std::string_view text) { Log(LogLevel::kInfo, text); }
inline void LogWarning(std::string_view text) { Log(LogLevel::kWarning, text); }
// What needs somebody's attention; never an expected event.
inline void LogError(std::string_view text) { Log(LogLevel::kError, text); }

void FlushLog();
// The flight record, oldest line first.
std::vector<std::string> FlightRecord();

// `text` with control characters, DEL and bytes that are not UTF-8 as \xNN (C1 controls and
// bidirectional marks included), tabs and line ends as \t, \n, \r.
std::string Visible(std::string_view text);

}  // namespace thresher
