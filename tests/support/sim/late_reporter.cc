#include "tests/support/sim/late_reporter.h"

#include <utility>

namespace thresher::sim {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTurn{50};
constexpr std::uint32_t kSamples = 2;  // asked for at once

template <typename Visit>
void ForEachSample(const wire::Lease& lease, Visit visit) {
  for (std::uint32_t s = 0; s < lease.samples; ++s) {
    visit(TrajectoryId{lease.stream, lease.island, lease.item, lease.first_sample + s});
  }
}

}  // namespace

void LateReporter::OnGrant(const Process& receiver, const wire::LeaseGrant& grant) {
  for (const wire::Lease& lease : grant.leases) {
    ForEachSample(lease, [&](const TrajectoryId& id) {
      if (&receiver == process) {
        held_[id] = lease.fence;
        return;
      }
      // Grants may arrive in another order than they were made in: fences tell.
      auto own = held_.find(id);
      if (own == held_.end() || lease.fence < own->second) return;
      lost_[id] = own->second;
      held_.erase(own);
    });
  }
}

int LateReporter::Run() {
  net::Inbox inbox;
  net::PeerLinkOptions options;
  options.run_folder = run_.folder;
  options.role = wire::PeerRole::kActor;
  options.run_id = run_.run_id;
  options.incarnation = NewIncarnation();
  wire::Hello hello;
  hello.role = wire::PeerRole::kActor;
  hello.index = index_;
  hello.name = "late-reporter";
  hello.identity = run_.identity;
  net::PeerLink link(
      options, [&] { return hello; }, [] { return wire::Heartbeat{}; },
      [&](wire::Message message) { inbox.Put(std::move(message)); },
      [&](Status failure) { inbox.Fail(std::move(failure)); });
  link.Start();
  while (!over_) {
    auto messages = inbox.TakeAll(kTurn);
    if (!messages.ok()) return 3;
    for (const wire::Message& message : *messages) Handle(message, link);
    const auto lost = std::exchange(lost_, {});
    for (const auto& [id, fence] : lost) {
      ++reports_;
      (void)link.Post(wire::SampleFailed{fence, id, "cancelled", "said too late"});
    }
  }
  return 0;
}

void LateReporter::Handle(const wire::Message& message, net::PeerLink& link) {
  if (std::holds_alternative<wire::Shutdown>(message)) over_ = true;
  const auto* grant = std::get_if<wire::LeaseGrant>(&message);
  const bool asks = grant != nullptr || std::holds_alternative<wire::Welcome>(message);
  if (grant != nullptr && !grant->leases.empty()) --leases_left_;
  if (!asks || leases_left_ <= 0) return;
  (void)link.Post(wire::LeaseRequest{++requests_, kSamples, false, {}});
}

}  // namespace thresher::sim
