#include "common/log/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <mutex>

#include "common/base/check.h"

namespace thresher {
namespace {

using RingSink = spdlog::sinks::ringbuffer_sink_mt;

constexpr const char* kShortPattern = "%H:%M:%S %L %n: %v";
constexpr const char* kLongPattern = "%Y-%m-%dT%H:%M:%S.%e%z %L %n [%t] %v";

spdlog::level::level_enum SpdLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

struct State {
  std::shared_ptr<spdlog::logger> logger;
  std::shared_ptr<RingSink> ring;
  bool has_file = false;
};

// Throws spdlog::spdlog_ex when the file cannot be opened.
std::shared_ptr<const State> MakeState(const LogOptions& options) {
  auto state = std::make_shared<State>();
  auto console = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  console->set_level(SpdLevel(options.stderr_level));
  console->set_pattern(kShortPattern);
  state->ring = std::make_shared<RingSink>(kFlightRecordLines);
  state->ring->set_pattern(kLongPattern);
  std::vector<spdlog::sink_ptr> sinks{console, state->ring};
  if (!options.file.empty()) {
    auto file = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(
        options.file.string(), options.max_file_bytes, options.max_files);
    file->set_level(SpdLevel(options.level));
    file->set_pattern(kLongPattern);
    sinks.push_back(file);
    state->has_file = true;
  }
  // Not in spdlog's registry: its global state ends before the threads of static objects do.
  state->logger = std::make_shared<spdlog::logger>(options.process, sinks.begin(), sinks.end());
  state->logger->set_level(spdlog::level::debug);
  state->logger->flush_on(spdlog::level::warn);
  // A full disk must not end the process, nor fill standard error.
  state->logger->set_error_handler([](const std::string& text) {
    static std::atomic<bool> said{false};
    if (!said.exchange(true)) std::fprintf(stderr, "log: %s\n", text.c_str());
  });
  return state;
}

// Never destroyed: threads log until the process ends.
std::mutex& Mutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}
std::shared_ptr<const State>& Slot() {
  static auto* slot =
      new std::shared_ptr<const State>(MakeState({.process = "thresher", .file = {}}));
  return *slot;
}
std::shared_ptr<const State> Current() {
  std::lock_guard lock(Mutex());
  return Slot();
}

// The check's text went to standard error already; the record goes to the file if there is one.
void WriteFlightRecord(const std::string& failure) {
  std::shared_ptr<const State> state = Current();
  std::vector<std::string> lines = FlightRecord();
  state->logger->error(Visible(failure));
  if (state->has_file) {
    state->logger->error("flight record: the last lines, of every level, are in this file");
    auto file = state->logger->sinks().back();
    for (const std::string& line : lines) {
      std::string text = "| " + line;  // log_msg only views it
      spdlog::details::log_msg message(state->logger->name(), spdlog::level::critical, text);
      file->log(message);
    }
  } else {
    for (const std::string& line : lines) std::fprintf(stderr, "| %s\n", line.c_str());
  }
  state->logger->flush();
}

}  // namespace

const char* LogLevelName(LogLevel level) {
  constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  return kNames[static_cast<int>(level)];
}

Result<LogLevel> ParseLogLevel(std::string_view name) {
  for (LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    if (name == LogLevelName(level)) return level;
  }
  return InvalidArgument("log level '" + std::string(name) +
                         "'; allowed: debug, info, warning, error");
}

Status InitLog(const LogOptions& options) try {
  std::shared_ptr<const State> state = MakeState(options);
  {
    std::lock_guard lock(Mutex());
    std::swap(Slot(), state);
  }
  state->logger->flush();
  SetFlightRecorder(&WriteFlightRecord);
  return Status::Ok();
} catch (const spdlog::spdlog_ex& error) {
  return Unavailable(options.file.string() + ": " + error.what());
}

void Log(LogLevel level, std::string_view text) {
  Current()->logger->log(SpdLevel(level), Visible(text));
}

void FlushLog() { Current()->logger->flush(); }

std::vector<std::string> FlightRecord() {
  std::vector<std::string> lines = Current()->ring->last_formatted();
  for (std::string& line : lines) {
    while (!line.empty() && line.back() == '\n') line.pop_back();
  }
  return lines;
}

}  // namespace thresher
