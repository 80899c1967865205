#include "broker/group_assembler.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <string>

namespace thresher::broker {
namespace {

std::uint16_t StalenessOf(const wire::SampleAccepted& accepted, const wire::ItemsIssued& issued) {
  const std::uint32_t oldest = accepted.oldest_version.step;
  if (issued.stream != Stream::kTrain || issued.step <= oldest) return 0;
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint16_t>::max();
  return static_cast<std::uint16_t>(std::min(issued.step - oldest, kMost));
}

}  // namespace

std::string UnitKey::ToString() const {
  return (evaluation ? "round " : "step ") + std::to_string(number) +
         (round > 0 ? ", round " + std::to_string(round) : "");
}

UnitKey UnitOf(const wire::ItemsIssued& issued) {
  bool evaluation = issued.stream == Stream::kEval;
  return {evaluation, evaluation ? issued.round : issued.step, evaluation ? 0 : issued.round};
}

bool Solved(const Slot& slot) {
  return slot.arrived && slot.outcome == OutcomeKind::kScored && slot.reward >= 1.0;
}

const GroupAssembler::Range* GroupAssembler::FindRange(const GroupKey& group) const {
  auto behind = std::ranges::upper_bound(ranges_, group, {}, &Range::first);
  if (behind == ranges_.begin()) return nullptr;
  const Range& range = *std::prev(behind);
  const bool same = range.first.stream == group.stream && range.first.island == group.island;
  return same && group.item - range.first.item < range.items ? &range : nullptr;
}

GroupAssembler::Found GroupAssembler::Find(const TrajectoryId& id) {
  const Range* range = FindRange(GroupOf(id));
  if (range == nullptr) return {};
  Unit& unit = units_.at(range->unit);
  if (id.sample >= unit.issued.samples) return {};
  return {&unit, &unit.slots[(id.item - range->first.item) * unit.issued.samples + id.sample]};
}

std::optional<std::uint64_t> GroupAssembler::FirstOpen(const wire::ItemsIssued& issued) const {
  const GroupKey first{issued.stream, issued.island, issued.first_item};
  if (FindRange(first) != nullptr) return issued.first_item;
  auto behind = std::ranges::upper_bound(ranges_, first, {}, &Range::first);
  if (behind == ranges_.end()) return std::nullopt;
  const bool same = behind->first.stream == first.stream && behind->first.island == first.island;
  const bool reached = same && behind->first.item - first.item < issued.items;
  return reached ? std::optional(behind->first.item) : std::nullopt;
}

void GroupAssembler::AddRange(const UnitKey& key, const wire::ItemsIssued& issued) {
  if (issued.items == 0) return;
  const Range range{{issued.stream, issued.island, issued.first_item}, issued.items, key};
  ranges_.insert(std::ranges::upper_bound(ranges_, range.first, {}, &Range::first), range);
}

bool GroupAssembler::BuildRanges() {
  ranges_.clear();
  for (const auto& [key, unit] : units_) {
    const wire::ItemsIssued& issued = unit.issued;
    const std::uint64_t samples = std::uint64_t{issued.items} * issued.samples;
    const bool fits = issued.first_item <= std::numeric_limits<std::uint64_t>::max() - issued.items;
    const bool sized = unit.slots.size() == samples;  // the rest is state_check's
    if (key != UnitOf(issued) || !sized || !fits || FirstOpen(issued)) return false;
    AddRange(key, issued);
  }
  return true;
}

Status GroupAssembler::Open(const wire::ItemsIssued& issued) {
  UnitKey key = UnitOf(issued);
  if (units_.contains(key)) return AlreadyExists("groups: " + key.ToString() + " is open");
  if (const std::optional<std::uint64_t> item = FirstOpen(issued); issued.items > 0 && item) {
    return AlreadyExists("groups: item " + std::to_string(*item) + " of stream " +
                         StreamName(issued.stream) + " is open");
  }
  const std::uint64_t samples = std::uint64_t{issued.items} * issued.samples;
  units_[key] = {issued, samples, std::vector<Slot>(samples)};
  AddRange(key, issued);
  return Status::Ok();
}

Status GroupAssembler::Accept(const wire::SampleAccepted& accepted) {
  const Found found = Find(accepted.id);
  if (found.slot == nullptr) return NotFound("groups: " + accepted.id.ToString() + " is not open");
  if (found.slot->state != Slot::State::kIssued) {
    return FailedPrecondition("groups: " + accepted.id.ToString() + " is accepted twice");
  }
  *found.slot = {Slot::State::kAccepted, true,
                 accepted.content_hash,  accepted.reward,
                 accepted.loss_tokens,   accepted.outcome,
                 accepted.truncated,     StalenessOf(accepted, found.unit->issued)};
  --found.unit->outstanding;
  return Status::Ok();
}

Result<Place> GroupAssembler::Drop(const TrajectoryId& id) {
  const Found found = Find(id);
  if (found.slot == nullptr) return NotFound("groups: " + id.ToString() + " is not open");
  Slot::State& state = found.slot->state;
  if (state != Slot::State::kIssued && state != Slot::State::kAccepted) {
    return FailedPrecondition("groups: " + id.ToString() + " is dropped when batched or dropped");
  }
  Place from = state == Slot::State::kIssued ? Place::kIssued : Place::kAccepted;
  if (from == Place::kIssued) --found.unit->outstanding;
  state = Slot::State::kDropped;
  return from;
}

Status GroupAssembler::Batch(const TrajectoryId& id) {
  Slot* slot = Find(id).slot;
  if (slot == nullptr) return NotFound("groups: " + id.ToString() + " is not open");
  if (slot->state != Slot::State::kAccepted) {
    return FailedPrecondition("groups: " + id.ToString() + " is batched without being accepted");
  }
  slot->state = Slot::State::kBatched;
  return Status::Ok();
}

Status GroupAssembler::Close(const UnitKey& key) {
  if (units_.erase(key) == 0) return NotFound("groups: " + key.ToString() + " is not open");
  std::erase_if(ranges_, [&](const Range& range) { return range.unit == key; });
  return Status::Ok();
}

const Unit* GroupAssembler::FindUnit(const UnitKey& unit) const {
  auto found = units_.find(unit);
  return found == units_.end() ? nullptr : &found->second;
}

std::optional<Group> GroupAssembler::FindGroup(const GroupKey& group) const {
  const Range* range = FindRange(group);
  if (range == nullptr) return std::nullopt;
  const Unit& unit = units_.at(range->unit);
  const std::size_t samples = unit.issued.samples;
  const std::span<const Slot> slots(unit.slots);
  return Group{range->unit, unit.issued.version,
               slots.subspan((group.item - range->first.item) * samples, samples)};
}

const Slot* GroupAssembler::FindSlot(const TrajectoryId& id) const {
  return const_cast<GroupAssembler*>(this)->Find(id).slot;
}

bool GroupAssembler::Complete(const UnitKey& unit) const {
  const Unit* found = FindUnit(unit);
  return found != nullptr && found->outstanding == 0;
}

std::map<Ledger::Key, HeldCounts> GroupAssembler::CountHeld() const {
  std::map<Ledger::Key, HeldCounts> held;
  for (const auto& [key, unit] : units_) {
    std::array<std::uint64_t, 4> counts{};
    for (const Slot& slot : unit.slots) ++counts[static_cast<int>(slot.state)];
    HeldCounts& total = held[{unit.issued.stream, unit.issued.island}];
    for (std::size_t state = 0; state < total.size(); ++state) total[state] += counts[state];
  }
  return held;
}

}  // namespace thresher::broker
