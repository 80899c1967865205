#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "broker/context.h"
#include "common/base/ids.h"

namespace thresher::sim {

// Watches the broker's credit, from its books and from the frames: what is given never exceeds the
// budget; an upload is counted from its receipt to its answer; what is held in memory is what was
// given and the cache; in the end nothing is counted any more.
class CreditWatch {
 public:
  // A broker that starts has given nothing.
  void OnBrokerStarts();
  // The broker takes a frame of the process `peer` from its socket; all earlier ones are handled.
  // `held`: bytes of frames with uploads that it took and still keeps.
  void OnReceived(const std::string& peer, const std::string& bytes,
                  const broker::BrokerContext& broker, std::uint64_t held);
  // The broker hands a frame for `peer` to its socket.
  void OnSent(const std::string& peer, const std::string& bytes,
              const broker::BrokerContext& broker);
  // The broker has ended, and not by a death.
  void OnBrokerEnds(const broker::BrokerContext& broker);

  // What was wrong, one a line.
  const std::string& problems() const { return problems_; }
  // Uploads that were seen from their receipt to their answer.
  std::uint64_t followed() const { return followed_; }

 private:
  struct Upload {
    std::uint64_t bytes = 0;
    bool uncounted = false;  // at some moment
  };
  using Key = std::pair<std::string, std::uint64_t>;  // process, number

  void CheckBooks(const broker::BrokerContext& broker);
  void CheckMemory(const broker::BrokerContext& broker, std::uint64_t held);
  void LookAtOpen(const broker::BrokerContext& broker);
  void Problem(const broker::BrokerContext& broker, const std::string& text);

  std::map<std::string, std::pair<ActorId, Incarnation>> actors_;  // by process: its last Hello
  std::map<Key, Upload> open_;                                     // received, and not answered
  std::uint64_t followed_ = 0;
  std::string problems_;
};

}  // namespace thresher::sim
