#include "tests/support/sim/network.h"

#include <algorithm>

#include "tests/support/sim/link.h"

namespace thresher::sim {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kRecentFrames = 3;  // that may come twice after a reconnect
constexpr milliseconds kFirstRetry{50};
constexpr milliseconds kLongestRetry{2000};

bool IsTcp(const std::string& endpoint) { return endpoint.starts_with("tcp://"); }

}  // namespace

Network::Network(Scheduler& scheduler, std::uint64_t seed) : scheduler_(scheduler), random_(seed) {}
Network::~Network() = default;

void Network::Note(const char* what, const Link& link) {
  scheduler_.trace().Count(what);
  scheduler_.trace().Note(scheduler_.Now(), link.owner.name, what);
}

void Network::Show(const Tap& tap, const Peer& peer, std::string_view bytes) const {
  if (tap && scheduler_.current() != nullptr) tap(*scheduler_.current(), peer, std::string(bytes));
}

SharedBytes Network::Hand(const std::string& bytes) {
  if (!kept || !kept(bytes)) return bytes;
  *kept_bytes_ += bytes.size();
  std::shared_ptr<const std::string> counted(new std::string(bytes),
                                             [sum = kept_bytes_](const std::string* owned) {
                                               *sum -= owned->size();
                                               delete owned;
                                             });
  const std::string_view view = *counted;
  return SharedBytes(std::move(counted), view, view.size());
}

Result<std::unique_ptr<net::Server>> Network::Bind(const net::ServerOptions& options) {
  if (options.endpoints.empty()) return InvalidArgument("no endpoint to listen on");
  std::vector<std::string> endpoints;
  for (std::string endpoint : options.endpoints) {
    if (IsTcp(endpoint) && !options.keys) return InvalidArgument(endpoint + ": tcp needs keys");
    const std::size_t colon = endpoint.rfind(':');
    const std::string port = endpoint.substr(colon + 1);
    if (IsTcp(endpoint) && (port == "0" || port == "*")) {
      endpoint = endpoint.substr(0, colon + 1) + std::to_string(next_port_++);
    }
    if (servers_.contains(endpoint)) return Unavailable(endpoint + ": in use by another process");
    endpoints.push_back(endpoint);
  }
  auto server = std::make_unique<SimServer>(*this, options, endpoints);
  for (const std::string& endpoint : endpoints) servers_[endpoint] = server.get();
  return std::unique_ptr<net::Server>(std::move(server));
}

Result<std::unique_ptr<net::Client>> Network::Connect(const net::ClientOptions& options) {
  const bool tcp = IsTcp(options.endpoint);
  if (!tcp && !options.endpoint.starts_with("ipc://")) {
    return InvalidArgument("endpoint '" + options.endpoint + "'");
  }
  if (tcp && (!options.own_key || options.server_public_key.size() != 40)) {
    return InvalidArgument(options.endpoint + ": tcp needs an own key and the server's public key");
  }
  auto client = std::make_unique<SimClient>(*this, options);
  THRESHER_RETURN_IF_ERROR(client->Reconnect());
  return std::unique_ptr<net::Client>(std::move(client));
}

std::string Network::UserOf(const net::ServerOptions& server,
                            const net::ClientOptions& client) const {
  if (!IsTcp(client.endpoint)) return "local";
  const net::KeyRing& keys = *server.keys;
  if (client.server_public_key != keys.broker.public_key) return "";
  const std::string& key = client.own_key->public_key;
  if (key == keys.actor.public_key) return "actor";
  if (key == keys.learner.public_key) return "learner";
  return key == keys.tool.public_key ? "tool" : "";
}

void Network::RetryLater(const LinkPtr& link) {
  if (link->client == nullptr) return;
  const Duration wait = random_.Between(kFirstRetry, kLongestRetry) / (1 + random_.Below(8));
  scheduler_.After(wait, [this, link, then = link->connection] {
    if (link->connection == then) TryConnect(link);
  });
}

// Connects when somebody listens; what waits is sent.
void Network::TryConnect(const LinkPtr& link) {
  if (link->client == nullptr || link->server != nullptr) return;
  auto found = servers_.find(link->options.endpoint);
  if (found == servers_.end() || link->stalled_until > scheduler_.Now()) {
    RetryLater(link);
    return;
  }
  SimServer& server = *found->second;
  link->user = UserOf(server.options_, link->options);
  if (link->user.empty()) {
    ++server.refused_;
    RetryLater(link);
    return;
  }
  link->server = &server;
  ++link->connection;
  server.links_[link->address] = link;
  if (std::exchange(link->had_connection, true)) {
    Note("reconnect", *link);
    if (random_.Chance(faults.duplicate)) {
      const auto& recent = link->to_server.recent;
      const std::size_t count = random_.Below(recent.size() + 1);
      for (std::size_t i = 0; i < count; ++i) {
        Note("frame duplicated", *link);
        link->to_server.queue.push_front({recent[recent.size() - 1 - i], next_frame_++, {}});
      }
    }
  }
  Transmit(link, true);
}

// Frames that wait for the wire get their time of arrival.
void Network::Transmit(const LinkPtr& link, bool to_server) {
  if (link->server == nullptr) return;
  Lane& lane = link->lane(to_server);
  for (Flight& flight : lane.queue) {
    if (flight.arrives) continue;
    const Duration way = link->latency / 2 + random_.Exponential(link->latency / 2);
    flight.arrives = std::max(lane.last_arrival, scheduler_.Now() + way);
    lane.last_arrival = *flight.arrives;
    scheduler_.At(*flight.arrives, [this, link, to_server] { Deliver(link, to_server); });
  }
}

void Network::Deliver(const LinkPtr& link, bool to_server) {
  Lane& lane = link->lane(to_server);
  const auto limit = static_cast<std::size_t>(link->options.high_water_mark);
  while (!lane.queue.empty() && link->server != nullptr && lane.unread.size() < limit) {
    Flight& flight = lane.queue.front();
    if (!flight.arrives || *flight.arrives > scheduler_.Now()) return;
    if (link->stalled_until > scheduler_.Now()) {
      scheduler_.At(link->stalled_until, [this, link, to_server] { Deliver(link, to_server); });
      return;
    }
    if (flight.number < newest_delivered_) scheduler_.trace().Count("frame overtaken");
    newest_delivered_ = std::max(newest_delivered_, flight.number);
    lane.unread.push_back(flight.bytes);
    lane.recent.push_back(std::move(flight.bytes));
    if (lane.recent.size() > kRecentFrames) lane.recent.pop_front();
    lane.queue.pop_front();
    longest_queue_ = std::max(longest_queue_, lane.unread.size());
    if (to_server) {
      scheduler_.Wake(link->server, true);
    } else if (link->client != nullptr) {
      scheduler_.Wake(link->client, true);
    }
  }
}

// A connection ends. Of what was on the wire a beginning has arrived, the rest is lost; what the
// client had not sent yet stays with it.
void Network::LoseInFlight(const LinkPtr& link, bool server_keeps_unread) {
  std::uint64_t lost = 0;
  for (bool to_server : {true, false}) {
    Lane& lane = link->lane(to_server);
    const std::size_t waiting = static_cast<std::size_t>(std::count_if(
        lane.queue.begin(), lane.queue.end(),
        [&](const Flight& f) { return f.arrives && (to_server || link->client != nullptr); }));
    const std::size_t arrived = random_.Below(waiting + 1);
    const std::size_t on_wire = to_server ? random_.Between(static_cast<std::int64_t>(arrived),
                                                            static_cast<std::int64_t>(waiting))
                                          : lane.queue.size();
    for (std::size_t i = 0; i < arrived; ++i) lane.unread.push_back(lane.queue[i].bytes);
    lost += on_wire - std::min(on_wire, arrived);
    lane.queue.erase(lane.queue.begin(), lane.queue.begin() + static_cast<long>(on_wire));
    for (Flight& flight : lane.queue) flight.arrives.reset();
    lane.last_arrival = {};
  }
  if (link->server != nullptr && server_keeps_unread) {
    for (const auto& bytes : link->to_server.unread) {
      link->server->left_.push_back({link->owner, link->address, link->user, bytes});
    }
    scheduler_.Wake(link->server, true);
  }
  link->to_server.unread.clear();
  if (link->client != nullptr) scheduler_.Wake(link->client, true);
  if (lost > 0) scheduler_.trace().Count("frames lost");
}

void Network::Disconnect(const LinkPtr& link) {
  if (link->server != nullptr) link->server->links_.erase(link->address);
  link->server = nullptr;
  ++link->connection;
  RetryLater(link);
}

void Network::Cut(const LinkPtr& link, bool silent) {
  if (link->server == nullptr) return;
  Note(silent ? "silent reconnect" : "connection cut", *link);
  LoseInFlight(link, random_.Chance(0.5));
  Disconnect(link);
  if (silent) TryConnect(link);
}

void Network::Stall(const LinkPtr& link, Duration time, bool half_open) {
  Note(half_open ? "half-open connection" : "connection stalled", *link);
  link->stalled_until = std::max(link->stalled_until, scheduler_.Now() + time);
  if (!half_open) return;
  scheduler_.After(time, [this, link, then = link->connection] {
    if (link->connection == then) Cut(link, false);
  });
}

void Network::Send(const LinkPtr& link, bool to_server, std::string_view bytes) {
  if (random_.Chance(faults.lose_frame)) {
    scheduler_.trace().Count("frame lost alone");
    return;
  }
  link->lane(to_server).queue.push_back(
      {std::make_shared<const std::string>(bytes), next_frame_++, {}});
  Transmit(link, to_server);
  if (link->server != nullptr) Disturb(link);
}

// A connection breaks while the frame is on its way.
void Network::Disturb(const LinkPtr& link) {
  if (random_.Chance(faults.cut)) {
    scheduler_.After(random_.Between(Duration::zero(), 2 * link->latency),
                     [this, link, then = link->connection, silent = random_.Chance(0.3)] {
                       if (link->connection == then) Cut(link, silent);
                     });
  }
  if (random_.Chance(faults.stall)) {
    Stall(link, random_.Exponential(faults.stall_time), random_.Chance(faults.half_open));
  }
}

void Network::CutOne(bool silent) {
  std::erase_if(links_, [](const auto& link) { return link.expired(); });
  if (links_.empty()) return;
  if (LinkPtr link = links_[random_.Below(links_.size())].lock()) Cut(link, silent);
}

void Network::StallAll(Duration time) {
  for (const auto& weak : links_) {
    LinkPtr link = weak.lock();
    if (link && link->server != nullptr) Stall(link, time, random_.Chance(faults.half_open));
  }
}

}  // namespace thresher::sim
