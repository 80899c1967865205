#pragma once

#include <string>

namespace thresher {

// Called once, before the process ends, when a check fails: writes the flight record (recent
// events of the process) to its log. Set by common/log; null means standard error only.
using FlightRecorder = void (*)(const std::string& failure);
void SetFlightRecorder(FlightRecorder recorder);

// Prints `file:line: check failed: expression: message`, calls the flight recorder, aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression,
                              const std::string& message);

}  // namespace thresher

// An invariant of the program: compiled in always; a failure is a bug and ends the process.
#define THRESHER_CHECK(condition, message)                                       \
  do {                                                                           \
    if (!(condition)) [[unlikely]]                                               \
      ::thresher::CheckFailed(__FILE__, __LINE__, #condition, message);          \
  } while (false)
