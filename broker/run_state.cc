#include "broker/run_state.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace thresher::broker {
namespace {

bool IsTraining(Stream stream) { return stream == Stream::kTrain || stream == Stream::kSupervised; }

EvalResult ResultOf(const GroupAssembler& groups, const EvalRound& round, const Unit& unit,
                    const Hash128& digest) {
  EvalResult result;
  result.round = round;
  result.digest = digest;
  result.solved.resize(unit.issued.items);
  double reward_sum = 0;
  groups.ForEach({true, round.round}, [&](const TrajectoryId& id, const Slot& slot) {
    if (Solved(slot)) ++result.solved[id.item - unit.issued.first_item];
    if (!slot.arrived) return;
    ++result.arrived;
    reward_sum += slot.reward;
  });
  if (result.arrived > 0) result.mean_reward = reward_sum / static_cast<double>(result.arrived);
  return result;
}

}  // namespace

Status RunState::Apply(const wire::JournalRecord& record) {
  Status status = std::visit([this](const auto& r) { return ApplyRecord(r); }, record);
  return status.ok() ? status : status.WithContext(wire::JournalRecordName(record));
}

Status RunState::ApplyRecord(const wire::EpochStarted& record) {
  if (record.epoch <= epoch_) {
    return FailedPrecondition("epoch " + std::to_string(record.epoch.value) + " after epoch " +
                              std::to_string(epoch_.value));
  }
  epoch_ = record.epoch;
  return Status::Ok();
}

Status RunState::ApplyRecord(const wire::ItemsIssued& record) {
  UnitKey unit = UnitOf(record);
  if (!IsPlanned(record)) {
    return NotFound(unit.ToString() + ": items " + std::to_string(record.first_item) + "+" +
                    std::to_string(record.items) + " of stream " + StreamName(record.stream) +
                    " are not in the plan");
  }
  if (unit.round == 0 && IssuedUnit(unit)) {
    return AlreadyExists(unit.ToString() + " is issued twice");
  }
  const bool follows = groups_.Complete({false, unit.number, unit.round - 1});
  if (unit.round > 0 && (!follows || Batch(unit.number) != nullptr)) {
    return FailedPrecondition(unit.ToString() + " is issued out of turn");
  }
  for (std::uint64_t item : {record.first_item, record.first_item + record.items - 1}) {
    if (record.items > 0 && dedup_.Forgotten({record.stream, record.island, item, 0})) {
      return AlreadyExists(unit.ToString() + ": item " + std::to_string(item) + " is used again");
    }
  }
  THRESHER_RETURN_IF_ERROR(groups_.Open(record));
  issued_[unit.evaluation].Insert(unit.number, std::uint64_t{unit.number} + 1);
  if (!unit.evaluation) ++statistics_[unit.number].rounds;
  ledger_.Issue(record.stream, record.island, std::uint64_t{record.items} * record.samples);
  return Status::Ok();
}

Status RunState::ApplyRecord(const wire::SampleAccepted& record) {
  if (dedup_.Find(record.id)) return AlreadyExists(record.id.ToString() + " is accepted twice");
  THRESHER_RETURN_IF_ERROR(groups_.Accept(record));
  THRESHER_RETURN_IF_ERROR(ledger_.Accept(record.id.stream, record.id.island, 1));
  dedup_.Remember(record.id, record.content_hash, record.actor);
  if (record.nondeterministic) ++nondeterministic_;
  if (record.id.stream == Stream::kEval) heldout_.Evaluated(record.instance_hash);
  if (IsTraining(record.id.stream)) {
    heldout_.Trained(record.instance_hash);
    std::uint32_t step = groups_.FindGroup(GroupOf(record.id))->unit.number;
    if (record.id.stream == Stream::kTrain && step > record.oldest_version.step) {
      max_staleness_ = std::max(max_staleness_, step - record.oldest_version.step);
    }
    StepStatistics& statistics = statistics_[step];
    ++statistics.accepted;
    statistics.reward_sum += record.reward;
    statistics.loss_tokens += record.loss_tokens;
    ++statistics.outcomes[std::min<int>(static_cast<int>(record.outcome), 4)];
  }
  return Status::Ok();
}

Status RunState::ApplyRecord(const wire::SampleDropped& record) {
  THRESHER_ASSIGN_OR_RETURN(Place from, groups_.Drop(record.id));
  if (IsTraining(record.id.stream)) {
    StepStatistics& statistics = statistics_[groups_.FindGroup(GroupOf(record.id))->unit.number];
    if (record.reason == wire::DropReason::kZeroVariance) {
      ++statistics.zero_variance;
    } else if (record.reason == wire::DropReason::kNotSelected) {
      ++statistics.not_selected;
    } else if (record.reason == wire::DropReason::kSurplus) {
      ++statistics.surplus;
    } else {
      ++statistics.other_drops;
    }
  }
  return ledger_.Drop(record.id.stream, record.id.island, from, record.reason, 1);
}

Status RunState::ApplyRecord(const wire::BatchComposed& record) {
  if (record.step < committed_steps_ || batches_.contains(record.step)) {
    return AlreadyExists("batch " + std::to_string(record.step) + " is composed twice");
  }
  for (const TrajectoryId& id : record.ids) {
    THRESHER_RETURN_IF_ERROR(groups_.Batch(id));
    THRESHER_RETURN_IF_ERROR(ledger_.Batch(id.stream, id.island, 1));
  }
  batches_[record.step] = record;
  return Status::Ok();
}

Status RunState::ApplyRecord(const wire::StepCommitted& record) {
  const wire::BatchComposed* batch = Batch(record.step);
  if (batch == nullptr || batch->digest != record.batch_digest) {
    return FailedPrecondition("step " + std::to_string(record.step) +
                              " is committed on another batch than the one composed");
  }
  audited_tokens_ += record.audited_tokens;
  mismatched_tokens_ += record.mismatched_tokens;
  if (record.retrained) return ApplyRetrained(record);
  if (record.step != committed_steps_) {
    return FailedPrecondition("step " + std::to_string(record.step) + " is committed after " +
                              std::to_string(committed_steps_) + " steps");
  }
  for (const TrajectoryId& id : batch->ids) {
    THRESHER_RETURN_IF_ERROR(ledger_.Train(id.stream, id.island, 1));
  }
  trained_tokens_ += record.trained_tokens;
  commits_[record.step] = record;
  committed_steps_ = record.step + 1;
  statistics_.erase(statistics_.begin(), statistics_.lower_bound(record.step));
  std::uint32_t round = 0;
  do {
    THRESHER_RETURN_IF_ERROR(Close({false, record.step, round}));
  } while (groups_.FindUnit({false, record.step, ++round}) != nullptr);
  return Status::Ok();
}

Status RunState::ApplyRetrained(const wire::StepCommitted& record) {
  const wire::StepCommitted* first = Commit(record.step);
  if (first == nullptr || first->state_hash != record.state_hash) {
    return FailedPrecondition("step " + std::to_string(record.step) +
                              " is retrained to another state");
  }
  ++retrained_steps_;
  return Status::Ok();
}

Status RunState::ApplyRecord(const wire::VersionPublished& record) {
  const bool old = !published_.empty() && record.version < published_.begin()->first;
  if (old || !published_.try_emplace(record.version, record).second) {
    return AlreadyExists("version " + record.version.ToString() + " is published twice");
  }
  ++published_versions_;
  return Status::Ok();
}

Status RunState::ApplyRecord(const wire::StepsDurable& record) {
  if (record.step > committed_steps_) {
    return FailedPrecondition("a checkpoint of " + std::to_string(record.step) + " steps when " +
                              std::to_string(committed_steps_) + " are committed");
  }
  last_durable_ = record;
  if (record.step <= durable_steps_) return Status::Ok();
  Forget(durable_steps_);
  durable_steps_ = record.step;
  return Status::Ok();
}

Status RunState::ApplyRecord(const wire::RoundEvaluated& record) {
  UnitKey key{true, record.round};
  if (!groups_.Complete(key)) return FailedPrecondition(key.ToString() + " is not complete");
  const Unit unit = *groups_.FindUnit(key);
  Hash128 digest = RoundDigest(groups_, record.round);
  if (digest != record.digest) return FailedPrecondition(key.ToString() + ": another digest");
  auto round = std::find_if(plan_.evals().begin(), plan_.evals().end(),
                            [&](const EvalRound& r) { return r.round == record.round; });
  if (round == plan_.evals().end()) return NotFound(key.ToString() + " is not in the plan");
  const EvalSummary& summary = evals_[record.round] =
      Summarise(ResultOf(groups_, *round, unit, digest));
  THRESHER_RETURN_IF_ERROR(
      ledger_.Evaluate(unit.issued.stream, unit.issued.island, summary.arrived));
  return Close(key);
}

Status RunState::Close(const UnitKey& unit) {
  const Unit* open = groups_.FindUnit(unit);
  if (open == nullptr) return NotFound(unit.ToString() + " is not open");
  settled_[unit] = open->issued;
  return groups_.Close(unit);
}

void RunState::Forget(std::uint32_t step) {
  remembered_from_ = step;
  std::erase_if(settled_, [&](const auto& entry) {
    if (!entry.first.evaluation && entry.first.number >= step) return false;
    const wire::ItemsIssued& issued = entry.second;
    dedup_.Forget(issued.stream, issued.island, issued.first_item, issued.items);
    if (!entry.first.evaluation) SkipUnusedRounds(issued);
    return true;
  });
  batches_.erase(batches_.begin(), batches_.lower_bound(step));
  // The one before the first that may be trained again holds the chain and the state it begins
  // with.
  commits_.erase(commits_.begin(), commits_.lower_bound(step == 0 ? 0 : step - 1));
  ForgetVersions();
}

// So that what is kept of items has no gap for each step of dynamic sampling.
void RunState::SkipUnusedRounds(const wire::ItemsIssued& issued) {
  const StepPlan step = plan_.Step(issued.step);
  dedup_.Skip(issued.stream, issued.island, step.first_item, step.FirstItem(step.rounds));
}

void RunState::ForgetVersions() {
  std::set<PolicyVersion> needed;
  for (const auto& [key, unit] : groups_.units()) needed.insert(unit.issued.version);
  for (const EvalRound& round : plan_.evals()) {
    if (!Evaluated(round.round)) needed.insert(round.version);
  }
  const std::optional<PolicyVersion> newest = NewestPublished();
  std::erase_if(published_, [&](const auto& entry) {
    return entry.first.step < remembered_from_ && entry.first != newest &&
           !needed.contains(entry.first);
  });
}

Status RunState::ApplyRecord(const wire::RunFinished& record) {
  if (record.steps != committed_steps()) {
    return FailedPrecondition("finished after another number of steps");
  }
  finished_ = true;
  return Status::Ok();
}

std::optional<wire::ItemsIssued> RunState::Planned(const UnitKey& unit) const {
  if (unit.evaluation) {
    if (unit.number >= plan_.evals().size() || unit.round > 0) return std::nullopt;
    const EvalRound& round = plan_.evals()[unit.number];
    return wire::ItemsIssued{
        Stream::kEval,      0,           round.first_item, round.items, round.samples,
        round.version.step, round.round, round.version};
  }
  if (unit.number >= plan_.total_steps()) return std::nullopt;
  const StepPlan step = plan_.Step(unit.number);
  if (unit.round >= step.rounds) return std::nullopt;
  const std::uint32_t version = step.phase == Phase::kRl ? step.step : 0;
  return wire::ItemsIssued{
      step.stream, 0,          step.FirstItem(unit.round), step.items, step.samples,
      step.step,   unit.round, {lineage(), version}};
}

bool RunState::IsPlanned(const wire::ItemsIssued& issued) const {
  std::optional<wire::ItemsIssued> planned = Planned(UnitOf(issued));
  if (!planned) return false;
  planned->version = issued.version;
  return *planned == issued;
}

const wire::BatchComposed* RunState::Batch(std::uint32_t step) const {
  auto found = batches_.find(step);
  return found == batches_.end() ? nullptr : &found->second;
}

const wire::StepCommitted* RunState::Commit(std::uint32_t step) const {
  auto found = commits_.find(step);
  return found == commits_.end() ? nullptr : &found->second;
}

const wire::VersionPublished* RunState::Published(PolicyVersion version) const {
  auto found = published_.find(version);
  return found == published_.end() ? nullptr : &found->second;
}

std::optional<PolicyVersion> RunState::NewestPublished() const {
  if (published_.empty()) return std::nullopt;
  return published_.rbegin()->first;
}

Hash128 RunState::ChainBefore(std::uint32_t step) const {
  THRESHER_CHECK(step >= remembered_from_ && step <= committed_steps_,
                 "chain before step " + std::to_string(step));
  return step == 0 ? Hash128{} : commits_.at(step - 1).chain;
}

const StepStatistics* RunState::Statistics(std::uint32_t step) const {
  auto found = statistics_.find(step);
  return found == statistics_.end() ? nullptr : &found->second;
}

bool operator==(const RunState& a, const RunState& b) {
  auto key = [](const RunState& s) {
    return std::tie(s.ledger_, s.groups_, s.dedup_, s.epoch_, s.issued_, s.settled_, s.batches_,
                    s.commits_, s.published_, s.evals_, s.statistics_, s.last_durable_,
                    s.committed_steps_, s.durable_steps_, s.remembered_from_, s.finished_,
                    s.published_versions_, s.nondeterministic_, s.trained_tokens_,
                    s.audited_tokens_, s.mismatched_tokens_, s.retrained_steps_, s.max_staleness_,
                    s.heldout_);
  };
  return key(a) == key(b);
}

Hash128 RoundDigest(const GroupAssembler& groups, std::uint32_t round) {
  std::vector<wire::BatchEntry> entries;
  groups.ForEach({true, round}, [&](const TrajectoryId& id, const Slot& slot) {
    if (slot.state == Slot::State::kAccepted) entries.push_back({id, slot.content_hash});
  });
  return wire::HashBatch(entries);
}

}  // namespace thresher::broker
