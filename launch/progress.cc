#include "launch/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

namespace thresher::launch {
namespace {

using nlohmann::json;

std::string Format(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

double Number(const json& object, const char* key) {
  auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : 0.0;
}

int TerminalColumns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

}  // namespace

std::string ShortNumber(double value) {
  if (value >= 999.5e3) return Format("%.1fM", value / 1e6);
  if (value >= 999.5) return Format("%.1fk", value / 1e3);
  return Format("%.0f", value);
}

std::string ShortBytes(double bytes) {
  const char* unit = "B";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (bytes < 1023.95) break;
    bytes /= 1024;
    unit = larger;
  }
  return Format(*unit == 'B' ? "%.0f " : "%.1f ", bytes) + unit;
}

std::string ShortDuration(double seconds) {
  auto total = static_cast<long>(std::lround(std::max(0.0, seconds)));
  char text[32];
  if (total >= 3600) {
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
  } else {
    std::snprintf(text, sizeof text, "%ld:%02ld", total / 60, total % 60);
  }
  return text;
}

std::string EstimateText(const json& estimate) {
  if (!estimate.is_object()) return "-";
  return Format("%.3f", Number(estimate, "value")) + " [" +
         Format("%.3f", Number(estimate, "low")) + ", " + Format("%.3f", Number(estimate, "high")) +
         "]";
}

std::string ProgressLine(const json& status) {
  const json tokens = status.value("tokens", json::object());
  std::string line = status.value("phase", std::string("starting")) + " " +
                     Format("%.0f", Number(status, "phase_step")) + "/" +
                     Format("%.0f", Number(status, "phase_steps"));
  if (status.contains("reward_mean") && status["reward_mean"].is_number()) {
    line += "  reward " + Format("%.2f", Number(status, "reward_mean"));
  }
  if (status.contains("pass_at_1") && status["pass_at_1"].is_object()) {
    line += "  pass@1 " + Format("%.2f", Number(status["pass_at_1"], "value"));
  }
  line += "  generated " + ShortNumber(Number(tokens, "generated_per_second")) + " tok/s";
  line += "  trained " + ShortNumber(Number(tokens, "trained_per_second")) + " tok/s";
  line += "  staleness " + Format("%.0f", Number(status, "staleness_max"));
  line += "  mismatch " + Format("%.0f", Number(status, "mismatched_tokens"));
  if (Number(status, "numerics_not_strict") > 0) line += " (not strict)";
  if (status.contains("phase_eta_seconds") && status["phase_eta_seconds"].is_number()) {
    line += "  ETA " + ShortDuration(Number(status, "phase_eta_seconds"));
  }
  std::string paused = status.value("paused", std::string());
  if (!paused.empty()) line += "  PAUSED: " + paused;
  for (const json& learner : status.value("learners", json::array())) {
    const std::string waiting = learner.value("waiting", "");
    if (!waiting.empty()) line += "  CHECKPOINT WAITS: " + waiting;
  }
  return line;
}

ProgressDisplay::ProgressDisplay(std::chrono::seconds interval)
    : terminal_(isatty(STDERR_FILENO) != 0), interval_(interval) {}

ProgressDisplay::~ProgressDisplay() {
  if (terminal_ && !shown_.empty()) std::cerr << "\n";
}

void ProgressDisplay::Update(const std::string& line) {
  if (terminal_) {
    std::string cut = line.substr(0, static_cast<std::size_t>(std::max(10, TerminalColumns() - 1)));
    std::cerr << "\r\033[K" << cut << std::flush;
    shown_ = cut;
    return;
  }
  auto now = std::chrono::steady_clock::now();
  if (now < next_ || line == shown_) return;
  next_ = now + interval_;
  shown_ = line;
  std::cerr << line << "\n";
}

void ProgressDisplay::Print(const std::string& line) {
  if (terminal_ && !shown_.empty()) std::cerr << "\r\033[K";
  std::cerr << line << "\n";
  if (terminal_ && !shown_.empty()) std::cerr << shown_ << std::flush;
}

}  // namespace thresher::launch
