#include "broker/batcher.h"

#include <algorithm>

namespace thresher::broker {
namespace {

enum class Fate { kBatch, kNotSelected, kZeroVariance };

// Of a complete group. A sample that arrived is dropped by a composition only, so a group whose
// drops were cut short by a crash gets the same fate again.
Fate FateOf(const Group& group, bool drop_zero_variance) {
  auto arrived = [](const Slot& slot) { return slot.arrived; };
  if (!std::all_of(group.slots.begin(), group.slots.end(), arrived)) return Fate::kNotSelected;
  auto same = [&](const Slot& slot) { return slot.reward == group.slots.front().reward; };
  if (drop_zero_variance && std::all_of(group.slots.begin(), group.slots.end(), same)) {
    return Fate::kZeroVariance;
  }
  return Fate::kBatch;
}

}  // namespace

Composition ComposeBatch(const GroupAssembler& groups, const StepPlan& step, std::uint32_t lineage,
                         bool drop_zero_variance) {
  UnitKey unit{false, step.step};
  THRESHER_CHECK(groups.Complete(unit), "composed before complete: " + unit.ToString());
  bool drop_equal = drop_zero_variance && step.phase == Phase::kRl;
  Composition result;
  result.batch.lineage = lineage;
  result.batch.step = step.step;
  std::vector<wire::BatchEntry> entries;
  groups.ForEach(unit, [&](const TrajectoryId& id, const Slot& slot) {
    if (slot.state != Slot::State::kAccepted) return;
    switch (FateOf(*groups.FindGroup(GroupOf(id)), drop_equal)) {
      case Fate::kNotSelected:
        result.drops.push_back({id, wire::DropReason::kNotSelected, step.step});
        return;
      case Fate::kZeroVariance:
        result.drops.push_back({id, wire::DropReason::kZeroVariance, step.step});
        return;
      case Fate::kBatch:
        break;
    }
    result.batch.ids.push_back(id);
    result.batch.loss_tokens += slot.loss_tokens;
    entries.push_back({id, slot.content_hash});
  });
  result.batch.digest = wire::HashBatch(entries);
  return result;
}

std::vector<TrajectoryId> LeafOf(const std::vector<TrajectoryId>& batch, const StepPlan& step,
                                 std::uint32_t leaves, std::uint32_t leaf) {
  LeafRange range = GradientLeaf(step.items, leaves, leaf);
  std::vector<TrajectoryId> ids;
  for (const TrajectoryId& id : batch) {
    std::uint64_t ordinal = id.item - step.first_item;
    if (ordinal >= range.begin && ordinal < range.end) ids.push_back(id);
  }
  return ids;
}

std::vector<std::size_t> CutParts(const std::vector<std::size_t>& sizes,
                                  std::size_t max_part_bytes) {
  std::vector<std::size_t> begins{0};
  std::size_t used = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (i > begins.back() && used + sizes[i] > max_part_bytes) {
      begins.push_back(i);
      used = 0;
    }
    used += sizes[i];
  }
  return begins;
}

}  // namespace thresher::broker
