#include <algorithm>
#include <utility>

#include "tests/support/sim/link.h"
#include "tests/support/sim/network.h"

namespace thresher::sim {
namespace {

// Who only looks, and finds nothing, must not stop the clock by looking again.
constexpr std::chrono::microseconds kLook{2};

Status CheckSize(std::string_view bytes, std::size_t limit) {
  if (bytes.size() <= limit) return Status::Ok();
  return OutOfRange("a message of " + std::to_string(bytes.size()) + " bytes; allowed: up to " +
                    std::to_string(limit));
}

}  // namespace

SimServer::~SimServer() {
  Scheduler& scheduler = network_.scheduler_;
  for (const std::string& endpoint : endpoints_) network_.servers_.erase(endpoint);
  const auto links = std::exchange(links_, {});
  for (const auto& [address, link] : links) {
    // One that closes in peace lets its last words go first.
    if (!scheduler.Dead()) {
      for (Flight& flight : link->to_client.queue) flight.arrives = scheduler.Now();
      network_.Deliver(link, false);
    }
    network_.LoseInFlight(link, false);
    network_.Disconnect(link);
  }
}

void SimServer::Wake() {
  woken_ = true;
  network_.scheduler_.Wake(this, true);
}

// Of the peers with something to read a random one is next: ROUTER takes them in turn.
std::optional<SimServer::Taken> SimServer::TakeOne() {
  if (!left_.empty()) {
    Taken taken = std::move(left_.front());
    left_.pop_front();
    return taken;
  }
  std::vector<std::shared_ptr<Link>> talking;
  for (const auto& [address, link] : links_) {
    if (!link->to_server.unread.empty()) talking.push_back(link);
  }
  if (talking.empty()) return std::nullopt;
  const auto& link = talking[network_.random_.Below(talking.size())];
  Taken taken{link->owner, link->address, link->user, link->to_server.unread.front()};
  link->to_server.unread.pop_front();
  network_.Deliver(link, true);  // there is room for one more
  return taken;
}

std::optional<net::Received> SimServer::Receive(std::chrono::milliseconds timeout) {
  Scheduler& scheduler = network_.scheduler_;
  const TimePoint deadline = scheduler.Now() + timeout;
  while (!scheduler.Dead()) {
    std::optional<Taken> taken = TakeOne();
    if (taken && taken->bytes->size() > options_.max_message_bytes) {
      ++malformed_;
      continue;
    }
    if (taken) {
      network_.Show(network_.on_receive, taken->owner, *taken->bytes);
      scheduler.Sleep(network_.random_.Exponential(scheduler.current()->turn), "computes");
      return net::Received{taken->peer, taken->key_user_id, network_.Hand(*taken->bytes)};
    }
    if (std::exchange(woken_, false)) return std::nullopt;
    if (scheduler.Now() >= deadline) {
      if (timeout.count() == 0) scheduler.Sleep(kLook, "looks");
      return std::nullopt;
    }
    scheduler.Wait(this, deadline, "receives from its peers");
  }
  scheduler.Sleep({}, "is dead");
  return std::nullopt;
}

Status SimServer::Send(const net::PeerAddress& peer, SharedBytes bytes) {
  THRESHER_RETURN_IF_ERROR(CheckSize(bytes, options_.max_message_bytes));
  if (network_.scheduler_.Dead()) return Status::Ok();
  auto found = links_.find(peer);
  if (found == links_.end()) return Unavailable("the peer is gone");
  const std::shared_ptr<Link> link = found->second;
  network_.Show(network_.on_send, link->owner, bytes);
  if (link->to_client.queue.size() >= static_cast<std::size_t>(options_.high_water_mark)) {
    network_.scheduler_.trace().Count("high-water mark");
    return ResourceExhausted("the peer's queue is full");
  }
  network_.Send(link, false, bytes);
  return Status::Ok();
}

void SimClient::Close() {
  if (link_ == nullptr) return;
  link_->client = nullptr;
  if (network_.scheduler_.Dead()) network_.LoseInFlight(link_, true);
  if (link_->server != nullptr) {
    // Its last words may still arrive; then the server forgets the connection.
    const TimePoint last = std::max(link_->to_server.last_arrival, network_.scheduler_.Now());
    network_.scheduler_.At(last + std::chrono::milliseconds(1),
                           [&network = network_, link = link_, then = link_->connection] {
                             if (link->connection != then || link->server == nullptr) return;
                             network.LoseInFlight(link, true);
                             network.Disconnect(link);
                           });
  }
  link_.reset();
}

Status SimClient::Reconnect() {
  Close();
  Scheduler& scheduler = network_.scheduler_;
  link_ = std::make_shared<Link>();
  link_->options = options_;
  link_->client = this;
  if (const Process* owner = scheduler.current()) link_->owner = {owner->name(), owner->pid()};
  link_->address = "T" + std::to_string(network_.random_.Next());
  link_->latency = network_.random_.Exponential(network_.faults.latency) + Duration(1000);
  std::erase_if(network_.links_, [](const auto& link) { return link.expired(); });
  network_.links_.push_back(link_);
  scheduler.After(link_->latency,
                  [&network = network_, link = link_] { network.TryConnect(link); });
  return Status::Ok();
}

void SimClient::Wake() {
  woken_ = true;
  network_.scheduler_.Wake(this, true);
}

std::optional<SharedBytes> SimClient::Receive(std::chrono::milliseconds timeout) {
  Scheduler& scheduler = network_.scheduler_;
  const TimePoint deadline = scheduler.Now() + timeout;
  while (!scheduler.Dead()) {
    auto& unread = link_->to_client.unread;
    if (!unread.empty()) {
      std::string bytes = *unread.front();
      unread.pop_front();
      network_.Deliver(link_, false);
      if (bytes.size() > options_.max_message_bytes) continue;
      network_.Show(network_.on_receive, {}, bytes);
      return bytes;
    }
    if (std::exchange(woken_, false)) return std::nullopt;
    if (scheduler.Now() >= deadline) {
      if (timeout.count() == 0) scheduler.Sleep(kLook, "looks");
      return std::nullopt;
    }
    scheduler.Wait(this, deadline, "receives from the broker");
  }
  scheduler.Sleep({}, "is dead");
  return std::nullopt;
}

Status SimClient::Send(SharedBytes bytes) {
  THRESHER_RETURN_IF_ERROR(CheckSize(bytes, options_.max_message_bytes));
  if (network_.scheduler_.Dead()) return Status::Ok();
  if (link_->to_server.queue.size() >= static_cast<std::size_t>(options_.high_water_mark)) {
    network_.scheduler_.trace().Count("high-water mark");
    return ResourceExhausted(options_.endpoint + ": the queue is full");
  }
  network_.Show(network_.on_send, {}, bytes);
  network_.Send(link_, true, bytes);
  return Status::Ok();
}

}  // namespace thresher::sim
