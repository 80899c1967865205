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
  for (std::uint32_t i = 0; i < lease.samples; ++i) {
    TrajectoryId id{lease.stream, lease.island, lease.item, lease.first_sample + i};
    bool free = by_sample_.Insert(id, lease.fence).second;
    THRESHER_CHECK(free, "leased twice: " + id.ToString());
  }
  Holder& holder = holders_[actor];
  holder.held[IsEvaluation(lease)] += lease.samples;
  holder.fences.push_back(lease.fence);
  Entry& entry = leases_.Insert(lease.fence.value, {lease, actor, lease.samples, now, now, {}});
  entry.due = Deadline(entry);
  due_.emplace(entry.due, lease.fence);
  return lease;
}

std::size_t LeaseTable::Heartbeat(ActorId actor, const wire::Heartbeat& heartbeat, TimePoint now) {
  Holder& holder = holders_[actor];
  const bool first = !holder.engine;
  if (first) holder.engine.emplace();
  Engine& engine = *holder.engine;
  if (heartbeat.progress != engine.progress || engine.changed == TimePoint{}) engine.changed = now;
  engine.progress = heartbeat.progress;
  const Duration step = std::chrono::milliseconds(heartbeat.longest_step_ms);
  const bool stricter = first || step < engine.longest_step;
  engine.longest_step = step;
  std::size_t unknown = 0;
  for (FencingToken fence : heartbeat.held) {
    Entry* entry = Find(fence);
    if (entry == nullptr || entry->actor != actor) {
      ++unknown;
    } else {
      entry->renewed = now;
    }
  }
  if (stricter) {
    for (FencingToken fence : holder.fences) Reschedule(*Find(fence));
  }
  return unknown;
}

Status LeaseTable::Release(ActorId actor, FencingToken fence,
                           const std::vector<TrajectoryId>& samples) {
  Entry* entry = Find(fence);
  if (entry == nullptr) return NotFound("no lease " + std::to_string(fence.value));
  if (entry->actor != actor) {
    return PermissionDenied("lease " + std::to_string(fence.value) + " is another actor's");
  }
  if (samples.empty()) {
    Erase(*entry);
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
  return holder != nullptr && *holder == fence && Find(fence)->actor == actor;
}

void LeaseTable::Complete(const TrajectoryId& id) {
  const std::optional<FencingToken> holder = by_sample_.Take(id);
  if (!holder) return;
  Entry& entry = *Find(*holder);
  --holders_.at(entry.actor).held[IsEvaluation(entry.lease)];
  if (--entry.unfinished == 0) Remove(entry);
}

void LeaseTable::Erase(Entry& entry) {
  for (const TrajectoryId& id : UnfinishedOf(entry)) by_sample_.Erase(id);
  holders_.at(entry.actor).held[IsEvaluation(entry.lease)] -= entry.unfinished;
  ++freed_;
  Remove(entry);
}

void LeaseTable::Remove(Entry& entry) {
  const FencingToken fence = entry.lease.fence;
  std::vector<FencingToken>& fences = holders_.at(entry.actor).fences;
  fences.erase(std::ranges::lower_bound(fences, fence));
  leases_.Erase(fence.value);
}

LeaseTable::Entry* LeaseTable::Find(FencingToken fence) { return leases_.Find(fence.value); }

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

void LeaseTable::Reschedule(Entry& entry) {
  const TimePoint deadline = Deadline(entry);
  if (deadline >= entry.due) return;
  entry.due = deadline;
  due_.emplace(deadline, entry.lease.fence);
}

void LeaseTable::Forget(const GroupKey& group) {
  if (attempts_.erase(group) == 0) return;
  leases_.ForEach([&](std::uint64_t, Entry& entry) {
    if (GroupOf(entry.lease) == group) Reschedule(entry);
  });
}

std::size_t LeaseTable::ReleaseActor(ActorId actor) {
  auto holder = holders_.find(actor);
  if (holder == holders_.end()) return 0;
  std::size_t samples = 0;
  for (FencingToken fence : std::vector(holder->second.fences)) {
    Entry& entry = *Find(fence);
    samples += entry.unfinished;
    Erase(entry);
  }
  holders_.erase(holder);
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
  const std::optional<Engine>& engine = holders_.at(entry.actor).engine;
  if (!engine) return silent;
  return std::min(silent, std::max(entry.granted, engine->changed) + ProgressLimit(entry, *engine));
}

std::string LeaseTable::ExpiredBecause(const Entry& entry, TimePoint now) const {
  const Duration silent = now - entry.renewed;
  if (silent > SilenceLimit(entry)) return "silent for " + Milliseconds(silent);
  const Duration still = now - std::max(entry.granted, holders_.at(entry.actor).engine->changed);
  return "no progress for " + Milliseconds(still);
}

std::vector<LeaseTable::Expiry> LeaseTable::Expire(TimePoint now) {
  std::vector<FencingToken> fences;
  while (!due_.empty() && due_.top().first < now) {
    const auto [due, fence] = due_.top();
    due_.pop();
    Entry* entry = Find(fence);
    if (entry == nullptr || entry->due != due) continue;
    entry->due = Deadline(*entry);
    if (entry->due < now) {
      fences.push_back(fence);
    } else {
      due_.emplace(entry->due, fence);
    }
  }
  std::sort(fences.begin(), fences.end());
  fences.erase(std::unique(fences.begin(), fences.end()), fences.end());
  std::vector<Expiry> expired;
  for (FencingToken fence : fences) {
    const Entry& entry = *Find(fence);
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
    Erase(*Find(expiry.lease.fence));
  }
  return expired;
}

std::size_t LeaseTable::HeldBy(ActorId actor, bool evaluation) const {
  auto holder = holders_.find(actor);
  return holder == holders_.end() ? 0 : holder->second.held[evaluation];
}

}  // namespace thresher::broker
