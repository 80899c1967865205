#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "broker/ledger.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/wire/records.h"

namespace thresher::broker {

// What is issued together: the items of a training step, of one round of it with dynamic sampling,
// or of an evaluation round.
struct UnitKey {
  bool evaluation = false;
  std::uint32_t number = 0;  // step, or evaluation round
  std::uint32_t round = 0;   // of the step, with dynamic sampling
  friend constexpr auto operator<=>(const UnitKey&, const UnitKey&) = default;
  std::string ToString() const;  // "step 12", "round 1"
};

struct GroupKey {
  Stream stream = Stream::kTrain;
  std::uint16_t island = 0;
  std::uint64_t item = 0;
  friend constexpr auto operator<=>(const GroupKey&, const GroupKey&) = default;
};
GroupKey GroupOf(const TrajectoryId& id);
UnitKey UnitOf(const wire::ItemsIssued& issued);

// One sample of an open group.
struct Slot {
  enum class State : std::uint8_t { kIssued, kAccepted, kBatched, kDropped };
  State state = State::kIssued;
  bool arrived = false;  // was accepted; stays true when dropped later
  Hash128 content_hash;  // this and the rest: once accepted
  double reward = 0;
  std::uint32_t loss_tokens = 0;
  OutcomeKind outcome = OutcomeKind::kScored;
  friend bool operator==(const Slot&, const Slot&) = default;
};

// All samples of one item; they may come from any actors.
struct Group {
  UnitKey unit;
  PolicyVersion version;  // pinned version (train, eval)
  std::vector<Slot> slots;
  friend bool operator==(const Group&, const Group&) = default;
};

struct Unit {
  wire::ItemsIssued issued;
  std::uint64_t outstanding = 0;  // samples neither accepted nor dropped
  friend bool operator==(const Unit&, const Unit&) = default;
};

// The open groups: those whose step is not committed or whose round is not evaluated, and the state
// of each of their samples. The ledger counts; this knows the samples themselves. Plain data.
class GroupAssembler {
 public:
  // Error: kAlreadyExists when the unit or one of its items is open.
  Status Open(const wire::ItemsIssued& issued);
  // Errors: kNotFound (no such sample open), kFailedPrecondition (not in state kIssued).
  Status Accept(const wire::SampleAccepted& accepted);
  // From kIssued or kAccepted; returns the place the sample left. Errors as Accept.
  Result<Place> Drop(const TrajectoryId& id);
  // From kAccepted. Errors as Accept.
  Status Batch(const TrajectoryId& id);
  // Forgets a unit and its groups. Error: kNotFound.
  Status Close(const UnitKey& unit);

  const Unit* FindUnit(const UnitKey& unit) const;      // null when not open
  const Group* FindGroup(const GroupKey& group) const;  // null when not open
  const Slot* FindSlot(const TrajectoryId& id) const;   // null when not open
  bool Complete(const UnitKey& unit) const;  // open, and every sample accepted or dropped
  // Open units; training steps ascending, then rounds ascending.
  const std::map<UnitKey, Unit>& units() const { return units_; }
  const std::map<GroupKey, Group>& groups() const { return groups_; }
  // Calls visit(id, slot) for every sample of a unit in canonical order (item, sample).
  template <typename Visit>
  void ForEach(const UnitKey& key, Visit&& visit) const;

  // Walks every sample: the independent side of the ledger's check.
  std::map<Ledger::Key, HeldCounts> CountHeld() const;

  friend bool operator==(const GroupAssembler&, const GroupAssembler&) = default;
  template <typename Io>
  void Fields(Io& io) {
    io(units_, groups_);
  }

 private:
  Slot* MutableSlot(const TrajectoryId& id);

  std::map<UnitKey, Unit> units_;
  std::map<GroupKey, Group> groups_;
};

template <typename Visit>
void GroupAssembler::ForEach(const UnitKey& key, Visit&& visit) const {
  const Unit* unit = FindUnit(key);
  if (unit == nullptr) return;
  const wire::ItemsIssued& issued = unit->issued;
  for (std::uint64_t i = 0; i < issued.items; ++i) {
    const Group* group = FindGroup({issued.stream, issued.island, issued.first_item + i});
    for (std::uint32_t sample = 0; sample < issued.samples; ++sample) {
      visit(TrajectoryId{issued.stream, issued.island, issued.first_item + i, sample},
            group->slots[sample]);
    }
  }
}

}  // namespace thresher::broker
