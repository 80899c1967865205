#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "broker/admission.h"
#include "broker/best_checkpoints.h"
#include "broker/identities.h"
#include "broker/journal.h"
#include "broker/kept_uploads.h"
#include "broker/lease_table.h"
#include "broker/metrics.h"
#include "broker/metrics_log.h"
#include "broker/outbox.h"
#include "broker/outgoing.h"
#include "broker/partials.h"
#include "broker/payload_store.h"
#include "broker/peer_table.h"
#include "broker/run_files.h"
#include "broker/run_state.h"
#include "broker/token_tally.h"
#include "broker/weight_store.h"
#include "broker/work_source.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/config/broker_memory.h"
#include "common/config/config.h"

namespace thresher::broker {

// What the services of one broker share. All of it is owned by the loop's thread; services borrow
// it for their lifetime. A service returns an error Status only for what must stop the run.
struct BrokerContext {
  std::filesystem::path run;
  const Config& config;
  const Clock& clock;
  RunState state;
  LeaseTable leases;
  WorkSource work;
  PayloadStore payloads;
  WeightStore weights;
  std::unique_ptr<Journal> journal;
  EventLog events;
  MetricsLog metrics_log;
  std::unique_ptr<FaultPlan> faults;  // the journal points to it
  Identities identities;
  BrokerMemory memory;
  Admission admission;
  PeerTable peers{{.silence = std::chrono::milliseconds(config.broker.lease_silence_ms)}};
  Metrics metrics{};
  Outbox outbox{};
  Outgoing outgoing{memory.frames / 2};
  Partials partials{};  // where the journal keeps them
  TokenTally tally{};
  // With journal.mode off:
  KeptUploads kept{};
  // Accepted samples that may be asked for and whose bytes are neither here nor in the store:
  // actors send them again, or generate them again from `regenerate_from` on.
  std::set<TrajectoryId> lost{};
  TimePoint regenerate_from{};
  // The newest published version whose record is written: what peers may know of.
  std::optional<PolicyVersion> visible_version{};
  std::string paused{};   // why nothing can be written now; empty: all is well
  bool draining = false;  // asked to stop: no new work is handed out

  Duration deaf{};  // time in which the loop's thread was held up: nobody could be heard

  // An answer with a payload, which is on its way from now on.
  void SendLarge(const net::PeerAddress& peer, wire::Message message) {
    outgoing.Queue(peer, PayloadBytes(message));
    outbox.Send(peer, std::move(message));
  }

  TimePoint Now() const { return clock.Now(); }
  // By which silence is judged: it stands still while nobody can be heard.
  TimePoint ListeningTime() const { return Now() - deaf; }
  // Actors heard of within the lease's silence limit.
  bool Alive(const Peer& peer) const {
    return ListeningTime() - peer.last_seen <=
           std::chrono::milliseconds(config.broker.lease_silence_ms);
  }
  // Counted anew when an actor said something new of itself, and now and then: one falls silent.
  // Many are counted less often, so that the counting stays a small part of the work.
  const LiveActors& Live() {
    const auto patience = live_changed ? Duration::zero() : Duration(std::chrono::milliseconds(20));
    const TimePoint now = Now();
    if (now < live_counted + patience + live.count * kCountPatience) return live;
    std::vector<ActorView> actors;
    for (const Peer* peer : peers.WithRole(wire::PeerRole::kActor)) {
      if (!Alive(*peer)) continue;
      actors.push_back({ActorId(peer->index), peer->has_weights, peer->weights, peer->capacity});
    }
    live = LiveActors(actors);
    live_counted = now;
    live_changed = false;
    return live;
  }
  void CountActorsAnew() { live_changed = true; }
  // Whose checkpoints the learner must not delete now.
  std::vector<std::uint32_t> CheckpointsToKeep() const {
    return BestCheckpoints(state.plan(), state.committed_steps(), state.evals(),
                           config.checkpoint.keep_best);
  }
  // What is kept of an unfinished sample cannot be read: it is generated anew.
  void LosePartial(const TrajectoryId& id, const Status& why) {
    metrics.Count("partials_lost");
    events.Add(EventLevel::kWarning, "partial_lost", why.ToString());
    partials.Drop(id);
  }
  // An actor whose main loop speaks takes part (again).
  void Join(const Peer& peer) {
    const ActorId actor(peer.index);
    if (!admission.Joined(actor)) admission.Join(actor);
    admission.Resume(actor);
  }

  static constexpr std::chrono::microseconds kCountPatience{20};  // for each of them
  LiveActors live{};
  TimePoint live_counted{};
  bool live_changed = true;
};

}  // namespace thresher::broker
