#pragma once

#include <map>
#include <string>
#include <zmq.hpp>

#include "common/net/socket.h"
#include "common/net/zmq_common.h"
#include "common/sync/named_thread.h"

namespace thresher::net {

// ZAP domains of the server's endpoints.
inline constexpr const char* kLocalDomain = "local";  // ipc: NULL mechanism, user id "local"
inline constexpr const char* kKeyedDomain = "keyed";  // tcp: CURVE, user id by public key

// Answers the authentication requests of one ZeroMQ context (ZMQ RFC 27) on a thread of its own.
// A peer without an entry here is refused; with no handler bound CURVE would let any key in, so it
// is constructed before any endpoint is bound, destroyed after all are closed, and its unexpected
// end ends the process.
class ZapHandler {
 public:
  // `keys`: the roles that may connect over tcp; null: none.
  ZapHandler(zmq::context_t& context, const KeyRing* keys);
  ~ZapHandler();
  ZapHandler(const ZapHandler&) = delete;
  ZapHandler& operator=(const ZapHandler&) = delete;

 private:
  void Loop();
  void Answer();
  // "" when refused.
  std::string UserFor(const std::string& domain, const std::string& mechanism,
                      const std::string& credentials) const;

  std::map<std::string, std::string> user_by_key_;  // 32 raw bytes: role
  zmq::socket_t socket_;
  WakeEvent stop_;
  NamedThread thread_;
};

}  // namespace thresher::net
