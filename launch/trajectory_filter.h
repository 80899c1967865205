#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/status.h"
#include "common/data/trajectory.h"

namespace thresher::launch {

// Numbers from `from` to `to`, both taken in; an end that is missing is open.
struct NumberRange {
  std::optional<double> from, to;
  bool Holds(double value) const { return (!from || value >= *from) && (!to || value <= *to); }
};
// "5" (that number alone), "2:7", "2:", ":7". `option` stands in messages. Error: kInvalidArgument.
Result<NumberRange> ParseRange(const std::string& text, const std::string& option);

// Which trajectories `thresher trajectories` shows. What is not set lets everything pass.
struct TrajectoryFilter {
  std::optional<Stream> stream;
  std::optional<std::uint64_t> item;
  std::optional<std::uint64_t> actor;
  std::optional<OutcomeKind> outcome;
  std::string reason;       // the grader's, whole
  std::string prompt_hash;  // its first hexadecimal digits
  NumberRange step;         // of the oldest policy version in the trajectory
  NumberRange reward;
  NumberRange length;  // tokens, prompt included

  // What the id alone decides: false saves the decoding.
  bool MayHold(const TrajectoryId& id) const;
  bool Holds(const Trajectory& trajectory) const;
};

// "scored", "unparsable", "timed_out", ... Error: kInvalidArgument naming them all.
Result<OutcomeKind> ParseOutcome(const std::string& text);

}  // namespace thresher::launch
