#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "broker/context.h"
#include "broker/run_driver.h"

namespace thresher::broker {

// Who may take part: Hello and Goodbye, roles, incarnations and the run identity.
class SessionService {
 public:
  SessionService(BrokerContext& context, RunDriver& driver) : context_(context), driver_(driver) {}

  // Welcomes or refuses. The first actor or learner fixes the run identity. A new incarnation takes
  // its slot over and frees the leases of the old one at once.
  Status OnHello(const wire::Hello& hello, const net::PeerAddress& address, Incarnation incarnation,
                 const std::string& key_user_id);
  void OnGoodbye(Peer& peer, const wire::Goodbye& goodbye);
  // Frames of strangers are answered so that they introduce themselves, or give up.
  void OnStranger(PeerTable::Sender sender, const net::PeerAddress& address);
  // A frame of a protocol version that this broker does not speak.
  void OnOtherVersion(std::uint16_t version);
  // Tells every peer to end.
  void ShutdownAll(const std::string& reason, bool checkpoint_first);
  // Actors and learners that are alive and have not said Goodbye.
  std::size_t Remaining();

 private:
  wire::Shutdown ShutdownOf(wire::PeerRole role) const;
  // Empty when the peer computes as this run does.
  Result<std::string> IdentityFault(const wire::Hello& hello);
  std::string ShapeFault(const wire::Hello& hello) const;
  // `kind`: what is counted, README.md lists them.
  void Refuse(const net::PeerAddress& address, const std::string& who, const char* kind,
              const std::string& reason);
  Status Welcome(const Peer& peer);
  // What it held is free.
  void Free(const Peer& peer);

  BrokerContext& context_;
  RunDriver& driver_;
  std::set<std::uint16_t> other_versions_;
  std::string shutdown_reason_;  // set once the run is ending: late comers hear it, too
  bool shutdown_checkpoint_ = false;
};

}  // namespace thresher::broker
