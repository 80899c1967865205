#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "broker/broker_loop.h"
#include "common/base/clock.h"
#include "common/net/socket.h"
#include "common/wire/frame.h"
#include "tests/fuzz/wire/frame_mutation.h"
#include "tests/unit/broker/support.h"

namespace thresher::fuzz {

// Peers of one broker whose words a recipe chooses: true ones, from what the broker has told them,
// false ones, words in another's name, of another run or version, and bytes that are no words.
// Stands in the network's place (Transport): each time the broker has nothing left to read, one
// more word is said. Ends the broker when the recipe is over, and now and then when the recipe says
// so, and lets it start again from its files. What must never happen is a failed check. What comes
// from somebody who may not speak must be counted and change nothing.
class Script : public net::Transport {
 public:
  Script(Recipe recipe, const Config& config, const Hash128& run_id);

  Result<std::unique_ptr<net::Server>> Bind(const net::ServerOptions& options) override;
  Result<std::unique_ptr<net::Client>> Connect(const net::ClientOptions& options) override;

  // One life of the broker; false when the recipe is over.
  bool Live(const broker::BrokerOptions& options);
  std::uint64_t frames() const { return frames_; }    // said so far
  std::uint64_t refused() const { return refused_; }  // those of whom may not speak

 private:
  class Wire;  // the server that the broker gets
  struct Lent {
    std::size_t peer = 0;
    wire::Lease lease;
  };
  struct Peer {
    const char* address;
    const char* key;
    wire::PeerRole role;
    std::uint32_t index;
    Incarnation incarnation;
    std::uint64_t sequence = 0;
    wire::Credit credit{};  // told last
  };

  // What a frame of somebody who may not speak must leave as it was; how many were counted.
  struct Standing {
    std::string state;  // and who is connected
    double counted = 0;
    friend bool operator==(const Standing&, const Standing&) = default;
  };

  // What the broker reads next; nothing: the script waits for it to do its work.
  std::optional<net::Received> Next();
  bool MustRefuse(const net::Received& received) const;
  Standing Look() const;
  void CheckRefused();
  void Hear(const net::PeerAddress& address, std::string_view bytes);
  void Learn(std::size_t peer, const wire::Message& message);

  void Step();
  void Say(std::size_t peer, const wire::Message& message);
  void SayHello(std::size_t peer);
  void SayBeat(std::size_t peer);
  void SayUpload(std::size_t peer);
  void SayStep();
  void SayPublish();
  void SayWork(std::size_t peer, std::size_t what);
  void SayBytes(std::size_t peer);
  void SayWord(std::size_t peer, std::size_t what);
  void SayFalsely(std::size_t peer);
  std::optional<Lent> AnyLease();
  void CheckVerdicts(const wire::UploadAck& ack);

  Recipe recipe_;
  const Config& config_;
  Hash128 run_id_;
  ManualClock clock_;
  std::vector<Peer> peers_;
  std::deque<net::Received> unread_;
  broker::BrokerLoop* loop_ = nullptr;
  bool restart_ = false;
  std::uint64_t frames_ = 0, refused_ = 0;
  std::optional<Standing> before_;  // the frame that the broker has in hand, when it must refuse it
  // What the peers know.
  std::vector<Lent> leases_;
  std::map<std::uint64_t, std::vector<bool>> must_refuse_;  // upload: by record
  std::optional<wire::LeafPart> part_;
  std::uint32_t committed_ = 0;
  Hash128 chain_;
  std::map<std::uint32_t, Hash128> chains_;  // by steps
  std::string blob_;
  std::uint64_t uploads_ = 0;
};

}  // namespace thresher::fuzz
