#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "actor/tasks/rules.h"
#include "common/base/random.h"

namespace thresher::tasks {

// Solutions by their number of steps: [k] is the count of those with k + 1 steps.
using SolutionCounts = std::array<std::uint64_t, kMaxNumbers - 1>;
std::uint64_t TotalOf(const SolutionCounts& counts);

// Exact solver for one target under one set of rules.
//
// What is counted: distinct sequences of at least one step, in order; a step is (operation, a, b)
// by value with the operands of + and x unordered; without steps x1 and /1 where the rules leave
// them out. With use_all a solution ends on a board that holds the target alone; otherwise it ends
// at the first result that equals the target, whatever is left.
// Since a step leads from one board to one board, sequences are paths: the count of a board is the
// sum over its steps of the counts of the boards they lead to. Boards that several orders of the
// same steps reach are counted once (memo), so 6 numbers take milliseconds.
// Not thread-safe (the memo grows); one instance per thread.
class StepSolver {
 public:
  StepSolver(const Rules& rules, std::int64_t target);

  SolutionCounts Count(const Board& board);

  // Calls `visit` with every solution, each once, in a fixed order, until it returns false.
  // Exactly TotalOf(Count(board)) of them. The span is valid during the call.
  void List(const Board& board, const std::function<bool(std::span<const Step>)>& visit);

  // One solution, uniform over all of them, or over those with the fewest steps. Empty when there
  // is none.
  std::vector<Step> Sample(const Board& board, bool shortest, RandomSequence& random);

 private:
  // Whether a board reached by `step` ends the game as a win, and whether play goes on from it.
  bool Wins(const Step& step, std::size_t size_after) const;
  SolutionCounts CountAfter(const Board& board, const Step& step);
  SolutionCounts CountLastStep(const Board& board) const;
  bool ListFrom(const Board& board, std::vector<Step>& path,
                const std::function<bool(std::span<const Step>)>& visit);

  Rules rules_;
  std::int64_t target_;
  std::unordered_map<Board, SolutionCounts, BoardHash> memo_;  // boards of 3 numbers and more
};

}  // namespace thresher::tasks
