#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/model/run_context.h"
#include "common/net/inbox.h"
#include "common/net/peer_link.h"
#include "tests/support/sim/scheduler.h"

namespace thresher::sim {

// An actor that takes leases and falls silent, and says that it failed when the samples are long
// somebody else's: nobody may believe it. Speaks through the production PeerLink.
class LateReporter {
 public:
  LateReporter(const model::RunContext& run, std::uint32_t index, int leases)
      : run_(run), index_(index), leases_left_(leases) {}

  // One process' life: until the run is over. Throws what ends a task.
  int Run();
  // Whoever `receiver` is has got a lease; told of every LeaseGrant.
  void OnGrant(const Process& receiver, const wire::LeaseGrant& grant);
  const Process* process = nullptr;
  std::uint64_t reports() const { return reports_; }

 private:
  void Handle(const wire::Message& message, net::PeerLink& link);

  const model::RunContext& run_;
  std::uint32_t index_;
  int leases_left_;
  std::uint64_t requests_ = 0;
  bool over_ = false;
  std::map<TrajectoryId, FencingToken> held_;  // leased to us, and to nobody else since
  std::map<TrajectoryId, FencingToken> lost_;  // leased to somebody else since
  std::uint64_t reports_ = 0;
};

}  // namespace thresher::sim
