#include "common/base/fault.h"

#include <signal.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace thresher {
namespace {

bool ParseNumber(std::string_view text, std::uint64_t& out) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// Splits `text` at the first `mark` into two; false when there is none.
bool Split(std::string_view text, char mark, std::string_view& left, std::string_view& right) {
  std::size_t at = text.find(mark);
  if (at == std::string_view::npos) return false;
  left = text.substr(0, at);
  right = text.substr(at + 1);
  return true;
}

thread_local FaultObserver* observer = nullptr;

}  // namespace

Result<FaultPlan> FaultPlan::FromEnvironment(std::string_view process) {
  const char* text = std::getenv("THRESHER_FAULT");
  const char* attempt_text = std::getenv("THRESHER_ATTEMPT");
  std::uint64_t attempt = 0;
  if (attempt_text != nullptr && !ParseNumber(attempt_text, attempt)) {
    return InvalidArgument("THRESHER_ATTEMPT is '" + std::string(attempt_text) +
                           "'; allowed: a number");
  }
  return Parse(process, text == nullptr ? "" : text, attempt);
}

Result<FaultPlan> FaultPlan::Parse(std::string_view process, std::string_view text,
                                   std::uint64_t attempt) {
  FaultPlan plan;
  plan.process_ = process;
  while (!text.empty()) {
    std::size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    std::string_view who, rest, action, where, point, number, tail;
    std::uint64_t on_attempt = 0;
    Fault fault;
    bool ok = Split(part, ':', who, rest) && Split(rest, '@', action, where) &&
              Split(where, '=', point, number);
    if (ok && Split(number, '#', number, tail)) ok = ParseNumber(tail, on_attempt);
    ok = ok && !who.empty() && !action.empty() && !point.empty();
    ok = ok && ParseNumber(number, fault.number) && (action != "kill" || fault.number > 0);
    if (!ok) {
      return InvalidArgument("THRESHER_FAULT has '" + std::string(part) +
                             "'; allowed: PROCESS:ACTION@POINT=N[#ATTEMPT], of kill N from 1");
    }
    if (who != process || on_attempt != attempt) continue;
    fault.action = action;
    fault.point = point;
    plan.faults_.push_back(fault);
  }
  return plan;
}

void FaultPlan::Reached(std::string_view point) {
  if (observer != nullptr) observer->OnReached(process_, point);
  for (Fault& fault : faults_) {
    if (fault.action != "kill" || fault.point != point || ++fault.seen < fault.number) continue;
    std::fprintf(stderr, "%s: planted fault: kill at %s %llu\n", process_.c_str(),
                 fault.point.c_str(), static_cast<unsigned long long>(fault.number));
    std::fflush(stderr);
    raise(SIGKILL);
  }
}

bool FaultPlan::Due(std::string_view action, std::string_view point, std::uint64_t value) {
  for (Fault& fault : faults_) {
    if (fault.done || fault.action != action || fault.point != point || value < fault.number) {
      continue;
    }
    fault.done = true;
    return true;
  }
  return false;
}

FaultObserver* SubstituteFaultObserver(FaultObserver* next) {
  return std::exchange(observer, next);
}

}  // namespace thresher
