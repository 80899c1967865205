#include <iostream>
#include <limits>

#include "actor/tasks/solve.h"
#include "launch/commands.h"

namespace thresher::launch {

int SolveCommand(const SolveOptions& options) {
  if (options.count) {
    auto count = tasks::CountSolutions(options.task, options.numbers, options.target);
    if (!count.ok()) return Report(count.status(), kExitUsage);
    std::cout << *count << "\n";
    return kExitOk;
  }
  std::size_t limit = options.list ? std::numeric_limits<std::size_t>::max() : 1;
  auto solutions = tasks::ListSolutions(options.task, options.numbers, options.target, limit);
  if (!solutions.ok()) return Report(solutions.status(), kExitUsage);
  for (const std::string& solution : *solutions) std::cout << solution << "\n";
  if (solutions->empty()) std::cerr << "thresher: no solution\n";
  return solutions->empty() ? kExitDoesNotHold : kExitOk;
}

}  // namespace thresher::launch
