#include "broker/lease_table.h"

#include <algorithm>

namespace thresher::broker {
namespace {

constexpr int kEpochShift = 40;
constexpr int kMaxDoublings = 20;  // keeps the shifted limits far from overflow

GroupKey GroupOf(const wire::Lease& lease) { return {lease.stream, lease.island, lease.item}; }

bool IsEvaluation(const wire::Lease& lease) { return lease.stream == Stream::kEval; }

std::string Milliseconds(Duration d) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(d).count()) + " ms";
}

}  // namespace

LeaseTable::LeaseTable(BrokerEpoch epoch, const LeaseLimits& limits)
    : limits_(limits), next_fence_((epoch.value << kEpochShift) + 1) {}

wire::Lease LeaseTable::Grant(ActorId actor, wire::Lease lease, TimePoint now) {
  lease.fence = FencingToken(next_fence_++);
  Entry entry{lease, actor, {}, now, now};
  for (std::uint32_t i = 0; i < lease.samples; ++i) {
    TrajectoryId id{lease.stream, lease.island, lease.item, lease.first_sample + i};
    bool free = by_sample_.try_emplace(id, lease.fence).second;
    THRESHER_CHECK(free, "leased twice: " + id.ToString());
    entry.unfinished.insert(id);
  }
  held_[{actor, IsEvaluation(lease)}] += lease.samples;
  leases_.emplace(lease.fence, std::move(entry));
  return lease;
}

std::size_t LeaseTable::Heartbeat(ActorId actor, const wire::Heartbeat& heartbeat, TimePoint now) {
  Engine& engine = engines_[actor];
  if (heartbeat.progress != engine.progress || engine.changed == TimePoint{}) engine.changed = now;
  engine.progress = heartbeat.progress;
  engine.longest_step = std::chrono::milliseconds(heartbeat.longest_step_ms);
  std::size_t unknown = 0;
  for (FencingToken fence : heartbeat.held) {
    auto found = leases_.find(fence);
    if (found == leases_.end() || found->second.actor != actor) {
      ++unknown;
    } else {
      found->second.renewed = now;
    }
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
  const std::set<TrajectoryId> unfinished = found->second.unfinished;
  for (const TrajectoryId& id : samples) {
    if (unfinished.contains(id)) Complete(id);  // the last one ends the lease
  }
  return Status::Ok();
}

bool LeaseTable::Holds(ActorId actor, FencingToken fence, const TrajectoryId& id) const {
  auto found = leases_.find(fence);
  return found != leases_.end() && found->second.actor == actor &&
         found->second.unfinished.contains(id);
}

void LeaseTable::Complete(const TrajectoryId& id) {
  auto found = by_sample_.find(id);
  if (found == by_sample_.end()) return;
  FencingToken fence = found->second;
  by_sample_.erase(found);
  Entry& entry = leases_.at(fence);
  entry.unfinished.erase(id);
  --held_[{entry.actor, IsEvaluation(entry.lease)}];
  if (entry.unfinished.empty()) leases_.erase(fence);
}

void LeaseTable::Erase(FencingToken fence) {
  const Entry& entry = leases_.at(fence);
  for (const TrajectoryId& id : entry.unfinished) by_sample_.erase(id);
  held_[{entry.actor, IsEvaluation(entry.lease)}] -= entry.unfinished.size();
  leases_.erase(fence);
}

std::size_t LeaseTable::ReleaseActor(ActorId actor) {
  std::vector<FencingToken> fences;
  std::size_t samples = 0;
  for (const auto& [fence, entry] : leases_) {
    if (entry.actor != actor) continue;
    fences.push_back(fence);
    samples += entry.unfinished.size();
  }
  for (FencingToken fence : fences) Erase(fence);
  engines_.erase(actor);
  held_.erase({actor, false});
  held_.erase({actor, true});
  return samples;
}

std::string LeaseTable::ExpiredBecause(const Entry& entry, TimePoint now) const {
  auto attempts = attempts_.find(GroupOf(entry.lease));
  int doublings = attempts == attempts_.end() ? 0 : std::min(attempts->second, kMaxDoublings);
  Duration silent = now - entry.renewed;
  if (silent > limits_.silence * (std::int64_t{1} << doublings)) {
    return "silent for " + Milliseconds(silent);
  }
  auto engine = engines_.find(entry.actor);
  if (engine == engines_.end()) return "";
  Duration allowed = std::max(limits_.min_progress, 10 * engine->second.longest_step);
  Duration still = now - std::max(entry.granted, engine->second.changed);
  if (still > allowed * (std::int64_t{1} << doublings)) {
    return "no progress for " + Milliseconds(still);
  }
  return "";
}

std::vector<LeaseTable::Expiry> LeaseTable::Expire(TimePoint now) {
  std::vector<Expiry> expired;
  for (const auto& [fence, entry] : leases_) {
    std::string reason = ExpiredBecause(entry, now);
    if (reason.empty()) continue;
    expired.push_back({entry.lease,
                       entry.actor,
                       {entry.unfinished.begin(), entry.unfinished.end()},
                       0,
                       false,
                       std::move(reason)});
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
