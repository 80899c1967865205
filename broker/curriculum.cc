#include "broker/curriculum.h"

#include "common/base/check.h"
#include "common/data/prompt_stream.h"

namespace thresher::broker {
namespace {

// Weight of a level that is solved half of the time; one that never or always is keeps weight 1, or
// nobody would ever see it change.
constexpr std::uint64_t kMostWeight = 256;

}  // namespace

Curriculum::Curriculum(const Options& options) : options_(options), levels_(options.levels) {
  THRESHER_CHECK(options.levels >= 1 && options.window_groups >= 1, "an empty curriculum");
  THRESHER_CHECK(options.down_percent < options.up_percent, "down and up cross");
}

void Curriculum::Commit(std::uint32_t level, std::uint32_t solved, std::uint32_t samples) {
  THRESHER_CHECK(level < levels_.size() && solved <= samples, "no such outcome");
  Level& seen = levels_[level];
  seen.newest.push_back({solved, samples});
  seen.solved += solved;
  seen.samples += samples;
  if (seen.newest.size() > options_.window_groups) {
    seen.solved -= seen.newest.front().solved;
    seen.samples -= seen.newest.front().samples;
    seen.newest.pop_front();
  }
  if (options_.kind == Kind::kWindow && level == level_) Move();
}

// A level begins with an empty window: what it once was says little of the policy of today.
void Curriculum::Move() {
  const Level& now = levels_[level_];
  if (now.newest.size() < options_.window_groups) return;
  if (now.solved * 100 >= now.samples * options_.up_percent && level_ + 1 < levels_.size()) {
    levels_[++level_] = {};
  } else if (now.solved * 100 <= now.samples * options_.down_percent && level_ > 0) {
    levels_[--level_] = {};
  }
}

// 1 + p (1 - p), scaled; p = (solved + 1) / (samples + 2), so that the unknown is worth a try.
std::uint32_t Curriculum::Weight(const Level& level) const {
  const std::uint64_t solved = level.solved + 1, samples = level.samples + 2;
  return static_cast<std::uint32_t>(1 + 4 * (kMostWeight - 1) * solved * (samples - solved) /
                                            (samples * samples));
}

std::vector<std::uint32_t> Curriculum::NextLevels(std::uint32_t groups) const {
  if (options_.kind == Kind::kWindow) return std::vector(groups, level_);
  std::vector<std::uint32_t> weights, chosen;
  for (const Level& level : levels_) weights.push_back(Weight(level));
  const Interleave interleave(weights);
  for (std::uint32_t g = 0; g < groups; ++g) chosen.push_back(interleave.At(g).source);
  return chosen;
}

}  // namespace thresher::broker
