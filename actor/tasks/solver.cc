#include "actor/tasks/solver.h"

#include <numeric>

#include "common/base/check.h"

namespace thresher::tasks {
namespace {

// What a player who makes one more step before `rest` has.
SolutionCounts OneStepLonger(const SolutionCounts& rest) {
  SolutionCounts counts{};
  for (std::size_t k = 0; k + 1 < rest.size(); ++k) counts[k + 1] = rest[k];
  return counts;
}

// Only the entry of the fewest steps that has any.
SolutionCounts KeepShortest(SolutionCounts counts) {
  bool found = false;
  for (std::uint64_t& count : counts) {
    if (found) count = 0;
    found = found || count > 0;
  }
  return counts;
}

}  // namespace

std::uint64_t TotalOf(const SolutionCounts& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

StepSolver::StepSolver(const Rules& rules, std::int64_t target) : rules_(rules), target_(target) {}

bool StepSolver::Wins(const Step& step, std::size_t size_after) const {
  return step.result == target_ && (!rules_.use_all || size_after == 1);
}

SolutionCounts StepSolver::CountLastStep(const Board& board) const {
  SolutionCounts counts{};
  for (const Step& step : LegalSteps(board, rules_.count_identity_steps)) {
    counts[0] += step.result == target_;
  }
  return counts;
}

SolutionCounts StepSolver::CountAfter(const Board& board, const Step& step) {
  if (Wins(step, board.size() - 1)) return SolutionCounts{1};
  return OneStepLonger(Count(board.After(step)));
}

SolutionCounts StepSolver::Count(const Board& board) {
  if (board.size() < 2) return {};
  if (board.size() == 2) return CountLastStep(board);
  if (const auto known = memo_.find(board); known != memo_.end()) return known->second;
  SolutionCounts counts{};
  for (const Step& step : LegalSteps(board, rules_.count_identity_steps)) {
    const SolutionCounts after = CountAfter(board, step);
    for (std::size_t k = 0; k < counts.size(); ++k) counts[k] += after[k];
  }
  memo_.emplace(board, counts);
  return counts;
}

bool StepSolver::ListFrom(const Board& board, std::vector<Step>& path,
                          const std::function<bool(std::span<const Step>)>& visit) {
  for (const Step& step : LegalSteps(board, rules_.count_identity_steps)) {
    if (TotalOf(CountAfter(board, step)) == 0) continue;
    path.push_back(step);
    const bool go_on =
        Wins(step, board.size() - 1) ? visit(path) : ListFrom(board.After(step), path, visit);
    path.pop_back();
    if (!go_on) return false;
  }
  return true;
}

void StepSolver::List(const Board& board, const std::function<bool(std::span<const Step>)>& visit) {
  std::vector<Step> path;
  ListFrom(board, path, visit);
}

std::vector<Step> StepSolver::Sample(const Board& start, bool shortest, RandomSequence& random) {
  std::vector<Step> path;
  Board board = start;
  for (bool finished = TotalOf(Count(board)) == 0; !finished;) {
    const SolutionCounts all = Count(board);
    const SolutionCounts wanted = shortest ? KeepShortest(all) : all;
    std::uint64_t choice = random.Below(TotalOf(wanted));
    for (const Step& step : LegalSteps(board, rules_.count_identity_steps)) {
      const SolutionCounts after = CountAfter(board, step);
      std::uint64_t weight = 0;
      for (std::size_t k = 0; k < after.size(); ++k) weight += wanted[k] > 0 ? after[k] : 0;
      if (choice >= weight) {
        choice -= weight;
        continue;
      }
      path.push_back(step);
      finished = Wins(step, board.size() - 1);
      if (!finished) board = board.After(step);
      break;
    }
  }
  return path;
}

}  // namespace thresher::tasks
