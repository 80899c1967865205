#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "broker/group_key.h"
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
  bool truncated = false;       // ended at the limit of its length
  std::uint16_t staleness = 0;  // of a training sample, in versions; at most what fits
  friend bool operator==(const Slot&, const Slot&) = default;
};

// A sample solves its item when a grader scored it in full.
bool Solved(const Slot& slot);

// All samples of one item; they may come from any actors. Borrows from its unit.
struct Group {
  UnitKey unit;
  PolicyVersion version;  // pinned version (train, eval)
  std::span<const Slot> slots;
};

struct Unit {
  wire::ItemsIssued issued;
  std::uint64_t outstanding = 0;  // samples neither accepted nor dropped
  std::vector<Slot> slots;        // by item, then by sample
  TrajectoryId IdOf(std::size_t slot) const {
    return {issued.stream, issued.island, issued.first_item + slot / issued.samples,
            static_cast<std::uint32_t>(slot % issued.samples)};
  }
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

  const Unit* FindUnit(const UnitKey& unit) const;  // null when not open
  std::optional<Group> FindGroup(const GroupKey& group) const;
  const Slot* FindSlot(const TrajectoryId& id) const;  // null when not open
  bool Complete(const UnitKey& unit) const;            // open, and every sample accepted or dropped
  // Open units; training steps ascending, then rounds ascending.
  const std::map<UnitKey, Unit>& units() const { return units_; }
  // Calls visit(id, slot) for every sample of a unit in canonical order (item, sample).
  template <typename Visit>
  void ForEach(const UnitKey& key, Visit&& visit) const;

  // Walks every sample: the independent side of the ledger's check.
  std::map<Ledger::Key, HeldCounts> CountHeld() const;

  friend bool operator==(const GroupAssembler&, const GroupAssembler&) = default;
  template <typename Io>
  void Fields(Io& io) {
    io(units_);
    if constexpr (requires { io.Refuse(); }) {  // read, from bytes that may say anything
      if (!BuildRanges()) io.Refuse();
    }
  }

 private:
  // Items [first, first + items) of a stream and island.
  struct Range {
    GroupKey first;
    std::uint64_t items = 0;
    UnitKey unit;
    friend bool operator==(const Range&, const Range&) = default;
  };
  // Where one sample lies; null: not open.
  struct Found {
    Unit* unit = nullptr;
    Slot* slot = nullptr;
  };

  const Range* FindRange(const GroupKey& group) const;
  Found Find(const TrajectoryId& id);
  // The first item of `issued` that is open already.
  std::optional<std::uint64_t> FirstOpen(const wire::ItemsIssued& issued) const;
  void AddRange(const UnitKey& key, const wire::ItemsIssued& issued);
  // False when the units contradict themselves or each other.
  bool BuildRanges();

  std::map<UnitKey, Unit> units_;
  std::vector<Range> ranges_;  // of all units, ascending; derived
};

template <typename Visit>
void GroupAssembler::ForEach(const UnitKey& key, Visit&& visit) const {
  const Unit* unit = FindUnit(key);
  if (unit == nullptr) return;
  for (std::size_t i = 0; i < unit->slots.size(); ++i) visit(unit->IdOf(i), unit->slots[i]);
}

}  // namespace thresher::broker
