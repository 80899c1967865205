#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace thresher {

// Faults planted on purpose, for tests of what a farm survives. Read from the environment:
//   THRESHER_FAULT    comma-separated PROCESS:ACTION@POINT=N[#ATTEMPT]
//   THRESHER_ATTEMPT  how often the supervisor has started this process before (default 0)
// PROCESS is the process's name ("actor-0", "broker", "learner-0"), ATTEMPT defaults to 0. Actions:
//   kill   the process sends itself SIGKILL when POINT is reached for the N-th time
//   other  the process asks with Due() and does what the action says
// Without THRESHER_FAULT, and without an observer, every call is a no-op. Several threads may
// call it at once, for different points only.
class FaultPlan {
 public:
  // Error: kInvalidArgument quoting the part that cannot be read.
  static Result<FaultPlan> FromEnvironment(std::string_view process);
  static Result<FaultPlan> Parse(std::string_view process, std::string_view text,
                                 std::uint64_t attempt);

  // Counts an arrival at `point` and tells this thread's observer; a planted kill ends the process
  // here, after a line on stderr. Never called in a destructor, under a lock or in a function that
  // may not throw: the observer may unwind its caller.
  void Reached(std::string_view point);
  // True once, when `value` is at least N of a planted `action@point=N`.
  bool Due(std::string_view action, std::string_view point, std::uint64_t value);

 private:
  struct Fault {
    std::string action;
    std::string point;
    std::uint64_t number = 0;
    std::uint64_t seen = 0;
    bool done = false;
  };
  std::string process_;
  std::vector<Fault> faults_;
};

// Hears of every point that is reached, planted or not: a simulation counts, waits or dies there.
class FaultObserver {
 public:
  virtual ~FaultObserver() = default;
  // `process` is the plan's name ("broker"). May throw, which unwinds the task that is there.
  virtual void OnReached(std::string_view process, std::string_view point) = 0;
};
// The observer of this thread (borrowed; null: none). Returns what it was before.
FaultObserver* SubstituteFaultObserver(FaultObserver* observer);

}  // namespace thresher
