#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thresher::broker {

// Names and numbers of a line, as TensorBoard, trackers and /metrics have them: `a.b` of the line
// is "a/b", a name without a dot is "run/name"; time and step are none of them, nor is text or
// null.
using Numbers = std::vector<std::pair<std::string, double>>;

// One line of metrics.jsonl (docs/metrics.md): of a committed step, or of an evaluation round.
struct MetricsLine {
  enum class Kind { kStep, kRound };
  Kind kind = Kind::kStep;
  std::uint32_t number = 0;  // of the step or of the round
  double time = 0;           // Unix seconds
  std::int64_t step = 0;     // where its numbers stand: the step; of a round, the steps trained
  Numbers numbers;           // in the order of the line
};
// Nothing: no such line.
std::optional<MetricsLine> ParseMetricsLine(std::string_view text);

}  // namespace thresher::broker
