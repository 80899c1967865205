#include "broker/batcher.h"

#include <algorithm>

namespace thresher::broker {
namespace {

enum class Fate { kBatch, kNotSelected, kZeroVariance, kSurplus };

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

wire::DropReason ReasonOf(Fate fate) {
  return fate == Fate::kNotSelected    ? wire::DropReason::kNotSelected
         : fate == Fate::kZeroVariance ? wire::DropReason::kZeroVariance
                                       : wire::DropReason::kSurplus;
}

// Calls visit(key, group) for the groups of all open rounds of a step in issue order.
template <typename Visit>
void ForEachGroup(const GroupAssembler& groups, std::uint32_t step, Visit&& visit) {
  const std::uint32_t rounds = RoundsIssued(groups, step);
  for (std::uint32_t round = 0; round < rounds; ++round) {
    const wire::ItemsIssued& issued = groups.FindUnit({false, step, round})->issued;
    for (std::uint64_t i = 0; i < issued.items; ++i) {
      const GroupKey key{issued.stream, issued.island, issued.first_item + i};
      visit(key, *groups.FindGroup(key));
    }
  }
}

}  // namespace

std::uint32_t RoundsIssued(const GroupAssembler& groups, std::uint32_t step) {
  std::uint32_t rounds = 0;
  while (groups.FindUnit({false, step, rounds}) != nullptr) ++rounds;
  return rounds;
}

std::uint32_t InformativeGroups(const GroupAssembler& groups, const StepPlan& step) {
  std::uint32_t informative = 0;
  ForEachGroup(groups, step.step, [&](const GroupKey&, const Group& group) {
    informative += FateOf(group, /*drop_zero_variance=*/true) == Fate::kBatch;
  });
  return informative;
}

StepStage StageOf(const GroupAssembler& groups, const StepPlan& step) {
  const std::uint32_t rounds = RoundsIssued(groups, step.step);
  for (std::uint32_t round = 0; round < rounds; ++round) {
    if (!groups.Complete({false, step.step, round})) return StepStage::kWaiting;
  }
  if (rounds == 0) return StepStage::kWaiting;
  if (!step.dynamic || InformativeGroups(groups, step) >= step.items) return StepStage::kReady;
  return rounds < step.rounds ? StepStage::kNextRound : StepStage::kShort;
}

Composition ComposeBatch(const GroupAssembler& groups, const StepPlan& step, std::uint32_t lineage,
                         bool drop_zero_variance) {
  THRESHER_CHECK(StageOf(groups, step) != StepStage::kWaiting,
                 "composed before complete: step " + std::to_string(step.step));
  bool drop_equal = drop_zero_variance && step.phase == Phase::kRl;
  Composition result;
  result.batch.lineage = lineage;
  result.batch.step = step.step;
  std::vector<wire::BatchEntry> entries;
  std::uint32_t chosen = 0;
  ForEachGroup(groups, step.step, [&](const GroupKey& key, const Group& group) {
    Fate fate = FateOf(group, drop_equal);
    if (fate == Fate::kBatch && step.dynamic && chosen == step.items) fate = Fate::kSurplus;
    chosen += fate == Fate::kBatch;
    for (std::uint32_t sample = 0; sample < group.slots.size(); ++sample) {
      const Slot& slot = group.slots[sample];
      if (slot.state != Slot::State::kAccepted) continue;
      const TrajectoryId id{key.stream, key.island, key.item, sample};
      if (fate != Fate::kBatch) {
        result.drops.push_back({id, ReasonOf(fate), step.step});
        continue;
      }
      result.batch.ids.push_back(id);
      result.batch.loss_tokens += slot.loss_tokens;
      entries.push_back({id, slot.content_hash});
    }
  });
  result.batch.digest = wire::HashBatch(entries);
  return result;
}

std::vector<TrajectoryId> LeafOf(const std::vector<TrajectoryId>& batch, const StepPlan& step,
                                 std::uint32_t leaves, std::uint32_t leaf) {
  LeafRange range = GradientLeaf(step.items, leaves, leaf);
  std::vector<TrajectoryId> ids;
  std::uint64_t groups = 0;  // seen so far
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const TrajectoryId& id = batch[i];
    if (i == 0 || id.item != batch[i - 1].item) ++groups;
    const std::uint64_t ordinal = step.dynamic ? groups - 1 : id.item - step.first_item;
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
