#include "broker/run_state.h"

#include <algorithm>
#include <tuple>

namespace thresher::broker {
namespace {

// A sample solves its item when a grader scored it in full.
bool Solved(const Slot& slot) {
  return slot.arrived && slot.outcome == OutcomeKind::kScored && slot.reward >= 1.0;
}

bool IsTraining(Stream stream) { return stream == Stream::kTrain || stream == Stream::kSupervised; }

EvalResult Summarise(const GroupAssembler& groups, const EvalRound& round, const Unit& unit,
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
  if (issued_units_.contains(unit)) return AlreadyExists(unit.ToString() + " is issued twice");
  THRESHER_RETURN_IF_ERROR(groups_.Open(record));
  issued_units_[unit] = true;
  ledger_.Issue(record.stream, record.island, std::uint64_t{record.items} * record.samples);
  return Status::Ok();
}

Status RunState::ApplyRecord(const wire::SampleAccepted& record) {
  if (dedup_.Find(record.id)) return AlreadyExists(record.id.ToString() + " is accepted twice");
  THRESHER_RETURN_IF_ERROR(groups_.Accept(record));
  THRESHER_RETURN_IF_ERROR(ledger_.Accept(record.id.stream, record.id.island, 1));
  dedup_.Remember(record.id, record.content_hash, record.actor);
  if (record.nondeterministic) ++nondeterministic_;
  NoteInstance(record.id.stream, record.instance_hash);
  if (IsTraining(record.id.stream)) {
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
    } else {
      ++statistics.other_drops;
    }
  }
  return ledger_.Drop(record.id.stream, record.id.island, from, record.reason, 1);
}

Status RunState::ApplyRecord(const wire::BatchComposed& record) {
  if (batches_.contains(record.step)) {
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
  if (record.retrained) {
    const wire::StepCommitted* first = Commit(record.step);
    if (first == nullptr || first->state_hash != record.state_hash) {
      return FailedPrecondition("step " + std::to_string(record.step) +
                                " is retrained to another state");
    }
    ++retrained_steps_;
    return Status::Ok();
  }
  if (record.step != committed_steps()) {
    return FailedPrecondition("step " + std::to_string(record.step) + " is committed after " +
                              std::to_string(committed_steps()) + " steps");
  }
  for (const TrajectoryId& id : batch->ids) {
    THRESHER_RETURN_IF_ERROR(ledger_.Train(id.stream, id.island, 1));
  }
  trained_tokens_ += record.trained_tokens;
  commits_.push_back(record);
  return groups_.Close({false, record.step});
}

Status RunState::ApplyRecord(const wire::VersionPublished& record) {
  if (!published_.try_emplace(record.version, record).second) {
    return AlreadyExists("version " + record.version.ToString() + " is published twice");
  }
  return Status::Ok();
}

Status RunState::ApplyRecord(const wire::StepsDurable& record) {
  if (record.step > committed_steps()) {
    return FailedPrecondition("a checkpoint of " + std::to_string(record.step) + " steps when " +
                              std::to_string(committed_steps()) + " are committed");
  }
  durable_steps_ = std::max(durable_steps_, record.step);
  last_durable_ = record;
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
  evals_[record.round] = Summarise(groups_, *round, unit, digest);
  THRESHER_RETURN_IF_ERROR(
      ledger_.Evaluate(unit.issued.stream, unit.issued.island, evals_[record.round].arrived));
  return groups_.Close(key);
}

Status RunState::ApplyRecord(const wire::RunFinished& record) {
  if (record.steps != committed_steps()) {
    return FailedPrecondition("finished after another number of steps");
  }
  finished_ = true;
  return Status::Ok();
}

void RunState::NoteInstance(Stream stream, const Hash128& instance) {
  if (instance.IsZero()) return;
  std::uint8_t& uses = instances_[instance];
  bool was_both = uses == 3;
  if (IsTraining(stream)) uses |= 1;
  if (stream == Stream::kEval) uses |= 2;
  if (uses == 3 && !was_both) ++heldout_overlap_;
}

const wire::BatchComposed* RunState::Batch(std::uint32_t step) const {
  auto found = batches_.find(step);
  return found == batches_.end() ? nullptr : &found->second;
}

const wire::StepCommitted* RunState::Commit(std::uint32_t step) const {
  return step < commits_.size() ? &commits_[step] : nullptr;
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
  THRESHER_CHECK(step <= committed_steps(), "chain of a step that is not committed");
  return step == 0 ? Hash128{} : commits_[step - 1].chain;
}

const StepStatistics* RunState::Statistics(std::uint32_t step) const {
  auto found = statistics_.find(step);
  return found == statistics_.end() ? nullptr : &found->second;
}

bool operator==(const RunState& a, const RunState& b) {
  auto key = [](const RunState& s) {
    return std::tie(s.ledger_, s.groups_.groups(), s.dedup_, s.epoch_, s.issued_units_,
                    s.durable_steps_, s.finished_, s.evals_, s.statistics_, s.nondeterministic_,
                    s.trained_tokens_, s.audited_tokens_, s.mismatched_tokens_, s.retrained_steps_,
                    s.heldout_overlap_, s.max_staleness_, s.instances_);
  };
  auto same_batch = [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.digest == y.second.digest && x.second.ids == y.second.ids;
  };
  auto same_commit = [](const auto& x, const auto& y) {
    return x.step == y.step && x.chain == y.chain && x.state_hash == y.state_hash;
  };
  auto same_version = [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.hash == y.second.hash;
  };
  auto equal = [](const auto& x, const auto& y, auto same) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), same);
  };
  return key(a) == key(b) && equal(a.batches_, b.batches_, same_batch) &&
         equal(a.commits_, b.commits_, same_commit) &&
         equal(a.published_, b.published_, same_version);
}

Hash128 RoundDigest(const GroupAssembler& groups, std::uint32_t round) {
  std::vector<wire::BatchEntry> entries;
  groups.ForEach({true, round}, [&](const TrajectoryId& id, const Slot& slot) {
    if (slot.state == Slot::State::kAccepted) entries.push_back({id, slot.content_hash});
  });
  return wire::HashBatch(entries);
}

}  // namespace thresher::broker
