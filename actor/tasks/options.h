#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/status.h"

namespace thresher::tasks {

// What a task's instances look like; the `task` section of the configuration. The ranges in the
// comments are checked by MakeEnvironment. Defaults are countdown's; see DefaultTaskOptions.
struct TaskOptions {
  std::string name = "countdown";  // countdown | digits

  // task.difficulty.*
  int numbers = 3;      // given numbers of an instance, 2..6
  int max_number = 9;   // they are drawn uniformly from 1..max_number; 1..1000
  int min_target = 1;   // 1..max_target
  int max_target = 50;  // min_target..1000000
  bool use_all = true;  // every given number must be used; digits: must be false
  // Only instances with this many solutions (counted as in solver.h). The
  // neutral values, 1 and 0 (no upper bound), cost no solving.
  std::uint64_t min_solutions = 1;
  std::uint64_t max_solutions = 0;

  // Share of canonical instances that only evaluation sees; in (0, 1).
  double heldout_fraction = 0.1;
  // Which solution a reference trace shows: "any" is uniform over all solutions, "shortest" over
  // those with the fewest steps.
  std::string trace_style = "any";
};

// The published shape of each task: countdown 3 numbers up to 9, all used, targets 1-50; digits 6
// numbers up to 25, targets 50-450, numbers may stay unused. An unknown name gets countdown's
// values with that name, which MakeEnvironment refuses.
TaskOptions DefaultTaskOptions(std::string_view name);

// Checks every range above and the rules that span several options. Error: kInvalidArgument naming
// the key, its value and what is allowed.
Status ValidateTaskOptions(const TaskOptions& options);

}  // namespace thresher::tasks
