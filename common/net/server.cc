#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "common/base/check.h"
#include "common/net/secret_file.h"
#include "common/net/socket.h"
#include "common/net/zap.h"
#include "common/net/zmq_common.h"

namespace thresher::net {
namespace {

constexpr const char* kMonitorAddress = "inproc://server-monitor";
// How long the last messages may take to leave when the server is destroyed.
constexpr int kFlushMs = 200;
// Addresses whose user is remembered; beyond it the memory starts anew.
constexpr std::size_t kMaxKnownPeers = 1 << 16;

Status BindError(const std::string& endpoint, int error) {
  std::string text = endpoint + ": " + zmq_strerror(error);
  if (error == EADDRINUSE) return Unavailable(text);
  if (error == EACCES || error == EPERM) return PermissionDenied(text);
  if (error == EINVAL || error == ENODEV || error == EPROTONOSUPPORT || error == ENAMETOOLONG ||
      error == EADDRNOTAVAIL) {
    return InvalidArgument(text + "; allowed: ipc://PATH, tcp://ADDRESS:PORT of this machine");
  }
  return Unavailable(text);
}

// ZeroMQ unlinks whatever lies at an ipc path, a living server's socket too.
bool SomeoneListens(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  THRESHER_CHECK(fd >= 0, "socket");
  bool listens = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return listens;
}

Status CheckIpcPath(const std::string& endpoint) {
  std::string path = endpoint.substr(6);
  if (path.empty() || path[0] != '/' || path.size() >= sizeof(sockaddr_un::sun_path)) {
    return InvalidArgument(endpoint +
                           "; allowed: ipc:// and an absolute path of at most 107 bytes");
  }
  THRESHER_RETURN_IF_ERROR(CheckPrivateFolder(std::filesystem::path(path).parent_path()));
  if (SomeoneListens(path)) return Unavailable(endpoint + ": in use by another process");
  return Status::Ok();
}

class ZmqServer : public Server {
 public:
  explicit ZmqServer(const ServerOptions& options)
      : options_(options),
        zap_(context_, options.keys ? &*options.keys : nullptr),
        router_(context_, zmq::socket_type::router),
        monitor_(context_, zmq::socket_type::pair) {
    router_.set(zmq::sockopt::router_mandatory, true);
    router_.set(zmq::sockopt::router_handover, true);
    int rc = zmq_socket_monitor(router_.handle(), kMonitorAddress,
                                ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                                    ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                                    ZMQ_EVENT_HANDSHAKE_FAILED_AUTH);
    THRESHER_CHECK(rc == 0, "socket monitor");
    monitor_.connect(kMonitorAddress);
  }

  ~ZmqServer() override {
    zmq_socket_monitor(router_.handle(), nullptr, 0);
    monitor_.close();
    router_.set(zmq::sockopt::linger, kFlushMs);
    router_.close();
  }

  Status Listen(const std::string& endpoint) {
    if (IsIpc(endpoint)) THRESHER_RETURN_IF_ERROR(CheckIpcPath(endpoint));
    if (!IsIpc(endpoint) && !IsTcp(endpoint)) {
      return InvalidArgument(endpoint + "; allowed: ipc://PATH, tcp://ADDRESS:PORT");
    }
    if (IsTcp(endpoint) && !options_.keys) {
      return InvalidArgument(endpoint + ": tcp needs keys");
    }
    SetCommonOptions(router_, endpoint, options_.high_water_mark, options_.max_message_bytes);
    router_.set(zmq::sockopt::rcvhwm, options_.receive_high_water_mark);
    // A listener takes the options of the moment it is bound.
    router_.set(zmq::sockopt::curve_server, IsTcp(endpoint));
    if (IsTcp(endpoint))
      router_.set(zmq::sockopt::curve_secretkey, options_.keys->broker.secret_key);
    router_.set(zmq::sockopt::zap_domain, IsTcp(endpoint) ? kKeyedDomain : kLocalDomain);
    if (zmq_bind(router_.handle(), endpoint.c_str()) != 0) return BindError(endpoint, zmq_errno());
    endpoints_.push_back(router_.get(zmq::sockopt::last_endpoint));
    if (IsIpc(endpoint)) ::chmod(endpoint.c_str() + 6, 0600);
    return Status::Ok();
  }

  std::vector<std::string> endpoints() const override { return endpoints_; }
  std::uint64_t malformed() const override { return malformed_; }
  std::uint64_t refused() const override { return refused_; }
  void Wake() override { wake_.Wake(); }

  std::optional<Received> Receive(std::chrono::milliseconds timeout) override {
    auto deadline = std::chrono::steady_clock::now() + timeout;
    zmq::pollitem_t items[] = {{router_.handle(), 0, ZMQ_POLLIN, 0},
                               {monitor_.handle(), 0, ZMQ_POLLIN, 0},
                               {nullptr, wake_.fd(), ZMQ_POLLIN, 0}};
    while (true) {
      bool ready = PollUntil(items, 3, deadline);
      if (items[1].revents & ZMQ_POLLIN) CountRefusals();
      if (items[0].revents & ZMQ_POLLIN) {
        if (std::optional<Received> received = ReceiveMessage()) return received;
      } else if (items[2].revents & ZMQ_POLLIN) {
        wake_.Drain();
        return std::nullopt;
      }
      if (!ready || std::chrono::steady_clock::now() >= deadline) return std::nullopt;
    }
  }

  Status Send(const PeerAddress& peer, SharedBytes bytes) override {
    THRESHER_RETURN_IF_ERROR(CheckMessageSize(bytes, options_.max_message_bytes));
    if (zmq_send(router_.handle(), peer.data(), peer.size(), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
      if (zmq_errno() == EAGAIN) return ResourceExhausted("the peer's queue is full");
      user_by_peer_.erase(peer);
      return Unavailable(std::string("the peer is gone: ") + zmq_strerror(zmq_errno()));
    }
    // The first part reserved the room.
    THRESHER_CHECK(SendPart(router_, std::move(bytes)), zmq_strerror(zmq_errno()));
    return Status::Ok();
  }

 private:
  // One message off the socket, whole; nothing when it is malformed.
  std::optional<Received> ReceiveMessage() {
    zmq::message_t peer, body, extra;
    if (!ReceivePart(router_, peer)) return std::nullopt;
    bool whole = peer.more() && ReceivePart(router_, body);
    for (bool more = whole && body.more(); more; more = extra.more()) {
      whole = false;
      if (!ReceivePart(router_, extra)) break;
    }
    // No user id: ZeroMQ asked no ZAP handler. Closed, not open.
    const char* user = whole ? zmq_msg_gets(body.handle(), "User-Id") : nullptr;
    bool good =
        whole && user != nullptr && *user != '\0' && body.size() <= options_.max_message_bytes;
    Received received;
    if (good) {
      received = {peer.to_string(), user, Share(std::move(body))};
      good = IsSameUser(received);
    }
    if (good) return received;
    ++malformed_;
    return std::nullopt;
  }

  // Hand-over keeps a peer's address over its reconnects; another key may not take it.
  bool IsSameUser(const Received& received) {
    if (user_by_peer_.size() >= kMaxKnownPeers) user_by_peer_.clear();
    auto [entry, added] = user_by_peer_.try_emplace(received.peer, received.key_user_id);
    return added || entry->second == received.key_user_id;
  }

  void CountRefusals() {
    zmq::message_t event, address;
    while (ReceivePart(monitor_, event)) {
      if (event.more() && !ReceivePart(monitor_, address)) return;
      ++refused_;
    }
  }

  ServerOptions options_;
  zmq::context_t context_;
  ZapHandler zap_;
  zmq::socket_t router_;
  zmq::socket_t monitor_;
  WakeEvent wake_;
  std::vector<std::string> endpoints_;
  std::unordered_map<PeerAddress, std::string> user_by_peer_;
  std::uint64_t malformed_ = 0;
  std::uint64_t refused_ = 0;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::Bind(const ServerOptions& options) try {
  if (Transport* transport = CurrentTransport()) return transport->Bind(options);
  if (options.endpoints.empty()) return InvalidArgument("no endpoint to listen on");
  auto server = std::make_unique<ZmqServer>(options);
  for (const std::string& endpoint : options.endpoints)
    THRESHER_RETURN_IF_ERROR(server->Listen(endpoint));
  return std::unique_ptr<Server>(std::move(server));
} catch (const zmq::error_t& error) {
  return InternalError(std::string("zmq: ") + error.what());
}

}  // namespace thresher::net
