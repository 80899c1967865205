#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "common/base/ids.h"
#include "common/base/status.h"

namespace thresher::broker {

// Tokens that were drawn and have to be drawn again, as far as anybody can know, and those that
// were spared this. An actor tells how many it has drawn that nobody else has (unsaved), and how
// many it gave up, or drew while another one finished the sample. When its process ends without a
// word, what it had unsaved when it was last heard is lost; what it drew since nobody knows: at
// most a heartbeat's worth, and of each sequence at most actors.partial_tokens. So after a death of
// everything this is a lower bound. Plain data, one owner.
class TokenTally {
 public:
  // As an actor counts them, of its process.
  struct Told {
    std::uint64_t unsaved = 0;    // now
    std::uint64_t lost = 0;       // in all
    std::uint64_t continued = 0;  // in all: drawn before by somebody else, and gone on with
    friend bool operator==(const Told&, const Told&) = default;
  };

  // A process speaks in this slot: what another one there had alone is lost.
  void Speaks(ActorId actor, Incarnation incarnation);
  void Note(ActorId actor, const Told& told);
  // It ends, and says how much it gave up, and went on with, in all.
  void Leaves(ActorId actor, std::uint64_t lost, std::uint64_t continued);
  // Nothing is heard of it: what it has unsaved is taken for lost until it speaks again.
  void Silent(ActorId actor);
  // Tokens that were saved and are gone.
  void Add(std::uint64_t tokens) { lost_ += tokens; }

  std::uint64_t twice() const;
  std::uint64_t continued() const { return continued_; }

  // For another broker process, which counts what actors had unsaved as lost until they speak.
  std::string Encode() const;
  // Error: kDataLoss.
  static Result<TokenTally> Decode(std::string_view bytes);
  friend bool operator==(const TokenTally&, const TokenTally&) = default;

 private:
  struct Process {
    Incarnation incarnation;
    Told told{};        // but for `unsaved` counted below
    bool heard = true;  // by this process, and not silent since
    friend bool operator==(const Process&, const Process&) = default;
  };

  std::map<ActorId, Process> processes_;
  std::uint64_t lost_ = 0, continued_ = 0;
};

}  // namespace thresher::broker
