#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "common/net/socket.h"
#include "tests/support/sim/network.h"

namespace thresher::sim {

// A frame on its way, or waiting for a connection.
struct Flight {
  std::shared_ptr<const std::string> bytes;
  std::uint64_t number = 0;
  std::optional<TimePoint> arrives;  // none: not yet on the wire
};

// One direction of a connection.
struct Lane {
  std::deque<Flight> queue;                               // sent, not yet there; in order
  std::deque<std::shared_ptr<const std::string>> unread;  // there, and not yet taken
  std::deque<std::shared_ptr<const std::string>> recent;  // the last that were delivered
  TimePoint last_arrival{};
};

// A client socket's connection to whichever server listens at its endpoint.
struct Link {
  net::ClientOptions options;
  std::string address;           // as the server sees it
  std::string user;              // by its key
  SimClient* client = nullptr;   // null: closed; what is on its way may still arrive
  SimServer* server = nullptr;   // null: not connected
  std::uint64_t connection = 0;  // grows with each one
  bool had_connection = false;
  Duration latency{};
  TimePoint stalled_until{};
  Lane to_server, to_client;
  Network::Peer owner;  // the process

  Lane& lane(bool server_side) { return server_side ? to_server : to_client; }
};

// The server's socket.
class SimServer : public net::Server {
 public:
  SimServer(Network& network, net::ServerOptions options, std::vector<std::string> endpoints)
      : network_(network), options_(std::move(options)), endpoints_(std::move(endpoints)) {}
  ~SimServer() override;

  std::vector<std::string> endpoints() const override { return endpoints_; }
  std::optional<net::Received> Receive(std::chrono::milliseconds timeout) override;
  Status Send(const net::PeerAddress& peer, SharedBytes bytes) override;
  std::uint64_t malformed() const override { return malformed_; }
  std::uint64_t refused() const override { return refused_; }
  void Wake() override;

 private:
  friend class Network;
  struct Taken {
    Network::Peer owner;
    net::PeerAddress peer;
    std::string key_user_id;
    std::shared_ptr<const std::string> bytes;
  };
  std::optional<Taken> TakeOne();

  Network& network_;
  net::ServerOptions options_;
  std::vector<std::string> endpoints_;
  std::map<net::PeerAddress, std::shared_ptr<Link>> links_;  // connected
  std::deque<Taken> left_;  // from connections that have ended, still to be taken
  bool woken_ = false;
  std::uint64_t malformed_ = 0;
  std::uint64_t refused_ = 0;
};

// A client's socket.
class SimClient : public net::Client {
 public:
  SimClient(Network& network, const net::ClientOptions& options)
      : network_(network), options_(options) {}
  ~SimClient() override { Close(); }

  std::optional<SharedBytes> Receive(std::chrono::milliseconds timeout) override;
  Status Send(SharedBytes bytes) override;
  Status Reconnect() override;
  void Wake() override;

 private:
  friend class Network;
  void Close();

  Network& network_;
  net::ClientOptions options_;
  std::shared_ptr<Link> link_;
  bool woken_ = false;
};

}  // namespace thresher::sim
