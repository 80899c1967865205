#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/config/config.h"
#include "common/wire/messages.h"

namespace thresher::sim {

// Watches the broker's frames: a sample that is leased is leased to nobody else, unless its actor
// came anew, left, gave it back, fell silent or had it for longer than an engine may stand still.
// Errs on the broker's side: it counts from the moments at which frames left the socket.
class LeaseWatch {
 public:
  explicit LeaseWatch(const Config& config);

  // A broker that starts knows no lease.
  void OnBrokerStarts();
  // The broker takes a frame of the process `peer` from its socket.
  void OnReceived(const std::string& peer, const std::string& bytes, TimePoint now);
  // The broker hands a frame for `peer` to its socket.
  void OnSent(const std::string& peer, const std::string& bytes, TimePoint now);

  // Leases that ended without a reason, one a line.
  const std::string& problems() const { return problems_; }

 private:
  struct Held {
    std::string actor;
    FencingToken fence;
    TimePoint since;
  };

  void Grant(const std::string& actor, const wire::Lease& lease, TimePoint since, TimePoint now);
  void Renew(FencingToken fence, TimePoint now);
  void Forget(const std::string& actor);
  void Release(const std::string& actor, const wire::LeaseRelease& release);
  bool MayHaveEnded(const Held& held, TimePoint now) const;

  Duration silence_, standstill_;
  std::map<TrajectoryId, Held> held_;
  std::map<FencingToken, TimePoint> renewed_;
  std::set<FencingToken> lapsed_;
  struct Request {
    Incarnation asker;
    TimePoint at{};
  };
  std::map<std::pair<std::string, std::uint64_t>, Request> requests_;  // by actor and number
  std::map<std::string, TimePoint> forgotten_;  // actors that came anew or left
  std::string problems_;
};

}  // namespace thresher::sim
