#include "common/base/check.h"
#include "common/net/secret_file.h"
#include "common/net/socket.h"
#include "common/net/zmq_common.h"

namespace thresher::net {
namespace {

// How long the last messages may take to leave when the client is destroyed.
constexpr int kFlushMs = 500;
constexpr int kFirstRetryMs = 50;
constexpr int kLongestRetryMs = 2000;

class ZmqClient : public Client {
 public:
  explicit ZmqClient(const ClientOptions& options) : options_(options) {}

  ~ZmqClient() override {
    if (!dealer_) return;
    dealer_.set(zmq::sockopt::linger, kFlushMs);
    dealer_.close();
  }

  Status Reconnect() override try {
    dealer_.close();  // linger is 0: queued frames go with it
    dealer_ = zmq::socket_t(context_, zmq::socket_type::dealer);
    SetCommonOptions(dealer_, options_.endpoint, options_.high_water_mark,
                     options_.max_message_bytes);
    dealer_.set(zmq::sockopt::reconnect_ivl, kFirstRetryMs);
    dealer_.set(zmq::sockopt::reconnect_ivl_max, kLongestRetryMs);
    // Keeps the peer address over ZeroMQ's own reconnects. Too random for anybody to take it.
    dealer_.set(zmq::sockopt::routing_id, "T" + RandomBytes(16));
    if (IsTcp(options_.endpoint)) {
      dealer_.set(zmq::sockopt::curve_serverkey, options_.server_public_key);
      dealer_.set(zmq::sockopt::curve_publickey, options_.own_key->public_key);
      dealer_.set(zmq::sockopt::curve_secretkey, options_.own_key->secret_key);
    }
    dealer_.connect(options_.endpoint);
    return Status::Ok();
  } catch (const zmq::error_t& error) {
    return InvalidArgument(options_.endpoint + ": " + error.what() +
                           "; allowed: ipc://PATH, tcp://ADDRESS:PORT");
  }

  std::optional<SharedBytes> Receive(std::chrono::milliseconds timeout) override {
    auto deadline = std::chrono::steady_clock::now() + timeout;
    zmq::pollitem_t items[] = {{dealer_.handle(), 0, ZMQ_POLLIN, 0},
                               {nullptr, wake_.fd(), ZMQ_POLLIN, 0}};
    while (true) {
      bool ready = PollUntil(items, 2, deadline);
      if (items[0].revents & ZMQ_POLLIN) {
        if (std::optional<SharedBytes> bytes = ReceiveMessage()) return bytes;
      } else if (items[1].revents & ZMQ_POLLIN) {
        wake_.Drain();
        return std::nullopt;
      }
      if (!ready || std::chrono::steady_clock::now() >= deadline) return std::nullopt;
    }
  }

  Status Send(SharedBytes bytes) override {
    THRESHER_RETURN_IF_ERROR(CheckMessageSize(bytes, options_.max_message_bytes));
    if (SendPart(dealer_, std::move(bytes))) return Status::Ok();
    THRESHER_CHECK(zmq_errno() == EAGAIN, zmq_strerror(zmq_errno()));
    return ResourceExhausted(options_.endpoint + ": the queue of " +
                             std::to_string(options_.high_water_mark) + " messages is full");
  }

  void Wake() override { wake_.Wake(); }

 private:
  // The server sends single parts; anything else is not for us.
  std::optional<SharedBytes> ReceiveMessage() {
    zmq::message_t body, extra;
    if (!ReceivePart(dealer_, body)) return std::nullopt;
    bool single = !body.more();
    for (bool more = body.more(); more; more = extra.more()) {
      if (!ReceivePart(dealer_, extra)) break;
    }
    if (!single || body.size() > options_.max_message_bytes) return std::nullopt;
    return Share(std::move(body));
  }

  ClientOptions options_;
  zmq::context_t context_;
  zmq::socket_t dealer_;
  WakeEvent wake_;
};

}  // namespace

Result<std::unique_ptr<Client>> Client::Connect(const ClientOptions& options) {
  if (Transport* transport = CurrentTransport()) return transport->Connect(options);
  if (!IsTcp(options.endpoint) && !IsIpc(options.endpoint)) {
    return InvalidArgument("endpoint '" + options.endpoint +
                           "'; allowed: ipc://PATH, tcp://ADDRESS:PORT");
  }
  if (IsTcp(options.endpoint) && (!options.own_key || options.server_public_key.size() != 40)) {
    return InvalidArgument(options.endpoint + ": tcp needs an own key and the server's public key");
  }
  auto client = std::make_unique<ZmqClient>(options);
  THRESHER_RETURN_IF_ERROR(client->Reconnect());
  return std::unique_ptr<Client>(std::move(client));
}

}  // namespace thresher::net
