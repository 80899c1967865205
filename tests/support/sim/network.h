#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/net/socket.h"
#include "tests/support/sim/scheduler.h"

namespace thresher::sim {

// What a network does to those who use it; may be changed at any time. Chances are of each frame.
struct NetworkFaults {
  Duration latency{std::chrono::microseconds(200)};  // mean of a connection's; each has its own
  double cut = 0;    // the connection breaks: what is on its way is lost
  double stall = 0;  // nothing gets through, either way, and nobody is told
  Duration stall_time{std::chrono::seconds(2)};  // mean
  double half_open = 0;                          // of a stall: it ends with a cut
  double duplicate = 0;   // of a new connection: the last frames of the one before come again
  double lose_frame = 0;  // one frame is lost and the connection lives (no network does; planted)
};

struct Lane;
struct Link;
class SimServer;
class SimClient;

// A network between simulated processes with the manners of ZeroMQ's DEALER and ROUTER: frames of
// one connection arrive in order or not at all; a client reconnects by itself, under the same
// address, and says nothing of it; what a client has queued and not sent survives a reconnect, what
// a server has does not; queues are bounded by the high-water marks.
class Network : public net::Transport {
 public:
  Network(Scheduler& scheduler, std::uint64_t seed);
  ~Network() override;

  NetworkFaults faults;
  // See each frame that a process hands to its socket, or takes from it. `peer`: who is at the
  // other end, if the socket is a server's; else nobody.
  struct Peer {
    std::string name;
    std::uint32_t pid = 0;
  };
  using Tap =
      std::function<void(const Process& process, const Peer& peer, const std::string& bytes)>;
  Tap on_send, on_receive;

  Result<std::unique_ptr<net::Server>> Bind(const net::ServerOptions& options) override;
  Result<std::unique_ptr<net::Client>> Connect(const net::ClientOptions& options) override;

  // One connection, chosen at random, breaks; `silent`: a new one stands at once.
  void CutOne(bool silent);
  // All connections stall until `time` from now (a partition of the broker).
  void StallAll(Duration time);
  // Bytes of the frames that servers took from their sockets and still keep, of those that `kept`
  // chose.
  std::uint64_t kept_bytes() const { return *kept_bytes_; }
  std::function<bool(const std::string& bytes)> kept;
  // Most frames that waited in one queue.
  std::size_t longest_queue() const { return longest_queue_; }

 private:
  friend class SimServer;
  friend class SimClient;
  using LinkPtr = std::shared_ptr<Link>;

  void TryConnect(const LinkPtr& link);
  void RetryLater(const LinkPtr& link);
  void Cut(const LinkPtr& link, bool silent);
  void Disconnect(const LinkPtr& link);
  void LoseInFlight(const LinkPtr& link, bool server_keeps_unread);
  void Stall(const LinkPtr& link, Duration time, bool half_open);
  // A program sends a frame, and the network does to the connection what it likes.
  void Send(const LinkPtr& link, bool to_server, std::string_view bytes);
  void Disturb(const LinkPtr& link);
  void Transmit(const LinkPtr& link, bool to_server);
  void Deliver(const LinkPtr& link, bool to_server);
  // The key's user id, or empty: refused.
  std::string UserOf(const net::ServerOptions& server, const net::ClientOptions& client) const;
  void Note(const char* what, const Link& link);
  void Show(const Tap& tap, const Peer& peer, std::string_view bytes) const;
  // The same bytes for a server that takes them, counted for as long as it keeps them.
  SharedBytes Hand(const std::string& bytes);

  Scheduler& scheduler_;
  Random random_;
  std::map<std::string, SimServer*> servers_;  // by endpoint
  std::vector<std::weak_ptr<Link>> links_;
  std::uint64_t next_frame_ = 1;
  std::uint64_t newest_delivered_ = 0;
  int next_port_ = 40000;
  std::size_t longest_queue_ = 0;
  // Outlives the network with whoever keeps a frame for longer.
  std::shared_ptr<std::uint64_t> kept_bytes_ = std::make_shared<std::uint64_t>(0);
};

}  // namespace thresher::sim
