#pragma once

#include <cstddef>
#include <iterator>
#include <utility>
#include <variant>
#include <vector>

#include "common/net/socket.h"
#include "common/wire/messages.h"

namespace thresher::broker {

// Of what a peer asked for, its payload; the rest of a message is small.
inline std::size_t PayloadBytes(const wire::Message& message) {
  if (const auto* chunk = std::get_if<wire::Chunk>(&message)) return chunk->bytes.size();
  std::size_t bytes = 0;
  if (const auto* grant = std::get_if<wire::LeaseGrant>(&message)) {
    for (const SharedBytes& prefix : grant->prefixes) bytes += prefix.size();
  }
  const auto* part = std::get_if<wire::LeafPart>(&message);
  for (std::size_t i = 0; part != nullptr && i < part->records.size(); ++i) {
    bytes += part->records[i].size();
  }
  return bytes;
}

// Frames to be sent. Send waits until everything journalled so far is written, so that nobody sees
// an effect that a death of the broker would undo: Seal when a group of records is sealed, Release
// when it is written. SendNow is for answers that depend on nothing in the journal. Order per peer
// is kept within each of the two. One owner.
class Outbox {
 public:
  using Item = std::pair<net::PeerAddress, wire::Message>;

  void Send(const net::PeerAddress& peer, wire::Message message) {
    open_.emplace_back(peer, std::move(message));
  }
  void SendNow(const net::PeerAddress& peer, wire::Message message) {
    now_.emplace_back(peer, std::move(message));
  }
  // What waits until now belongs to the sealed group; what comes later to one after it.
  void Seal() { Move(open_, sealed_); }
  // What was sealed may leave.
  void Release() { Move(sealed_, now_); }
  // Replaces `items` by what may leave; its memory is used again.
  void Take(std::vector<Item>& items) {
    items.clear();
    items.swap(now_);
  }
  // visit(message) for each that waits for a group.
  template <typename Visit>
  void ForEachWaiting(Visit&& visit) const {
    for (const std::vector<Item>* items : {&sealed_, &open_}) {
      for (const Item& item : *items) visit(item.second);
    }
  }

 private:
  static void Move(std::vector<Item>& from, std::vector<Item>& to) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
    from.clear();
  }

  std::vector<Item> open_, sealed_, now_;
};

}  // namespace thresher::broker
