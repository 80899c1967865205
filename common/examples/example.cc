#include "common/examples/example.h"

#include <algorithm>

namespace thresher::examples {

std::uint32_t Example::LossTokens() const {
  std::uint32_t count = 0;
  for (const Segment& segment : segments) {
    if (segment.in_loss) count += segment.end - segment.begin;
  }
  return count;
}

Trajectory Example::Record(const TrajectoryId& id, const std::string& task) const {
  Trajectory record;
  record.id = id;
  record.group_size = 1;
  record.task = task;
  record.tokens = tokens;
  record.segments = segments;
  record.instance_hash = instance_hash;
  record.text = text;
  record.outcome = outcome;
  record.finish = FinishReason::kReference;
  const auto learned = std::ranges::find_if(segments, &Segment::in_loss);
  record.prompt_hash = HashTokens(tokens, learned == segments.end() ? 0 : learned->begin);
  return record;
}

}  // namespace thresher::examples
