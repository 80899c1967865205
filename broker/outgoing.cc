#include "broker/outgoing.h"

#include <algorithm>
#include <utility>

namespace thresher::broker {
namespace {

constexpr std::size_t kPeers = 16;  // that may have all that is under way

}  // namespace

struct Outgoing::Held {
  std::string frame;
  Counter of_peer, of_all;
  Held(std::string bytes, Counter peer, Counter all)
      : frame(std::move(bytes)), of_peer(std::move(peer)), of_all(std::move(all)) {
    *of_peer += frame.size();
    *of_all += frame.size();
  }
  ~Held() {
    *of_peer -= frame.size();
    *of_all -= frame.size();
  }
};

bool Outgoing::HasRoom(const net::PeerAddress& peer) const {
  auto account = accounts_.find(peer);
  const std::size_t of_peer = account == accounts_.end() ? 0 : account->second.bytes();
  return bytes() < limit_ && of_peer < limit_ / kPeers;
}

void Outgoing::Queue(const net::PeerAddress& peer, std::size_t bytes) {
  if (accounts_.size() >= tidy_at_) Tidy();
  accounts_[peer].queued += bytes;
  queued_ += bytes;
}

void Outgoing::Unqueue(const net::PeerAddress& peer, std::size_t bytes) {
  accounts_.at(peer).queued -= bytes;
  queued_ -= bytes;
}

SharedBytes Outgoing::Hold(const net::PeerAddress& peer, std::string frame) {
  auto held = std::make_shared<const Held>(std::move(frame), accounts_[peer].held, held_);
  const std::string_view view = held->frame;
  return SharedBytes(std::move(held), view, view.size());
}

void Outgoing::Tidy() {
  std::erase_if(accounts_, [](const auto& entry) { return entry.second.bytes() == 0; });
  tidy_at_ = std::max<std::size_t>(64, 2 * accounts_.size());
}

}  // namespace thresher::broker
