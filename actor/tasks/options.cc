#include "actor/tasks/options.h"

#include <cmath>

#include "actor/tasks/rules.h"

namespace thresher::tasks {
namespace {

Status BadOption(const std::string& key, const std::string& value, const std::string& allowed) {
  return InvalidArgument("task." + key + " is " + value + "; allowed: " + allowed);
}

Status CheckRange(const std::string& key, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return Status::Ok();
  return BadOption(key, std::to_string(value), std::to_string(low) + ".." + std::to_string(high));
}

}  // namespace

TaskOptions DefaultTaskOptions(std::string_view name) {
  TaskOptions options;
  options.name = std::string(name);
  if (name == "digits") {
    options.numbers = 6;
    options.max_number = 25;
    options.min_target = 50;
    options.max_target = 450;
    options.use_all = false;
  }
  return options;
}

Status ValidateTaskOptions(const TaskOptions& options) {
  if (!RulesFor(options.name, options.use_all).ok()) {
    return BadOption("name", "'" + options.name + "'", "countdown, digits");
  }
  if (options.name == "digits" && options.use_all) {
    return BadOption("difficulty.use_all", "true", "false for digits (numbers may stay unused)");
  }
  THRESHER_RETURN_IF_ERROR(
      CheckRange("difficulty.numbers", options.numbers, kMinNumbers, kMaxNumbers));
  THRESHER_RETURN_IF_ERROR(
      CheckRange("difficulty.max_number", options.max_number, 1, kMaxGivenNumber));
  THRESHER_RETURN_IF_ERROR(CheckRange("difficulty.max_target", options.max_target, 1, kMaxTarget));
  THRESHER_RETURN_IF_ERROR(
      CheckRange("difficulty.min_target", options.min_target, 1, options.max_target));
  if (options.min_solutions < 1) {
    return BadOption("difficulty.min_solutions", "0", "1 or more");
  }
  if (options.max_solutions != 0 && options.max_solutions < options.min_solutions) {
    return BadOption(
        "difficulty.max_solutions", std::to_string(options.max_solutions),
        "0 (no bound) or at least min_solutions (" + std::to_string(options.min_solutions) + ")");
  }
  if (!(options.heldout_fraction > 0 && options.heldout_fraction < 1)) {
    return BadOption("heldout_fraction", std::to_string(options.heldout_fraction),
                     "between 0 and 1, both excluded");
  }
  if (options.trace_style != "any" && options.trace_style != "shortest") {
    return BadOption("trace_style", "'" + options.trace_style + "'", "any, shortest");
  }
  return Status::Ok();
}

}  // namespace thresher::tasks
