#include "launch/audit_journal.h"

#include <algorithm>

#include "broker/snapshot.h"
#include "common/data/files.h"
#include "common/data/record_log.h"

namespace thresher::launch {
namespace {

constexpr const char* kFateNames[] = {"trained", "evaluated", "dropped"};

std::string Text(std::uint64_t value) { return std::to_string(value); }

}  // namespace

void JournalAudit::Problem(const std::string& what) {
  findings_.Problem("journal record " + Text(sequence_) + ": " + what);
}

JournalFacts JournalAudit::Read(const std::filesystem::path& journal) {
  Result<LogCursor> begin = Begin(journal);
  if (!begin.ok()) {
    findings_.Problem("journal: " + begin.status().ToString());
    return std::move(facts_);
  }
  Status status = ReadRecordLogFrom(journal, *begin, [&](const LogRecord& record) {
    sequence_ = record.sequence;
    ++facts_.records;
    auto decoded = wire::DecodeJournalRecord(record.payload);
    if (!decoded.ok()) {
      Problem(decoded.status().ToString());
      return Status::Ok();
    }
    bool starts = std::holds_alternative<wire::EpochStarted>(*decoded);
    Expect(starts || facts_.epoch > 0, "comes before the first broker start");
    Expect(starts || !facts_.finished, "comes after the end of the run");
    std::visit([&](const auto& r) { On(r); }, *decoded);
    return Status::Ok();
  });
  if (!status.ok()) findings_.Problem("journal: " + status.ToString());
  CheckEnd();
  return std::move(facts_);
}

Result<LogCursor> JournalAudit::Begin(const std::filesystem::path& journal) {
  THRESHER_ASSIGN_OR_RETURN(const LogCursor begin, LogBegin(journal));
  if (begin.sequence == 0) return LogCursor();
  std::vector<broker::SnapshotFile> files = broker::ListSnapshots(journal / "archive");
  for (auto& file : broker::ListSnapshots(journal)) files.push_back(std::move(file));
  for (const broker::SnapshotFile& file : files) {
    Result<std::string> bytes = ReadFile(file.path);
    if (!bytes.ok() || file.sequence < begin.sequence) continue;
    Result<broker::Snapshot> snapshot = broker::DecodeSnapshot(*bytes, plan_);
    if (!snapshot.ok()) {
      findings_.Problem(file.path.string() + ": " + snapshot.status().message());
      continue;
    }
    facts_.first_record = snapshot->journal.sequence;
    TakeBase(snapshot->state);
    facts_.base = std::make_shared<broker::RunState>(std::move(snapshot->state));
    return snapshot->journal;
  }
  return DataLoss("records before " + Text(begin.sequence) +
                  " were deleted, and no snapshot is left to begin with");
}

void JournalAudit::TakeBase(const broker::RunState& state) {
  facts_.epoch = state.epoch().value;
  facts_.retrained = state.retrained_steps();
  facts_.audited_tokens = state.audited_tokens();
  facts_.mismatched_tokens = state.mismatched_tokens();
  facts_.nondeterministic = state.nondeterministic();
  facts_.first_step = state.remembered_from();
  facts_.commits.resize(state.committed_steps());
  for (std::uint32_t step = 0; step < state.committed_steps(); ++step) {
    if (const wire::StepCommitted* commit = state.Commit(step)) facts_.commits[step] = *commit;
  }
  for (std::uint32_t step = state.remembered_from(); step < plan_.total_steps(); ++step) {
    if (const wire::BatchComposed* batch = state.Batch(step)) facts_.batches[step] = *batch;
  }
  facts_.published = state.published();
  if (state.durable_steps() > 0) facts_.durable.push_back(state.last_durable());
  for (const auto& [round, result] : state.evals()) facts_.evaluated.insert(round);
  TakeOpenUnits(state);
}

void JournalAudit::TakeOpenUnits(const broker::RunState& state) {
  for (const auto& [key, unit] : state.groups().units()) {
    if (key.evaluation) {
      facts_.rounds[key.number] = unit.issued;
    } else {
      facts_.steps[StepRound{key.number, key.round}] = unit.issued;
    }
    state.groups().ForEach(key, [&](const TrajectoryId& id, const broker::Slot& slot) {
      facts_.issued.insert(id);
      if (slot.state == broker::Slot::State::kDropped) facts_.fate[id] = Fate::kDropped;
      if (!slot.arrived) return;
      facts_.from_base.insert(id);
      wire::SampleAccepted& accepted = facts_.accepted[id];
      accepted.id = id;
      accepted.content_hash = slot.content_hash;
      accepted.oldest_version = unit.issued.version;
      accepted.reward = slot.reward;
      accepted.loss_tokens = slot.loss_tokens;
      accepted.outcome = slot.outcome;
    });
  }
}

void JournalAudit::On(const wire::EpochStarted& r) {
  Expect(r.epoch.value == facts_.epoch + 1,
         "broker epoch " + Text(r.epoch.value) + " follows " + Text(facts_.epoch));
  facts_.epoch = r.epoch.value;
  Expect(r.run_id == run_id_, "broker start with run id " + r.run_id.ToString() +
                                  ", manifest.json has " + run_id_.ToString());
  if (r.run_identity.IsZero()) return;
  Expect(facts_.run_identity.IsZero() || facts_.run_identity == r.run_identity,
         "another run identity than the broker starts before it");
  facts_.run_identity = r.run_identity;
}

std::vector<TrajectoryId> JournalAudit::SamplesOf(const wire::ItemsIssued& r) {
  std::vector<TrajectoryId> ids;
  for (std::uint64_t i = 0; i < r.items; ++i) {
    for (std::uint32_t s = 0; s < r.samples; ++s) {
      ids.push_back({r.stream, r.island, r.first_item + i, s});
    }
  }
  return ids;
}

void JournalAudit::On(const wire::ItemsIssued& r) {
  const bool evaluation = r.stream == Stream::kEval;
  const std::string name =
      evaluation ? "evaluation round " + Text(r.round)
                 : "step " + Text(r.step) + (r.round > 0 ? ", round " + Text(r.round) : "");
  // What the plan has for this step or round; anything else is a problem.
  wire::ItemsIssued planned;
  if (evaluation && r.round < plan_.evals().size()) {
    const EvalRound& e = plan_.evals()[r.round];
    planned = {Stream::kEval,  0,       e.first_item, e.items, e.samples,
               e.version.step, e.round, e.version};
  } else if (!evaluation && r.step < plan_.total_steps()) {
    StepPlan s = plan_.Step(r.step);
    PolicyVersion version{0, s.phase == Phase::kRl ? s.step : 0};
    if (r.round < s.rounds) {
      planned = {s.stream, 0, s.FirstItem(r.round), s.items, s.samples, s.step, r.round, version};
    }
  }
  if (planned.items == 0 || r != planned) {
    Problem(name + ": items " + Text(r.first_item) + "+" + Text(r.items) + " of stream " +
            StreamName(r.stream) + " are not those of the plan");
    return;
  }
  if (evaluation) {
    Expect(facts_.rounds.emplace(r.round, r).second, name + " issued twice");
  } else {
    Expect(facts_.steps.emplace(StepRound{r.step, r.round}, r).second, name + " issued twice");
    if (r.round > 0) CheckRoundWasNeeded(r, name);
  }
  if (r.stream != Stream::kSupervised) {
    Expect(facts_.published.contains(r.version),
           name + " issued before version " + r.version.ToString() + " was published");
  }
  for (const TrajectoryId& id : SamplesOf(r)) facts_.issued.insert(id);
}

void JournalAudit::On(const wire::SampleAccepted& r) {
  const std::string name = r.id.ToString();
  Expect(facts_.issued.contains(r.id), name + " accepted but never issued");
  Expect(!IsDropped(r.id), name + " accepted after it was dropped");
  Expect(facts_.accepted.emplace(r.id, r).second, name + " accepted twice");
  facts_.nondeterministic += r.nondeterministic;
}

bool JournalAudit::IsDropped(const TrajectoryId& id) const {
  auto fate = facts_.fate.find(id);
  return fate != facts_.fate.end() && fate->second == Fate::kDropped;
}

void JournalAudit::Settle(const TrajectoryId& id, Fate fate) {
  auto [entry, fresh] = facts_.fate.emplace(id, fate);
  const std::string now = id.ToString() + " " + kFateNames[static_cast<int>(fate)];
  Expect(facts_.issued.contains(id), now + " but never issued");
  Expect(fresh, now + ", but was " + kFateNames[static_cast<int>(entry->second)] + " already");
}

const wire::ItemsIssued* JournalAudit::UnitOf(const TrajectoryId& id) const {
  const auto holds = [&](const wire::ItemsIssued& unit) {
    return unit.stream == id.stream && id.item >= unit.first_item &&
           id.item < unit.first_item + unit.items;
  };
  if (id.stream == Stream::kEval) {
    for (const auto& [number, unit] : facts_.rounds) {
      if (holds(unit)) return &unit;
    }
    return nullptr;
  }
  for (const auto& [key, unit] : facts_.steps) {
    if (holds(unit)) return &unit;
  }
  return nullptr;
}

std::vector<const wire::ItemsIssued*> JournalAudit::RoundsOf(std::uint32_t step) const {
  std::vector<const wire::ItemsIssued*> rounds;
  for (std::uint32_t round = 0;; ++round) {
    auto found = facts_.steps.find(StepRound{step, round});
    if (found == facts_.steps.end()) return rounds;
    rounds.push_back(&found->second);
  }
}

std::vector<TrajectoryId> JournalAudit::InformativeOf(std::uint32_t step) const {
  std::vector<TrajectoryId> first_samples;
  for (const wire::ItemsIssued* unit : RoundsOf(step)) {
    for (std::uint64_t i = 0; i < unit->items; ++i) {
      const TrajectoryId id{unit->stream, unit->island, unit->first_item + i, 0};
      if (GroupIsComplete(id, unit->samples) && !GroupIsEqual(id, unit->samples)) {
        first_samples.push_back(id);
      }
    }
  }
  return first_samples;
}

// Every group of the rounds before has its end, and too few of them can be trained.
void JournalAudit::CheckRoundWasNeeded(const wire::ItemsIssued& r, const std::string& name) {
  const auto before = facts_.steps.find(StepRound{r.step, r.round - 1});
  if (before == facts_.steps.end()) {
    Problem(name + " issued before the round before it");
    return;
  }
  for (const TrajectoryId& id : SamplesOf(before->second)) {
    Expect(facts_.accepted.contains(id) || IsDropped(id),
           name + " issued while " + id.ToString() + " was outstanding");
  }
  Expect(InformativeOf(r.step).size() < r.items, name + " issued though there were enough groups");
}

bool JournalAudit::IsSurplus(const TrajectoryId& id, const wire::ItemsIssued& unit) const {
  const std::vector<TrajectoryId> informative = InformativeOf(unit.step);
  for (std::size_t i = 0; i < informative.size(); ++i) {
    if (informative[i].item == id.item) return i >= unit.items;
  }
  return false;
}

bool JournalAudit::GroupIsComplete(const TrajectoryId& id, std::uint32_t samples) const {
  TrajectoryId member = id;
  for (member.sample = 0; member.sample < samples; ++member.sample) {
    if (!facts_.accepted.contains(member)) return false;
  }
  return true;
}

bool JournalAudit::GroupIsEqual(const TrajectoryId& id, std::uint32_t samples) const {
  if (!GroupIsComplete(id, samples)) return false;
  TrajectoryId first = id, member = id;
  first.sample = 0;
  double reward = facts_.accepted.at(first).reward;
  for (member.sample = 1; member.sample < samples; ++member.sample) {
    if (facts_.accepted.at(member).reward != reward) return false;
  }
  return true;
}

void JournalAudit::CheckDropReason(const wire::SampleDropped& r) {
  const std::string name = r.id.ToString() + " dropped as " + wire::DropReasonName(r.reason);
  const wire::ItemsIssued* unit = UnitOf(r.id);
  if (unit == nullptr) return;  // never issued: said elsewhere
  const bool accepted = facts_.accepted.contains(r.id);
  std::uint32_t number = r.id.stream == Stream::kEval ? unit->round : unit->step;
  Expect(r.step == number, name + " in step " + Text(r.step) + ", issued for " + Text(number));
  switch (r.reason) {
    case wire::DropReason::kZeroVariance:
      Expect(config_.rl.drop_zero_variance && r.id.stream == Stream::kTrain &&
                 GroupIsEqual(r.id, unit->samples),
             name + ", but the rewards of its group differ");
      return;
    case wire::DropReason::kSurplus:
      Expect(config_.rl.dynamic_sampling && accepted && IsSurplus(r.id, *unit),
             name + ", but it is one of the first groups that can be trained");
      return;
    case wire::DropReason::kNotSelected:
      Expect(accepted && !GroupIsComplete(r.id, unit->samples),
             name + ", but its group is complete");
      return;
    default:
      Expect(!accepted, name + " after it was accepted");
  }
}

void JournalAudit::On(const wire::SampleDropped& r) {
  Settle(r.id, Fate::kDropped);
  CheckDropReason(r);
}

Hash128 JournalAudit::DigestOf(const std::vector<TrajectoryId>& ids) {
  std::vector<wire::BatchEntry> entries;
  for (const TrajectoryId& id : ids) {
    auto found = facts_.accepted.find(id);
    if (found == facts_.accepted.end()) {
      Problem(id.ToString() + " is used but was never accepted");
      continue;
    }
    entries.push_back({id, found->second.content_hash});
  }
  return wire::HashBatch(entries);
}

void JournalAudit::On(const wire::BatchComposed& r) {
  const std::string name = "batch of step " + Text(r.step);
  Expect(facts_.batches.emplace(r.step, r).second, name + " composed twice");
  Expect(r.lineage == 0, name + " is of lineage " + Text(r.lineage));
  Expect(DigestOf(r.ids) == r.digest, name + ": digest does not match its samples");
  CheckBatchIds(r, name);
  CheckBatchIsComplete(r, name);
}

void JournalAudit::CheckBatchIds(const wire::BatchComposed& r, const std::string& name) {
  std::uint64_t loss_tokens = 0;
  for (std::size_t i = 0; i < r.ids.size(); ++i) {
    const std::string id = r.ids[i].ToString();
    Expect(i == 0 || r.ids[i - 1] < r.ids[i], name + ": " + id + " is out of order");
    Expect(!IsDropped(r.ids[i]), name + ": " + id + " was dropped");
    auto found = facts_.accepted.find(r.ids[i]);
    if (found != facts_.accepted.end()) loss_tokens += found->second.loss_tokens;
  }
  Expect(loss_tokens == r.loss_tokens, name + ": " + Text(r.loss_tokens) +
                                           " loss tokens recorded, its samples have " +
                                           Text(loss_tokens));
}

// Every sample issued for the step is in its batch or was dropped before.
void JournalAudit::CheckBatchIsComplete(const wire::BatchComposed& r, const std::string& name) {
  const std::vector<const wire::ItemsIssued*> rounds = RoundsOf(r.step);
  if (rounds.empty()) {
    Problem(name + " composed, but nothing was issued for it");
    return;
  }
  const std::set<TrajectoryId> inside(r.ids.begin(), r.ids.end());
  std::set<TrajectoryId> issued;
  for (const wire::ItemsIssued* unit : rounds) {
    const bool drops_equal = config_.rl.drop_zero_variance && unit->stream == Stream::kTrain;
    for (const TrajectoryId& id : SamplesOf(*unit)) {
      issued.insert(id);
      bool used = inside.contains(id);
      Expect(used || IsDropped(id), name + ": " + id.ToString() + " is neither used nor dropped");
      if (used && drops_equal && id.sample == 0) {
        Expect(!GroupIsEqual(id, unit->samples),
               name + ": the group of " + id.ToString() + " has no variance and is used");
      }
    }
  }
  const StepPlan step = plan_.Step(r.step);
  if (step.dynamic) CheckRoundsWereEnough(r, step, name);
  for (const TrajectoryId& id : r.ids) {
    Expect(issued.contains(id), name + ": " + id.ToString() + " was not issued for this step");
  }
}

// The batch is the first groups that can be trained, in issue order over complete rounds.
void JournalAudit::CheckRoundsWereEnough(const wire::BatchComposed& r, const StepPlan& step,
                                         const std::string& name) {
  std::vector<TrajectoryId> informative = InformativeOf(r.step);
  Expect(informative.size() >= step.items || RoundsOf(r.step).size() == step.rounds,
         name + " composed of " + Text(informative.size()) + " groups with rounds left");
  if (informative.size() > step.items) informative.resize(step.items);
  std::vector<TrajectoryId> used;
  for (const TrajectoryId& id : r.ids) {
    if (id.sample == 0) used.push_back(id);
  }
  Expect(used == informative, name + " is not the first groups that can be trained");
}

void JournalAudit::CheckRetrained(const wire::StepCommitted& r, const std::string& name) {
  ++facts_.retrained;
  const wire::StepCommitted& first = facts_.commits[r.step];
  Expect(r.retrained, name + " committed twice");
  Expect(first.state_hash == r.state_hash && first.chain == r.chain &&
             first.batch_digest == r.batch_digest,
         name + " retrained to other weights");
}

void JournalAudit::On(const wire::StepCommitted& r) {
  const std::string name = "step " + Text(r.step);
  auto batch = facts_.batches.find(r.step);
  if (batch == facts_.batches.end()) {
    Problem(name + " committed without a batch");
    return;
  }
  Expect(batch->second.digest == r.batch_digest, name + " trained another batch");
  Expect(r.lineage == batch->second.lineage, name + " is of lineage " + Text(r.lineage));
  Expect(r.trained_tokens == batch->second.loss_tokens, name + ": " + Text(r.trained_tokens) +
                                                            " tokens trained, its batch has " +
                                                            Text(batch->second.loss_tokens));
  Expect(r.mismatched_tokens <= r.audited_tokens && r.audited_tokens <= r.trained_tokens,
         name + ": more tokens audited than trained, or more mismatched than audited");
  if (r.step < facts_.commits.size()) {
    CheckRetrained(r, name);
    return;
  }
  if (r.step > facts_.commits.size()) {
    Problem(name + " committed, but step " + Text(facts_.commits.size()) + " never was");
    if (r.step >= plan_.total_steps()) return;
  }
  Expect(!r.retrained, name + " is marked as retrained at its first commit");
  Hash128 before = facts_.commits.empty() ? Hash128{} : facts_.commits.back().chain;
  Expect(r.chain == wire::HashChain(before, r.batch_digest),
         name + ": the chain of batches does not match");
  facts_.commits.resize(r.step);
  facts_.commits.push_back(r);
  facts_.audited_tokens += r.audited_tokens;
  facts_.mismatched_tokens += r.mismatched_tokens;
  for (const TrajectoryId& id : batch->second.ids) {
    Settle(id, Fate::kTrained);
    CheckStaleness(id, r.step);
  }
}

// P7 in mode sync: the weights that generated a token are those its gradient is taken at.
void JournalAudit::CheckStaleness(const TrajectoryId& id, std::uint32_t step) {
  auto accepted = facts_.accepted.find(id);
  if (id.stream != Stream::kTrain || accepted == facts_.accepted.end()) return;
  PolicyVersion oldest = accepted->second.oldest_version;
  Expect(oldest == PolicyVersion{0, step}, id.ToString() + " trained in step " + Text(step) +
                                               " was generated by version " + oldest.ToString() +
                                               "; mode sync allows staleness 0");
}

void JournalAudit::On(const wire::VersionPublished& r) {
  const std::string name = "version " + r.version.ToString();
  Expect(facts_.published.emplace(r.version, r).second, name + " published twice");
  Expect(r.version.lineage == 0 && plan_.IsPublished(r.version.step), name + " is not planned");
  Expect(r.version.step <= facts_.commits.size(),
         name + " published after " + Text(facts_.commits.size()) + " committed steps");
}

void JournalAudit::On(const wire::StepsDurable& r) {
  const std::string name = "checkpoint " + r.folder;
  if (r.step > facts_.commits.size()) {
    Problem(name + " contains steps that were not committed");
    return;
  }
  Hash128 expected = r.step == 0 ? Hash128{} : facts_.commits[r.step - 1].chain;
  Expect(r.chain == expected, name + ": its chain of batches does not match the journal's");
  Expect(r.lineage == 0, name + " is of lineage " + Text(r.lineage));
  // A learner that fell back to an older checkpoint may write the same one again.
  bool known = std::find(facts_.durable.begin(), facts_.durable.end(), r) != facts_.durable.end();
  Expect(!known || facts_.retrained > 0, name + " recorded twice");
  facts_.durable.push_back(r);
}

void JournalAudit::On(const wire::RoundEvaluated& r) {
  const std::string name = "evaluation round " + Text(r.round);
  auto issued = facts_.rounds.find(r.round);
  if (issued == facts_.rounds.end()) {
    Problem(name + " evaluated but never issued");
    return;
  }
  const wire::ItemsIssued& unit = issued->second;
  Expect(facts_.evaluated.insert(r.round).second, name + " evaluated twice");
  Expect(r.version == unit.version && r.items == unit.items && r.samples == unit.samples,
         name + " is not what was issued");
  std::vector<TrajectoryId> present;
  for (const TrajectoryId& id : SamplesOf(unit)) {
    if (IsDropped(id)) continue;
    present.push_back(id);
    Settle(id, Fate::kEvaluated);
  }
  Expect(DigestOf(present) == r.digest, name + ": digest does not match its samples");
}

void JournalAudit::On(const wire::RunFinished& r) {
  Expect(!facts_.finished, "the run finished twice");
  Expect(r.steps == facts_.commits.size(), "finished after " + Text(r.steps) + " steps, " +
                                               Text(facts_.commits.size()) + " are committed");
  facts_.finished = r;
}

void JournalAudit::CheckEnd() {
  if (!facts_.finished) return;
  const std::uint32_t total = plan_.total_steps();
  findings_.Expect(
      facts_.commits.size() == total,
      "the run finished after " + Text(facts_.commits.size()) + " of " + Text(total) + " steps");
  auto last = facts_.published.find({0, total});
  findings_.Expect(
      last != facts_.published.end() && last->second.hash == facts_.finished->final_weights,
      "the run finished with weights that are not version 0." + Text(total));
  for (std::uint32_t v = 0; v <= total; ++v) {
    findings_.Expect(
        v < facts_.first_step || !plan_.IsPublished(v) || facts_.published.contains({0, v}),
        "version 0." + Text(v) + " was never published");
  }
  for (const EvalRound& round : plan_.evals()) {
    findings_.Expect(facts_.evaluated.contains(round.round),
                     "evaluation round " + Text(round.round) + " was never evaluated");
  }
  for (const auto& [step, batch] : facts_.batches) {
    findings_.Expect(step < facts_.commits.size(),
                     "the batch of step " + Text(step) + " was never committed");
  }
  for (const TrajectoryId& id : facts_.issued) {
    findings_.Expect(facts_.fate.contains(id),
                     id.ToString() + " was issued and is unaccounted for at the end");
  }
}

}  // namespace thresher::launch
