#include "tests/support/sim/lease_watch.h"

#include <algorithm>

#include "tests/support/sim/frames.h"

namespace thresher::sim {

using std::chrono::milliseconds;

namespace {

std::string Seconds(TimePoint time) {
  return std::to_string(std::chrono::duration<double>(time.time_since_epoch()).count());
}

}  // namespace

LeaseWatch::LeaseWatch(const Config& config)
    : silence_(milliseconds(config.broker.lease_silence_ms)),
      standstill_(milliseconds(config.broker.lease_min_progress_ms)) {}

void LeaseWatch::OnBrokerStarts() {
  held_.clear();
  renewed_.clear();
  lapsed_.clear();
  requests_.clear();
  forgotten_.clear();
}

void LeaseWatch::OnReceived(const std::string& peer, const std::string& bytes, TimePoint now) {
  if (auto request = Read<wire::LeaseRequest>(bytes)) {
    // A copy of a request does not make it younger.
    const Incarnation asker = SenderOf(bytes).value();
    Request& asked = requests_[{peer, request->request}];
    if (asked.asker != asker) asked = {asker, now};
  } else if (auto beat = Read<wire::Heartbeat>(bytes)) {
    for (FencingToken fence : beat->held) Renew(fence, now);
  } else if (auto release = Read<wire::LeaseRelease>(bytes)) {
    Release(peer, *release);
  } else if (Carries<wire::Hello>(bytes) || Carries<wire::Goodbye>(bytes)) {
    Forget(peer);
    forgotten_[peer] = now;
  }
}

// Whoever was silent for too long may have lost the lease before it was heard again.
void LeaseWatch::Renew(FencingToken fence, TimePoint now) {
  auto held = std::ranges::find(held_, fence, [](const auto& entry) { return entry.second.fence; });
  if (held != held_.end() && MayHaveEnded(held->second, now)) lapsed_.insert(fence);
  renewed_[fence] = now;
}

void LeaseWatch::OnSent(const std::string& peer, const std::string& bytes, TimePoint now) {
  auto grant = Read<wire::LeaseGrant>(bytes);
  if (!grant) return;
  // It was made when the request came or later; it may have waited for the journal since.
  auto request = requests_.find({peer, grant->request});
  const TimePoint since = request == requests_.end() ? TimePoint{} : request->second.at;
  for (const wire::Lease& lease : grant->leases) Grant(peer, lease, since, now);
}

void LeaseWatch::Grant(const std::string& actor, const wire::Lease& lease, TimePoint since,
                       TimePoint now) {
  for (std::uint32_t i = 0; i < lease.samples; ++i) {
    const TrajectoryId id{lease.stream, lease.island, lease.item, lease.first_sample + i};
    auto old = held_.find(id);
    if (old != held_.end() && !MayHaveEnded(old->second, now)) {
      problems_ += Seconds(now) + " s: " + id.ToString() + " was leased to " + actor + " while " +
                   old->second.actor + " had it under fence " +
                   std::to_string(old->second.fence.value) + " since " +
                   Seconds(old->second.since) + " s\n";
    }
    // A grant that waited for the journal may be sent when its lease is over.
    if (forgotten_.contains(actor) && forgotten_[actor] >= since) {
      held_.erase(id);
    } else {
      held_[id] = {actor, lease.fence, since};
    }
  }
}

bool LeaseWatch::MayHaveEnded(const Held& held, TimePoint now) const {
  if (lapsed_.contains(held.fence)) return true;
  auto renewed = renewed_.find(held.fence);
  const TimePoint heard =
      renewed == renewed_.end() ? held.since : std::max(held.since, renewed->second);
  return now - heard > silence_ || now - held.since > standstill_;
}

void LeaseWatch::Forget(const std::string& actor) {
  std::erase_if(held_, [&](const auto& entry) { return entry.second.actor == actor; });
}

void LeaseWatch::Release(const std::string& actor, const wire::LeaseRelease& release) {
  std::erase_if(held_, [&](const auto& entry) {
    const auto& [id, held] = entry;
    if (held.actor != actor || held.fence != release.fence) return false;
    return release.unfinished.empty() ||
           std::ranges::find(release.unfinished, id) != release.unfinished.end();
  });
}

}  // namespace thresher::sim
