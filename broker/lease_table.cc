#include "broker/lease_table.h"

#include <algorithm>

namespace thresher::broker {
namespace {

constexpr int kEpochShift = 40;
constexpr int kMaxDoublings = 20;  // keeps the shifted limits far from overflow

GroupKey GroupOf(const wire::Lease& lease) { return {lease.stream, lease.island, lease.item}; }

bool IsEvaluation(const wire::Lease& lease) { return lease.stream == Stream::kEval; }

// Not beyond what can be added to a time.
Duration Doubled(Duration limit, int times) {
  constexpr Duration kLongest = std::chrono::hours(24 * 365 * 50);
  return limit > kLongest / (std::int64_t{1} << times) ? kLongest
                                                       : limit * (std::int64_t{1} << times);
}

std::string Milliseconds(Duration d) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(d).count()) + " ms";
}

}  // namespace

LeaseTable::LeaseTable(BrokerEpoch epoch, const LeaseLimits& limits)
    : limits_(limits), next_fence_((epoch.value << kEpochShift) + 1) {}

wire::Lease LeaseTable::Grant(ActorId actor, wire::Lease lease, TimePoint now) {
  lease.fence = FencingToken(next_fence_++);
  Entry entry{lease, actor, lease.samples, now, now, {}};
  for (std::uint32_t i = 0; i < lease.samples; ++i) {
    TrajectoryId id{lease.stream, lease.island, lease.item, lease.first_sample + i};
    bool free = by_sample_.Insert(id, lease.fence).second;
    THRESHER_CHECK(free, "leased twice: " + id.ToString());
  }
  held_[{actor, IsEvaluation(lease)}] += lease.samples;
  by_actor_[actor].insert(lease.fence);
  entry.due = Deadline(entry);
  due_.emplace(entry.due, lease.fence);
  leases_.emplace(lease.fence, std::move(entry));
  return lease;
}

std::size_t LeaseTable::Heartbeat(ActorId actor, const wire::Heartbeat& heartbeat, TimePoint now) {
  auto [known, first] = engines_.try_emplace(actor);
  Engine& engine = known->second;
  if (heartbeat.progress != engine.progress || engine.changed == TimePoint{}) engine.changed = now;
  engine.progress = heartbeat.progress;
  const Duration step = std::chrono::milliseconds(heartbeat.longest_step_ms);
  const bool stricter = first || step < engine.longest_step;
  engine.longest_step = step;
  std::size_t unknown = 0;
  for (FencingToken fence : heartbeat.held) {
    auto found = leases_.find(fence);
    if (found == leases_.end() || found->second.actor != actor) {
      ++unknown;
    } else {
      found->second.renewed = now;
    }
  }
  if (stricter && by_actor_.contains(actor)) {
    for (FencingToken fence : by_actor_[actor]) Reschedule(fence, leases_.at(fence));
  }
  return unknown;
}

Status LeaseTable::Release(ActorId actor, FencingToken fence,
                           const std::vector<TrajectoryId>& samples) {
  auto found = leases_.find(fence);
  if (found == leases_.end()) return NotFound("no lease " + std::to_string(fence.value));
  if (found->second.actor != actor) {
    return PermissionDenied("lease " + std::to_string(fence.value) + " is another actor's");
  }
  if (samples.empty()) {
    Erase(fence);
    return Status::Ok();
  }
  for (const TrajectoryId& id : samples) {
    const FencingToken* holder = by_sample_.Find(id);
    if (holder != nullptr && *holder == fence) Complete(id);  // the last one ends the lease
  }
  ++freed_;
  return Status::Ok();
}

bool LeaseTable::Holds(ActorId actor, FencingToken fence, const TrajectoryId& id) const {
  const FencingToken* holder = by_sample_.Find(id);
  return holder != nullptr && *holder == fence && leases_.at(fence).actor == actor;
}

void LeaseTable::Complete(const TrajectoryId& id) {
  const FencingToken* holder = by_sample_.Find(id);
  if (holder == nullptr) return;
  auto lease = leases_.find(*holder);
  by_sample_.Erase(id);
  Entry& entry = lease->second;
  --held_[{entry.actor, IsEvaluation(entry.lease)}];
  if (--entry.unfinished == 0) Remove(lease);
}

void LeaseTable::Erase(FencingToken fence) {
  auto lease = leases_.find(fence);
  const Entry& entry = lease->second;
  for (const TrajectoryId& id : UnfinishedOf(entry)) by_sample_.Erase(id);
  held_[{entry.actor, IsEvaluation(entry.lease)}] -= entry.unfinished;
  ++freed_;
  Remove(lease);
}

void LeaseTable::Remove(std::unordered_map<FencingToken, Entry>::iterator lease) {
  auto held = by_actor_.find(lease->second.actor);
  held->second.erase(lease->first);
  if (held->second.empty()) by_actor_.erase(held);
  leases_.erase(lease);
}

std::vector<TrajectoryId> LeaseTable::UnfinishedOf(const Entry& entry) const {
  const wire::Lease& lease = entry.lease;
  std::vector<TrajectoryId> unfinished;
  for (std::uint32_t i = 0; i < lease.samples; ++i) {
    const TrajectoryId id{lease.stream, lease.island, lease.item, lease.first_sample + i};
    const FencingToken* holder = by_sample_.Find(id);
    if (holder != nullptr && *holder == lease.fence) unfinished.push_back(id);
  }
  return unfinished;
}

void LeaseTable::Reschedule(FencingToken fence, Entry& entry) {
  const TimePoint deadline = Deadline(entry);
  if (deadline >= entry.due) return;
  entry.due = deadline;
  due_.emplace(deadline, fence);
}

void LeaseTable::Forget(const GroupKey& group) {
  if (attempts_.erase(group) == 0) return;
  for (auto& [fence, entry] : leases_) {
    if (GroupOf(entry.lease) == group) Reschedule(fence, entry);
  }
}

std::size_t LeaseTable::ReleaseActor(ActorId actor) {
  std::size_t samples = 0;
  if (auto held = by_actor_.find(actor); held != by_actor_.end()) {
    const std::set<FencingToken> fences = held->second;
    for (FencingToken fence : fences) {
      samples += leases_.at(fence).unfinished;
      Erase(fence);
    }
  }
  engines_.erase(actor);
  held_.erase({actor, false});
  held_.erase({actor, true});
  return samples;
}

int LeaseTable::DoublingsOf(const Entry& entry) const {
  auto attempts = attempts_.find(GroupOf(entry.lease));
  return attempts == attempts_.end() ? 0 : std::min(attempts->second, kMaxDoublings);
}

Duration LeaseTable::SilenceLimit(const Entry& entry) const {
  return Doubled(limits_.silence, DoublingsOf(entry));
}

Duration LeaseTable::ProgressLimit(const Entry& entry, const Engine& engine) const {
  return Doubled(std::max(limits_.min_progress, 10 * engine.longest_step), DoublingsOf(entry));
}

TimePoint LeaseTable::Deadline(const Entry& entry) const {
  const TimePoint silent = entry.renewed + SilenceLimit(entry);
  auto engine = engines_.find(entry.actor);
  if (engine == engines_.end()) return silent;
  return std::min(silent, std::max(entry.granted, engine->second.changed) +
                              ProgressLimit(entry, engine->second));
}

std::string LeaseTable::ExpiredBecause(const Entry& entry, TimePoint now) const {
  const Duration silent = now - entry.renewed;
  if (silent > SilenceLimit(entry)) return "silent for " + Milliseconds(silent);
  const Duration still = now - std::max(entry.granted, engines_.at(entry.actor).changed);
  return "no progress for " + Milliseconds(still);
}

std::vector<LeaseTable::Expiry> LeaseTable::Expire(TimePoint now) {
  std::vector<FencingToken> fences;
  while (!due_.empty() && due_.top().first < now) {
    const auto [due, fence] = due_.top();
    due_.pop();
    auto lease = leases_.find(fence);
    if (lease == leases_.end() || lease->second.due != due) continue;
    Entry& entry = lease->second;
    entry.due = Deadline(entry);
    if (entry.due < now) {
      fences.push_back(fence);
    } else {
      due_.emplace(entry.due, fence);
    }
  }
  std::sort(fences.begin(), fences.end());
  fences.erase(std::unique(fences.begin(), fences.end()), fences.end());
  std::vector<Expiry> expired;
  for (FencingToken fence : fences) {
    const Entry& entry = leases_.at(fence);
    expired.push_back(
        {entry.lease, entry.actor, UnfinishedOf(entry), 0, false, ExpiredBecause(entry, now)});
  }
  // One expiry of an item, however many of its leases end in this pass.
  std::map<GroupKey, int> counted;
  for (Expiry& expiry : expired) {
    GroupKey group = GroupOf(expiry.lease);
    if (!counted.contains(group)) counted[group] = ++attempts_[group];
    expiry.attempts = counted[group];
    expiry.give_up = expiry.attempts >= limits_.max_attempts;
    Erase(expiry.lease.fence);
  }
  return expired;
}

std::size_t LeaseTable::HeldBy(ActorId actor, bool evaluation) const {
  auto found = held_.find({actor, evaluation});
  return found == held_.end() ? 0 : found->second;
}

}  // namespace thresher::broker
