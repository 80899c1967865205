#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "broker/lease_table.h"
#include "broker/run_state.h"
#include "common/config/config.h"
#include "common/wire/messages.h"

namespace thresher::broker {

// An actor as the granting of work sees it.
struct ActorView {
  ActorId actor;
  bool has_weights = false;
  PolicyVersion weights;
  std::uint32_t capacity = 0;  // samples it can work on at once
};

// What matters of all live actors together when work is shared out.
struct LiveActors {
  LiveActors() = default;
  LiveActors(const std::vector<ActorView>& actors);
  LiveActors(std::initializer_list<ActorView> actors) : LiveActors(std::vector(actors)) {}
  std::size_t count = 0;
  std::uint64_t capacity = 0;  // of one that has not asked yet: some
  std::set<PolicyVersion> versions;
};

// What to answer to a request for work.
struct Selection {
  std::vector<wire::Lease> leases;  // without fencing tokens
  // Set when the leases are pinned to a version that no live actor holds: the actor is asked to
  // load it (otherwise the round would wait for ever after the last holder died).
  bool adopts_version = false;
};

// What may be issued and who gets it: pure functions of plan, state and leases (sync mode).
//   supervised   steps up to broker.lookahead_steps ahead of the next uncommitted one; any actor
//   train        step s once version s is published; only actors that hold exactly version s; with
//                dynamic sampling its next round once those before it are complete and not enough
//   eval         a round once its version is published; pinned to that version
// An actor gets training before evaluation, oldest unit first. One that holds an older version gets
// what is left of that version, or nothing, so that it swaps.
class WorkSource {
 public:
  explicit WorkSource(const Config& config) : config_(config) {}

  // Units that may be issued now and are not, in the order in which to issue them.
  std::vector<wire::ItemsIssued> Issuable(const RunState& state) const;

  // Leases for `actor`, at most `max_samples` samples: whole items where they fit, else a range of
  // samples. Its fair share of the outstanding samples, of training and of evaluation each, in
  // proportion to capacity over all `live` actors (`actor` among them), limits it, rounded up to a
  // whole item.
  //
  // Remembers how far each unit is leased or done, and begins there while nothing was freed: costs
  // what it gives.
  Selection Select(const RunState& state, const LeaseTable& leases, const ActorView& actor,
                   std::uint32_t max_samples, const LiveActors& live);

  // Leases of `lost` samples, of training steps, for `actor`: those of the version it holds, of any
  // in supervised steps, or all of one version that no live actor holds (adopts_version).
  Selection SelectLost(const RunState& state, const LeaseTable& leases,
                       const std::set<TrajectoryId>& lost, const ActorView& actor,
                       std::uint32_t max_samples, const LiveActors& live) const;

 private:
  // A further round of a step whose first is issued.
  std::optional<wire::ItemsIssued> NextRound(const RunState& state, const StepPlan& step) const;
  bool MayIssue(const RunState& state, const StepPlan& step) const;
  wire::Lease LeaseOf(const wire::ItemsIssued& issued, std::uint64_t item) const;
  // Appends leases of free samples of `units` until they hold `share` samples, rounded up to a
  // whole item, or `*room` is used up.
  void Take(const RunState& state, const LeaseTable& leases, const std::vector<UnitKey>& units,
            std::uint64_t share, std::uint32_t* room, std::vector<wire::Lease>* taken);
  // Forgets what it remembers of units that are not open, and all where samples were freed.
  void Refresh(const RunState& state, const LeaseTable& leases);

  Config config_;
  // No sample of an open unit is free below this one of its items. The broker's table of leases is
  // always the same one; only its counter of what was freed tells that samples came back.
  std::map<UnitKey, std::uint64_t> first_free_;
  std::uint64_t freed_ = 0;
};

}  // namespace thresher::broker
