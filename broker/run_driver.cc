#include "broker/run_driver.h"

#include "broker/batcher.h"
#include "broker/metrics_report.h"

namespace thresher::broker {

std::uint32_t LastCheckpointStep(const Plan& plan) {
  for (std::uint32_t step = plan.total_steps(); step > 0; --step) {
    if (plan.Step(step - 1).checkpoint_after) return step;
  }
  return 0;
}

Status RunDriver::Record(const wire::JournalRecord& record) {
  THRESHER_RETURN_IF_ERROR(context_.state.Apply(record));
  context_.journal->Record(record);
  return Status::Ok();
}

Status RunDriver::Accept(const wire::SampleAccepted& record, SharedBytes bytes, bool already_stored,
                         const ArrayRanges& arrays) {
  context_.leases.Complete(record.id);
  context_.partials.Drop(record.id);
  if (!already_stored) {
    context_.journal->Store({record.id, record.content_hash, bytes, arrays});
    if (record.id.stream != Stream::kEval) context_.payloads.Put(record.id, std::move(bytes));
  }
  THRESHER_RETURN_IF_ERROR(Record(record));
  context_.metrics.Count("samples_accepted");
  if (record.nondeterministic) context_.metrics.Count("samples_nondeterministic");
  context_.faults->Reached("accepted");
  return Status::Ok();
}

Status RunDriver::Drop(const TrajectoryId& id, wire::DropReason reason, std::uint32_t step) {
  context_.leases.Complete(id);
  context_.payloads.Release(id);
  context_.partials.Drop(id);
  context_.lost.erase(id);
  context_.kept.Settle(id);
  return Record(wire::SampleDropped{id, reason, step});
}

Status RunDriver::Advance() {
  if (context_.state.finished()) return Status::Ok();
  if (!context_.draining) {
    for (const wire::ItemsIssued& issued : context_.work.Issuable(context_.state)) {
      THRESHER_RETURN_IF_ERROR(Record(issued));
      NoteWork();
    }
  }
  std::vector<UnitKey> complete;
  for (const auto& [key, unit] : context_.state.groups().units()) {
    if (unit.outstanding == 0 && key.round == 0) complete.push_back(key);
  }
  for (const UnitKey& unit : complete) {
    if (unit.evaluation) {
      THRESHER_RETURN_IF_ERROR(CloseRound(unit));
    } else if (context_.state.Batch(unit.number) == nullptr) {
      THRESHER_RETURN_IF_ERROR(ComposeIfReady(context_.state.plan().Step(unit.number)));
    }
  }
  if (!AllDone()) return Status::Ok();
  const wire::VersionPublished* last =
      context_.state.Published({context_.state.lineage(), context_.state.committed_steps()});
  return Record(wire::RunFinished{context_.state.committed_steps(),
                                  last == nullptr ? Hash128{} : last->hash});
}

Status RunDriver::ComposeIfReady(const StepPlan& step) {
  switch (StageOf(context_.state.groups(), step)) {
    case StepStage::kWaiting:
    case StepStage::kNextRound:
      return Status::Ok();
    case StepStage::kReady:
      return Compose(step);
    case StepStage::kShort:
      break;
  }
  const std::string what = "step " + std::to_string(step.step) + " has " +
                           std::to_string(InformativeGroups(context_.state.groups(), step)) +
                           " groups of " + std::to_string(step.items) +
                           " with rewards that differ, after " + std::to_string(step.rounds) +
                           " rounds (rl.max_rounds)";
  if (context_.config.rl.when_short == "fail") {
    return FailedPrecondition(what + "; rl.when_short is fail");
  }
  context_.metrics.Count("steps_short");
  context_.events.Add(EventLevel::kWarning, "step_short", what + ": trained on these");
  return Compose(step);
}

Status RunDriver::Compose(const StepPlan& step) {
  RunState& state = context_.state;
  Composition composition =
      ComposeBatch(state.groups(), step, state.lineage(), context_.config.rl.drop_zero_variance);
  for (const wire::SampleDropped& drop : composition.drops) {
    THRESHER_RETURN_IF_ERROR(Drop(drop.id, drop.reason, drop.step));
  }
  THRESHER_RETURN_IF_ERROR(Record(composition.batch));
  context_.metrics.Count("batches_composed");
  context_.faults->Reached("composed");
  return state.ledger().Check(state.groups().CountHeld());
}

Status RunDriver::CloseRound(const UnitKey& unit) {
  RunState& state = context_.state;
  const wire::ItemsIssued issued = state.groups().FindUnit(unit)->issued;
  Hash128 digest = RoundDigest(state.groups(), unit.number);
  THRESHER_RETURN_IF_ERROR(Record(
      wire::RoundEvaluated{unit.number, issued.version, digest, issued.items, issued.samples}));
  context_.kept.SettleIf([&](const TrajectoryId& id) {
    return id.stream == Stream::kEval && id.item >= issued.first_item &&
           id.item < issued.first_item + issued.items;
  });
  context_.metrics.Count("rounds_evaluated");
  const EvalSummary& result = state.evals().at(unit.number);
  context_.metrics_log.Add(RoundLine(context_, result));
  const Estimate pass1 = result.pass_at_1();
  context_.events.Add(EventLevel::kInfo, "evaluated",
                      "'" + result.round.label + "' version " + issued.version.ToString() +
                          ": pass@1 " + std::to_string(pass1.value) + " [" +
                          std::to_string(pass1.low) + ", " + std::to_string(pass1.high) + "]");
  context_.faults->Reached("evaluated");
  return state.ledger().Check(state.groups().CountHeld());
}

bool RunDriver::AllDone() const {
  const RunState& state = context_.state;
  const Plan& plan = state.plan();
  if (state.committed_steps() < plan.total_steps()) return false;
  if (state.durable_steps() < LastCheckpointStep(plan)) return false;
  if (state.evals().size() < plan.evals().size()) return false;
  return !plan.IsPublished(plan.total_steps()) ||
         state.Published({state.lineage(), plan.total_steps()}) != nullptr;
}

}  // namespace thresher::broker
