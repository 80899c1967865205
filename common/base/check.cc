#include "common/base/check.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace thresher {
namespace {
std::atomic<FlightRecorder> g_recorder{nullptr};
}  // namespace

void SetFlightRecorder(FlightRecorder recorder) { g_recorder = recorder; }

void CheckFailed(const char* file, int line, const char* expression, const std::string& message) {
  std::string text = std::string(file) + ":" + std::to_string(line) + ": check failed: " +
                     expression + ": " + message;
  std::fprintf(stderr, "%s\n", text.c_str());
  if (FlightRecorder recorder = g_recorder.exchange(nullptr)) recorder(text);
  std::abort();
}

}  // namespace thresher
