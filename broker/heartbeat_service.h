#pragma once

#include "broker/context.h"

namespace thresher::broker {

// What peers say of themselves while they work, and what their silence costs them.
class HeartbeatService {
 public:
  explicit HeartbeatService(BrokerContext& context) : context_(context) {}

  void OnHeartbeat(Peer& peer, const wire::Heartbeat& heartbeat);
  // Takes the credit of actors that are silent; tells those who waited for it that it is theirs.
  void Tick();

 private:
  // A peer makes up the names: neither many nor long ones are kept.
  void NoteCounters(Peer& peer, const wire::Heartbeat& heartbeat);
  void NoteWeights(Peer& peer, const wire::Heartbeat& heartbeat);
  void NoteWaiting(Peer& peer, std::string_view why);
  void Answer(const Peer& peer, const wire::Heartbeat& heartbeat);

  void TakeFromTheSilent();
  void TellThoseInTurn();
  wire::HeartbeatAck Ack() const;

  BrokerContext& context_;
  TimePoint next_turns_{};
  TimePoint next_account_look_{};
};

}  // namespace thresher::broker
