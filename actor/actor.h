#pragma once

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "actor/engine/engine.h"
#include "actor/outbox.h"
#include "actor/rollout.h"
#include "actor/weight_receiver.h"
#include "common/base/fault.h"
#include "common/model/run_context.h"
#include "common/net/inbox.h"
#include "common/net/peer_link.h"
#include "common/sync/device_turn.h"
#include "common/sync/worker_pool.h"

namespace thresher::actor {

struct ActorOptions {
  std::uint32_t index = 0;  // slot
  std::string endpoint;     // empty: the run's rendezvous
  std::chrono::milliseconds patience{120000};
};

// What a run's configuration asks of its engines.
EngineOptions EngineOptionsOf(const Config& config);

// One actor process: takes leases, generates or writes references, grades, uploads, swaps weights.
// Two threads: the link's (socket, heartbeats) and the caller of Run, which owns everything else
// and alternates between messages and engine steps.
//
// Weights are swapped only between leases: nothing that is pinned to a version runs then.
class Actor {
 public:
  // engine: of the run's model, without weights. turn: of its device, if a learner shares it; else
  // null.
  Actor(const model::RunContext& run, const ActorOptions& options, FaultPlan faults, Engine engine,
        std::unique_ptr<DeviceTurn> turn = nullptr);
  ~Actor();

  // Runs until the broker says Shutdown (ok), RequestStop (kCancelled, after handing back what is
  // not finished), or the link is over (its status).
  Status Run();
  // Async-signal-safe apart from the wake-up, which the next poll makes good.
  void RequestStop() { stop_requested_ = true; }

 private:
  struct HeldLease {
    wire::Lease lease;
    std::uint32_t open_samples = 0;  // not yet handed to the outbox
  };
  struct OpenSample {
    FencingToken fence;
    SampleSpec spec;
    std::uint32_t prompt = 0;  // and the rest: tokens
    std::uint32_t drawn = 0;   // here or elsewhere
    std::uint32_t sent = 0;    // of these in a prefix that was sent
    std::uint32_t saved = 0;   // in one that the broker has
    bool refused = false;      // the last one was
    std::uint32_t Unsaved() const { return drawn - std::min(drawn, saved); }
  };

  wire::Hello MakeHello() const;
  wire::Heartbeat MakeHeartbeat();
  // Handles what has arrived; waits up to `wait` for something when there is nothing.
  Status PumpMessages(std::chrono::milliseconds wait);
  void Handle(wire::Message& message);
  void OnWelcome(const wire::Welcome& welcome);
  void OnGrant(const wire::LeaseGrant& grant);
  void OnManifest(const wire::WeightsManifest& manifest);
  // Of the prefixes that came with a grant those that can be read.
  void KeepPrefixes(const std::vector<SharedBytes>& prefixes);
  void StartLease(const wire::Lease& lease);
  void Submit(OpenSample& sample);
  void NoteDrawn();
  // What there is of the sample goes to the broker.
  void SendPrefix(const TrajectoryId& id, OpenSample& sample);
  void OnPrefix(const TrajectoryId& id, std::uint32_t tokens, bool kept);
  std::uint64_t UnsavedTokens() const;
  std::uint64_t LostTokens() const { return lost_tokens_ + outbox_.duplicate_tokens(); }
  // Before it stops: what the broker has not of what is open, and its answers, for a while.
  void HandOver();
  // What is open is given up.
  void CountLost();
  void SayGoodbye(const std::string& reason);
  void FinishSample(const TrajectoryId& id, const Trajectory& record);
  void FailSample(const TrajectoryId& id, const std::string& reason, const std::string& detail);
  void CloseSample(FencingToken fence, const TrajectoryId& id);
  // One sample fewer is open under this lease; the last one ends it.
  void CountDown(FencingToken fence);
  // One unit of work: some reference traces, or one engine step.
  Status Work();
  Status WriteReferences();
  // Whether the engine may step: the device is this actor's, or nobody's else. False: it is waited
  // for. Error: kDeadlineExceeded.
  Result<bool> HasTurn();
  // Gives the device to a learner that asks for it. The engine has nothing to do.
  Status OfferTurn();
  const wire::WeightsManifest* WantedWeights(TimePoint now);
  Status ConsiderSwap();
  Status InstallWeights(std::string blob, const wire::WeightsManifest& manifest);
  // The planted fault `ulp@version=N`: from version N on, one weight is one ulp off.
  void MoveOneWeight(PolicyVersion version, std::vector<float>& flat);
  void AskForWork(TimePoint now);
  void ReleaseAll(const std::string& reason);
  void UpdateHeartbeat();
  void Post(const wire::Message& message);
  void PostUpload(const wire::Message& upload);

  const model::RunContext& run_;
  ActorOptions options_;
  FaultPlan faults_;
  Incarnation incarnation_;
  Hash128 identity_hash_;
  std::unique_ptr<Rollout> rollout_;
  Engine engine_;
  WeightReceiver receiver_;
  Outbox outbox_;

  std::unordered_map<FencingToken, HeldLease> leases_;
  std::unordered_map<TrajectoryId, OpenSample> open_;
  std::deque<TrajectoryId> references_;          // supervised samples to write
  std::optional<wire::WeightsManifest> newest_;  // announced, perhaps not held yet
  std::deque<wire::Lease> parked_;               // pinned to a version that is not loaded
  std::optional<wire::WeightsManifest> parked_manifest_;
  TimePoint manifest_not_before_{};
  Hash128 held_hash_;
  std::uint64_t next_request_ = 1;
  std::optional<std::uint64_t> outstanding_request_;
  TimePoint request_sent_{}, request_not_before_{};
  std::unique_ptr<DeviceTurn> turn_;     // null: the device is not shared
  std::optional<TimePoint> turn_asked_;  // since when the engine has waited for it
  std::uint64_t turn_waits_ = 0;
  std::uint64_t credit_waits_ = 0;
  std::uint32_t partial_interval_;  // 0: nothing is sent of what is not finished
  std::unordered_map<TrajectoryId, Trajectory> prefixes_;  // of leases that are not started
  std::uint64_t prefixes_sent_ = 0, prefixes_kept_ = 0, prefixes_refused_ = 0;
  std::uint64_t prefixes_continued_ = 0, prefixes_unusable_ = 0, tokens_continued_ = 0;
  std::uint64_t lost_tokens_ = 0;  // drawn and given up
  bool hand_over_ = false;         // the broker stops in good order
  bool leaving_ = false;           // what is granted now goes back with the Goodbye
  bool finished_ = false;          // the broker said Shutdown
  bool one_ulp_off_ = false;       // a planted fault
  std::uint64_t references_written_ = 0, swaps_ = 0, refused_ = 0, uploads_seen_ = 0;
  std::atomic<bool> stop_requested_{false};

  net::Inbox inbox_;
  mutable std::mutex mutex_;  // guards what the heartbeats carry
  wire::Heartbeat heartbeat_;
  std::unique_ptr<net::PeerLink> link_;  // last: its thread uses the members above
};

}  // namespace thresher::actor
