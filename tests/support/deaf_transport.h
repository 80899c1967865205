#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/net/socket.h"

namespace thresher::net {

class DeafServer : public Server {
 public:
  explicit DeafServer(std::vector<std::string> endpoints) : endpoints_(std::move(endpoints)) {}
  std::vector<std::string> endpoints() const override { return endpoints_; }
  std::optional<Received> Receive(std::chrono::milliseconds) override { return std::nullopt; }
  Status Send(const PeerAddress&, SharedBytes) override { return Status::Ok(); }
  std::uint64_t malformed() const override { return 0; }
  std::uint64_t refused() const override { return 0; }
  void Wake() override {}

 private:
  std::vector<std::string> endpoints_;
};

// This thread's network while it lives: servers bind and hear nothing, clients reach nobody.
class DeafTransport : public Transport {
 public:
  DeafTransport() : before_(SubstituteTransport(this)) {}
  ~DeafTransport() override { SubstituteTransport(before_); }
  Result<std::unique_ptr<Server>> Bind(const ServerOptions& options) override {
    return std::unique_ptr<Server>(std::make_unique<DeafServer>(options.endpoints));
  }
  Result<std::unique_ptr<Client>> Connect(const ClientOptions& options) override {
    return NotFound(options.endpoint);
  }

 private:
  Transport* before_;
};

}  // namespace thresher::net
