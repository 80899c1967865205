#include "actor/tasks/solve.h"

#include "actor/tasks/rules.h"
#include "actor/tasks/solver.h"

namespace thresher::tasks {
namespace {

Status CheckBoard(std::span<const std::int64_t> numbers, std::int64_t target) {
  if (numbers.size() < kMinNumbers || numbers.size() > kMaxNumbers) {
    return InvalidArgument(std::to_string(numbers.size()) + " numbers given; allowed: " +
                           std::to_string(kMinNumbers) + ".." + std::to_string(kMaxNumbers));
  }
  for (const std::int64_t number : numbers) {
    if (number < 1 || number > kMaxGivenNumber) {
      return InvalidArgument("number " + std::to_string(number) + "; allowed: 1.." +
                             std::to_string(kMaxGivenNumber));
    }
  }
  if (target < 1 || target > kMaxTarget) {
    return InvalidArgument("target " + std::to_string(target) + "; allowed: 1.." +
                           std::to_string(kMaxTarget));
  }
  return Status::Ok();
}

}  // namespace

Result<std::uint64_t> CountSolutions(std::string_view task, std::span<const std::int64_t> numbers,
                                     std::int64_t target) {
  THRESHER_ASSIGN_OR_RETURN(const Rules rules, RulesFor(task, /*use_all=*/true));
  THRESHER_RETURN_IF_ERROR(CheckBoard(numbers, target));
  StepSolver solver(rules, target);
  return TotalOf(solver.Count(Board(numbers)));
}

Result<std::vector<std::string>> ListSolutions(std::string_view task,
                                               std::span<const std::int64_t> numbers,
                                               std::int64_t target, std::size_t limit) {
  THRESHER_ASSIGN_OR_RETURN(const Rules rules, RulesFor(task, /*use_all=*/true));
  THRESHER_RETURN_IF_ERROR(CheckBoard(numbers, target));
  std::vector<std::string> solutions;
  if (limit == 0) return solutions;
  StepSolver solver(rules, target);
  solver.List(Board(numbers), [&](std::span<const Step> steps) {
    solutions.push_back(FormatSteps(steps));
    return solutions.size() < limit;
  });
  return solutions;
}

}  // namespace thresher::tasks
