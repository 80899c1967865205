#include "broker/state_check.h"

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <tuple>

namespace thresher::broker {
namespace {

using Held = Slot::State;

std::string StepName(std::uint32_t step) { return UnitKey{false, step}.ToString(); }

// Of a slot what its state says; the rest is what arrived.
bool Sound(const Slot& slot) {
  switch (slot.state) {
    case Held::kIssued:
      return slot == Slot();
    case Held::kAccepted:
    case Held::kBatched:
      return slot.arrived;
    case Held::kDropped:
      break;
  }
  Slot never_came;
  never_came.state = Held::kDropped;
  return slot.arrived || slot == never_came;
}

// Whether the summary is one of that round.
bool IsOf(const EvalSummary& summary, const EvalRound& round) {
  auto key = [](const EvalRound& r) {
    return std::tie(r.round, r.label, r.phase_end, r.version, r.first_item, r.items, r.samples);
  };
  return key(summary.round) == key(round) &&
         summary.pass_at.size() == ReportedKs(round.samples).size();
}

}  // namespace

class StateCheck {
 public:
  explicit StateCheck(const RunState& state) : state_(state) {}

  Status Run() {
    THRESHER_RETURN_IF_ERROR(CheckSteps());
    THRESHER_RETURN_IF_ERROR(CheckUnits());
    THRESHER_RETURN_IF_ERROR(CheckOrder());
    THRESHER_RETURN_IF_ERROR(CheckIssued());
    THRESHER_RETURN_IF_ERROR(CheckForgotten());
    THRESHER_RETURN_IF_ERROR(CheckRemembered());
    THRESHER_RETURN_IF_ERROR(CheckBatches());
    THRESHER_RETURN_IF_ERROR(CheckHistory());
    THRESHER_RETURN_IF_ERROR(CheckStatistics());
    return CheckLedger();
  }

 private:
  static Status Fault(const std::string& what) { return DataLoss("contradicts itself: " + what); }

  // forgotten <= durable <= committed <= planned
  Status CheckSteps() const {
    const std::uint32_t planned = state_.plan_.total_steps();
    const bool ordered = state_.remembered_from_ <= state_.durable_steps_ &&
                         state_.durable_steps_ <= state_.committed_steps_ &&
                         state_.last_durable_.step <= state_.durable_steps_ &&
                         state_.committed_steps_ <= planned;
    if (!ordered) {
      return Fault("steps forgotten " + std::to_string(state_.remembered_from_) + ", durable " +
                   std::to_string(state_.durable_steps_) + ", committed " +
                   std::to_string(state_.committed_steps_) + ", planned " +
                   std::to_string(planned));
    }
    if (state_.finished_ &&
        (state_.committed_steps_ < planned || !state_.groups_.units().empty())) {
      return Fault("finished with work left");
    }
    return Status::Ok();
  }

  // Each open unit is one of the plan, and its samples are what was accepted.
  Status CheckUnits() const {
    for (const auto& [key, unit] : state_.groups_.units()) {
      THRESHER_RETURN_IF_ERROR(CheckPlanned(key, unit.issued));
      if (unit.slots.size() != std::uint64_t{unit.issued.items} * unit.issued.samples) {
        return Fault(key.ToString() + " has " + std::to_string(unit.slots.size()) + " samples");
      }
      std::uint64_t outstanding = 0;
      for (std::size_t i = 0; i < unit.slots.size(); ++i) {
        THRESHER_RETURN_IF_ERROR(CheckSlot(key, unit.IdOf(i), unit.slots[i]));
        outstanding += unit.slots[i].state == Held::kIssued;
      }
      if (outstanding == unit.outstanding) continue;
      return Fault(key.ToString() + " waits for " + std::to_string(unit.outstanding) +
                   " samples, and " + std::to_string(outstanding) + " are issued");
    }
    return Status::Ok();
  }

  Status CheckPlanned(const UnitKey& key, const wire::ItemsIssued& issued) const {
    if (UnitOf(issued) == key && state_.IsPlanned(issued)) return Status::Ok();
    return Fault(key.ToString() + " is not that of the plan");
  }

  Status CheckSlot(const UnitKey& key, const TrajectoryId& id, const Slot& slot) const {
    const std::optional<Dedup::First> first = state_.dedup_.Find(id);
    const bool same = slot.arrived ? first && first->content_hash == slot.content_hash : !first;
    if (!Sound(slot) || !same) return Fault(id.ToString() + " is not what was accepted");
    const bool batched = slot.state == Held::kBatched;
    if (!batched || (!key.evaluation && state_.Batch(key.number) != nullptr)) return Status::Ok();
    return Fault(id.ToString() + " is in no batch");
  }

  // A round has the one before it; what is closed is committed or evaluated, what is open is not.
  Status CheckOrder() const {
    for (const auto& [key, unit] : state_.groups_.units()) {
      const UnitKey before{false, key.number, key.round - 1};
      const bool follows = key.round == 0 || state_.groups_.Complete(before);
      if (Closed(key) || !follows) return Fault(key.ToString() + " is open out of turn");
    }
    std::set<std::uint32_t> steps;
    for (const auto& [key, issued] : state_.settled_) {
      THRESHER_RETURN_IF_ERROR(CheckPlanned(key, issued));
      const bool follows =
          key.round == 0 || state_.settled_.contains({false, key.number, key.round - 1});
      const bool remembered = key.evaluation || key.number >= state_.remembered_from_;
      if (!Closed(key) || !follows || !remembered) {
        return Fault(key.ToString() + " is closed out of turn");
      }
      if (!key.evaluation) steps.insert(key.number);
    }
    if (steps.size() == state_.committed_steps_ - state_.remembered_from_) return Status::Ok();
    return Fault("committed steps without their items");
  }

  bool Closed(const UnitKey& key) const {
    return key.evaluation ? state_.evals_.contains(key.number)
                          : key.number < state_.committed_steps_;
  }

  // Issued is what is open or closed.
  Status CheckIssued() const {
    std::array<IntervalSet, 2> expected;
    expected[0].Insert(0, state_.committed_steps_);
    for (const auto& [round, summary] : state_.evals_) {
      if (round >= state_.plan_.evals().size() || !IsOf(summary, state_.plan_.evals()[round])) {
        return Fault(UnitKey{true, round}.ToString() + " is evaluated and not in the plan");
      }
      expected[1].Insert(round, std::uint64_t{round} + 1);
    }
    for (const auto& [key, unit] : state_.groups_.units()) {
      expected[key.evaluation].Insert(key.number, std::uint64_t{key.number} + 1);
    }
    if (expected == state_.issued_) return Status::Ok();
    return Fault("what is issued is not what is open or closed");
  }

  // The items of the steps and rounds that are closed and not remembered, and no others.
  Status CheckForgotten() const {
    std::map<std::pair<Stream, std::uint16_t>, IntervalSet> expected;
    for (std::uint32_t step = 0; step < state_.remembered_from_; ++step) {
      const StepPlan plan = state_.plan_.Step(step);
      expected[{plan.stream, 0}].Insert(plan.first_item, plan.FirstItem(plan.rounds));
    }
    for (const auto& [round, summary] : state_.evals_) {
      if (state_.settled_.contains({true, round})) continue;
      const EvalRound& plan = state_.plan_.evals()[round];
      expected[{Stream::kEval, 0}].Insert(plan.first_item, plan.first_item + plan.items);
    }
    if (expected == state_.dedup_.forgotten()) return Status::Ok();
    return Fault("the items that are forgotten are not those of what is closed");
  }

  // What is remembered of samples is of open units (CheckSlot) or closed ones.
  Status CheckRemembered() const {
    std::uint64_t known = 0;
    for (const auto& [key, unit] : state_.groups_.units()) {
      known += std::ranges::count(unit.slots, true, &Slot::arrived);
    }
    for (const auto& [key, issued] : state_.settled_) known += RememberedOf(issued);
    if (known != state_.dedup_.remembered()) {
      return Fault(std::to_string(state_.dedup_.remembered()) +
                   " accepted samples; those of open and closed units: " + std::to_string(known));
    }
    if (known <= state_.dedup_.accepted()) return Status::Ok();
    return Fault("more samples are remembered than were accepted");
  }

  std::uint64_t RememberedOf(const wire::ItemsIssued& issued) const {
    std::uint64_t known = 0;
    for (std::uint64_t i = 0; i < issued.items; ++i) {
      for (std::uint32_t sample = 0; sample < issued.samples; ++sample) {
        known += state_.dedup_.Find({issued.stream, issued.island, issued.first_item + i, sample})
                     .has_value();
      }
    }
    return known;
  }

  // Every committed step that is remembered has its batch; other batches are of open steps.
  Status CheckBatches() const {
    std::uint64_t committed = 0;
    for (const auto& [step, batch] : state_.batches_) {
      const bool closed = step < state_.committed_steps_;
      if (batch.step != step || step < state_.remembered_from_ ||
          (!closed && state_.groups_.FindUnit({false, step}) == nullptr)) {
        return Fault("a batch of " + StepName(step) + ", which is not open");
      }
      committed += closed;
      THRESHER_RETURN_IF_ERROR(closed ? CheckTrained(batch) : CheckBatched(batch));
    }
    if (committed == state_.committed_steps_ - state_.remembered_from_) return Status::Ok();
    return Fault("committed steps without their batch");
  }

  Status CheckTrained(const wire::BatchComposed& batch) const {
    std::set<TrajectoryId> ids;
    for (const TrajectoryId& id : batch.ids) {
      if (OfStep(id, batch.step) && state_.dedup_.Find(id) && ids.insert(id).second) continue;
      return Fault("the batch of " + StepName(batch.step) + " holds " + id.ToString());
    }
    return Status::Ok();
  }

  bool OfStep(const TrajectoryId& id, std::uint32_t step) const {
    return id.island == 0 && state_.plan_.StepOfItem(id.stream, id.item) == step;
  }

  // The samples of the step that are batched, each once.
  Status CheckBatched(const wire::BatchComposed& batch) const {
    std::uint64_t batched = 0;
    for (std::uint32_t round = 0;; ++round) {
      const UnitKey key{false, batch.step, round};
      if (state_.groups_.FindUnit(key) == nullptr) break;
      state_.groups_.ForEach(key, [&](const TrajectoryId&, const Slot& slot) {
        batched += slot.state == Held::kBatched;
      });
    }
    std::set<TrajectoryId> ids;
    for (const TrajectoryId& id : batch.ids) {
      const Slot* slot = state_.groups_.FindSlot(id);
      const bool in = slot != nullptr && slot->state == Held::kBatched && OfStep(id, batch.step);
      if (in && ids.insert(id).second) continue;
      return Fault("the batch of " + StepName(batch.step) + " holds " + id.ToString());
    }
    if (ids.size() == batched) return Status::Ok();
    return Fault(StepName(batch.step) + " has " + std::to_string(batched) +
                 " samples in a batch of " + std::to_string(ids.size()));
  }

  // The commits from the one before the first remembered step on; published versions.
  Status CheckHistory() const {
    std::uint32_t step = state_.remembered_from_ == 0 ? 0 : state_.remembered_from_ - 1;
    for (const auto& [number, commit] : state_.commits_) {
      if (number != step || commit.step != step) return Fault("no commit of " + StepName(step));
      ++step;
    }
    if (step != state_.committed_steps_) return Fault("no commit of " + StepName(step));
    for (const auto& [version, published] : state_.published_) {
      if (published.version == version) continue;
      return Fault("version " + version.ToString() + " is published as " +
                   published.version.ToString());
    }
    if (state_.published_versions_ < state_.published_.size()) {
      return Fault("more versions are remembered than were published");
    }
    const double watched = state_.heldout_.share();  // 1, 1/2, 1/4, ...
    if (watched <= 1 && watched >= 0x1p-63) return Status::Ok();
    return Fault("a part " + std::to_string(watched) + " of the instances is watched");
  }

  // Those of the open steps and of the last one committed.
  Status CheckStatistics() const {
    std::map<std::uint32_t, std::uint32_t> rounds;  // by step
    for (const auto& [key, unit] : state_.groups_.units()) {
      if (!key.evaluation) ++rounds[key.number];
    }
    for (const auto& [step, statistics] : state_.statistics_) {
      const bool last = step + 1 == state_.committed_steps_;
      auto open = rounds.find(step);
      if (open == rounds.end() ? !last : open->second != statistics.rounds) {
        return Fault("statistics of " + StepName(step) + ", which has not these rounds");
      }
      if (open != rounds.end()) rounds.erase(open);
    }
    if (rounds.empty()) return Status::Ok();
    return Fault("no statistics of " + StepName(rounds.begin()->first));
  }

  // Of each stream no part is more than what was issued: the equation's sums do not wrap.
  Status CheckLedger() const {
    for (const auto& [key, counts] : state_.ledger_.counts()) {
      std::uint64_t left = counts.issued;
      bool fits = true;
      auto take = [&](std::uint64_t part) {
        fits = fits && part <= left;
        left -= fits ? part : 0;
      };
      take(counts.trained);
      take(counts.evaluated);
      for (std::uint64_t part : counts.dropped) take(part);
      for (std::uint64_t part : counts.held) take(part);
      if (!fits) return Fault(std::string("the ledger of ") + StreamName(key.first));
    }
    const Status balanced = state_.ledger_.Check(state_.groups_.CountHeld());
    return balanced.ok() ? balanced : Fault(balanced.message());
  }

  const RunState& state_;
};

Status CheckState(const RunState& state) { return StateCheck(state).Run(); }

}  // namespace thresher::broker
