#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actor/tasks/environment.h"
#include "actor/tasks/options.h"
#include "actor/tasks/rules.h"

namespace thresher::tasks {

// Countdown and digits as an environment: one implementation under two sets of Rules.
// Prompt: the numbers in the order drawn, '=', the target, ':', as in "9 3 7=60:". Trace:
// FormatSteps.
//
// Generation: the numbers are uniform, the target is the result of a uniformly random legal game
// with them (so every item is solvable), and the draw is repeated, one random lane per attempt,
// until target, split and number of solutions are as wanted.
class NumberGame : public Environment {
 public:
  // Errors as MakeEnvironment.
  static Result<std::unique_ptr<Environment>> Make(const TaskOptions& options);

  const std::string& name() const override { return options_.name; }
  const std::string& alphabet() const override;
  int MaxPromptChars() const override { return max_prompt_chars_; }
  int MaxTraceChars() const override { return max_trace_chars_; }
  Item Generate(std::uint64_t seed, Stream stream, std::uint64_t index) const override;
  Verdict Verify(const Item& item, std::string_view text) const override;
  std::string Reference(const Item& item, RandomSequence& random) const override;
  std::string Perturb(const Item& item, RandomSequence& random) const override;
  std::string RandomPolicy(const Item& item, RandomSequence& random) const override;
  std::string OffTarget(const Item& item, RandomSequence& random) const override;

 private:
  NumberGame(const TaskOptions& options, const Rules& rules);

  // Numbers and target that stand for an item of each split; used when a draw fails to end.
  struct Instance {
    std::vector<std::int64_t> numbers;
    std::int64_t target = 0;
  };
  // One attempt. Empty when the target is out of range or the instance lies in the other split.
  std::optional<Instance> Draw(RandomSequence& random, bool heldout) const;
  bool HasWantedSolutions(const Instance& instance) const;
  // Fills witnesses_. Error: kInvalidArgument when a split has (nearly) no instances.
  Status FindWitnesses();
  Item MakeItem(Stream stream, std::uint64_t index, Instance instance) const;
  bool IsHeldOut(std::string_view canonical) const;
  std::string Canonical(const Instance& instance) const;
  // A random legal game as a reference may be: its length, and without steps that are not counted.
  std::vector<Step> RandomGame(const Board& board, RandomSequence& random) const;

  TaskOptions options_;
  Rules rules_;
  int max_prompt_chars_ = 0;
  int max_trace_chars_ = 0;
  Instance witnesses_[2];  // [0] train, [1] held-out
};

}  // namespace thresher::tasks
