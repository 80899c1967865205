#include "broker/group_assembler.h"

#include <string>

namespace thresher::broker {

std::string UnitKey::ToString() const {
  return (evaluation ? "round " : "step ") + std::to_string(number) +
         (round > 0 ? ", round " + std::to_string(round) : "");
}

GroupKey GroupOf(const TrajectoryId& id) { return {id.stream, id.island, id.item}; }

UnitKey UnitOf(const wire::ItemsIssued& issued) {
  bool evaluation = issued.stream == Stream::kEval;
  return {evaluation, evaluation ? issued.round : issued.step, evaluation ? 0 : issued.round};
}

Status GroupAssembler::Open(const wire::ItemsIssued& issued) {
  UnitKey key = UnitOf(issued);
  if (units_.contains(key)) return AlreadyExists("groups: " + key.ToString() + " is open");
  for (std::uint64_t i = 0; i < issued.items; ++i) {
    if (groups_.contains({issued.stream, issued.island, issued.first_item + i})) {
      return AlreadyExists("groups: item " + std::to_string(issued.first_item + i) + " of stream " +
                           StreamName(issued.stream) + " is open");
    }
  }
  units_[key] = {issued, std::uint64_t{issued.items} * issued.samples};
  for (std::uint64_t i = 0; i < issued.items; ++i) {
    groups_[{issued.stream, issued.island, issued.first_item + i}] = {
        key, issued.version, std::vector<Slot>(issued.samples)};
  }
  return Status::Ok();
}

Slot* GroupAssembler::MutableSlot(const TrajectoryId& id) {
  auto found = groups_.find(GroupOf(id));
  if (found == groups_.end() || id.sample >= found->second.slots.size()) return nullptr;
  return &found->second.slots[id.sample];
}

Status GroupAssembler::Accept(const wire::SampleAccepted& accepted) {
  Slot* slot = MutableSlot(accepted.id);
  if (slot == nullptr) return NotFound("groups: " + accepted.id.ToString() + " is not open");
  if (slot->state != Slot::State::kIssued) {
    return FailedPrecondition("groups: " + accepted.id.ToString() + " is accepted twice");
  }
  *slot = {Slot::State::kAccepted, true,
           accepted.content_hash,  accepted.reward,
           accepted.loss_tokens,   accepted.outcome};
  --units_[groups_[GroupOf(accepted.id)].unit].outstanding;
  return Status::Ok();
}

Result<Place> GroupAssembler::Drop(const TrajectoryId& id) {
  Slot* slot = MutableSlot(id);
  if (slot == nullptr) return NotFound("groups: " + id.ToString() + " is not open");
  if (slot->state != Slot::State::kIssued && slot->state != Slot::State::kAccepted) {
    return FailedPrecondition("groups: " + id.ToString() + " is dropped when batched or dropped");
  }
  Place from = slot->state == Slot::State::kIssued ? Place::kIssued : Place::kAccepted;
  if (from == Place::kIssued) --units_[groups_[GroupOf(id)].unit].outstanding;
  slot->state = Slot::State::kDropped;
  return from;
}

Status GroupAssembler::Batch(const TrajectoryId& id) {
  Slot* slot = MutableSlot(id);
  if (slot == nullptr) return NotFound("groups: " + id.ToString() + " is not open");
  if (slot->state != Slot::State::kAccepted) {
    return FailedPrecondition("groups: " + id.ToString() + " is batched without being accepted");
  }
  slot->state = Slot::State::kBatched;
  return Status::Ok();
}

Status GroupAssembler::Close(const UnitKey& key) {
  auto unit = units_.find(key);
  if (unit == units_.end()) return NotFound("groups: " + key.ToString() + " is not open");
  const wire::ItemsIssued& issued = unit->second.issued;
  for (std::uint64_t i = 0; i < issued.items; ++i) {
    groups_.erase({issued.stream, issued.island, issued.first_item + i});
  }
  units_.erase(unit);
  return Status::Ok();
}

const Unit* GroupAssembler::FindUnit(const UnitKey& unit) const {
  auto found = units_.find(unit);
  return found == units_.end() ? nullptr : &found->second;
}

const Group* GroupAssembler::FindGroup(const GroupKey& group) const {
  auto found = groups_.find(group);
  return found == groups_.end() ? nullptr : &found->second;
}

const Slot* GroupAssembler::FindSlot(const TrajectoryId& id) const {
  return const_cast<GroupAssembler*>(this)->MutableSlot(id);
}

bool GroupAssembler::Complete(const UnitKey& unit) const {
  const Unit* found = FindUnit(unit);
  return found != nullptr && found->outstanding == 0;
}

std::map<Ledger::Key, HeldCounts> GroupAssembler::CountHeld() const {
  std::map<Ledger::Key, HeldCounts> held;
  for (const auto& [key, group] : groups_) {
    HeldCounts& counts = held[{key.stream, key.island}];
    for (const Slot& slot : group.slots) {
      if (slot.state == Slot::State::kDropped) continue;
      ++counts[static_cast<int>(slot.state)];
    }
  }
  return held;
}

}  // namespace thresher::broker
