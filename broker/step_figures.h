#pragma once

#include <cstdint>

#include "broker/group_assembler.h"
#include "common/config/plan.h"

namespace thresher::broker {

// Mean, spread and extremes of a number over samples; zeros over none.
struct Spread {
  std::uint64_t count = 0;
  double mean = 0;
  double deviation = 0;  // root of the mean squared distance from the mean
  double min = 0;
  double max = 0;
  friend bool operator==(const Spread&, const Spread&) = default;
};

// What is known of some samples.
struct SampleFigures {
  Spread reward;
  Spread length;         // tokens in the loss
  Spread staleness;      // versions between the oldest that generated a token and the step
  double truncated = 0;  // share that ended at the limit of its length
  double solved = 0;     // share that a grader scored with a reward of at least 1
  friend bool operator==(const SampleFigures&, const SampleFigures&) = default;
};

// Groups of a step by their outcomes; a sample that never arrived counts as not solved.
struct GroupFigures {
  std::uint64_t groups = 0;
  std::uint64_t complete = 0;       // every sample arrived
  std::uint64_t solved_all = 0;     // every sample solved the item
  std::uint64_t solved_none = 0;    // none did
  std::uint64_t equal_rewards = 0;  // complete, and no two rewards differ: nothing to learn from
  double deviation = 0;             // of rewards inside a group, mean over complete groups
  friend bool operator==(const GroupFigures&, const GroupFigures&) = default;
};

struct StepFigures {
  SampleFigures arrived;  // before filtering
  SampleFigures trained;  // in the batch
  GroupFigures groups;
  friend bool operator==(const StepFigures&, const StepFigures&) = default;
};

// Of a step whose batch is composed and which is not committed: afterwards its groups are gone.
StepFigures FiguresOf(const GroupAssembler& groups, const StepPlan& step);

}  // namespace thresher::broker
