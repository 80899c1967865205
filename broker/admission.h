#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "common/base/ids.h"
#include "common/wire/messages.h"

namespace thresher::broker {

// How many bytes the actors may have under way: sent, and not handed on yet. One budget for all.
// An actor is told its credit and keeps what it has sent and not seen answered within it; an
// answer comes after the bytes are handed on, so what is told bounds what this process holds.
//
// Every actor gets an equal share of the budget, at first a part of it; one share is kept free for
// who comes next. A
// larger credit holds at once, a smaller one when the actor says that it obeys: until then the
// larger is counted (`reserved`). When there are more actors than least shares, they take turns.
//
// Invariants: in use <= reserved of each actor; the sum of reserved and of what departed actors
// left behind <= budget. Nothing here can wait for ever: a share is at least the largest record,
// and what is in use comes back with the next commit, whatever became of its group. Plain data: no
// thread, socket or clock.
class Admission {
 public:
  struct Limits {
    std::uint64_t budget_bytes = 0;
    std::uint64_t least_bytes = 1;  // of a credit that is of any use: the largest record
  };
  enum class Verdict {
    kTaken,
    kRepeated,  // an upload of this number is in use
    kRefused,   // beyond the credit
  };
  enum class Phase : std::uint8_t { kWaiting, kRecorded, kSealed };
  struct Upload {
    std::uint64_t bytes = 0;
    Phase phase = Phase::kWaiting;
  };
  struct Account {
    std::uint64_t number = 0;  // of the credit told last
    std::uint64_t told = 0;
    std::uint64_t reserved = 0;
    std::uint64_t in_use = 0;
    std::uint64_t refused = 0;     // uploads
    std::uint32_t told_times = 0;  // since it was told nothing
    std::uint64_t ticket = 0;      // its place among those who wait; 0: it does not
    bool suspended = false;
    std::uint32_t unheeded = 0;                 // heartbeats in a row that it kept more
    std::map<std::uint64_t, Upload> uploads{};  // in use
  };

  explicit Admission(const Limits& limits) : limits_(limits) {}

  // A new conversation: what was told in an earlier one no longer holds.
  void Join(ActorId actor);
  // Gone, or silent: its credit goes to the others. It may join again.
  void Leave(ActorId actor);
  // Its connection lives, but it does nothing: its credit goes to the others until it obeys (it is
  // told to have none) or Resume.
  void Suspend(ActorId actor);
  void Resume(ActorId actor);
  bool Joined(ActorId actor) const { return accounts_.contains(actor); }

  // What to tell an actor that has joined (checked) now: with each answer.
  wire::Credit Tell(ActorId actor);
  // The actor obeys `obeyed.number` and has no more than `obeyed.bytes` under way, or will have.
  // Who keeps more than it was told for long loses it all the same.
  void NoteObeyed(ActorId actor, const wire::Credit& obeyed);
  // An upload has arrived. When it is not kTaken its bytes are not to be kept.
  Verdict Take(ActorId actor, std::uint64_t upload, std::uint64_t bytes);
  // What is to be written of it is recorded. (Until then the frame may wait for the disk, also for
  // longer than its actor stays.)
  void NoteHandled(ActorId actor, std::uint64_t upload);
  // It is not kept, and will not be handled.
  void NoteDropped(ActorId actor, std::uint64_t upload);
  // What is recorded now is in the group that is written next.
  void Seal();
  // What was sealed is handed on: written, and kept in memory by nobody but the cache.
  void HandOn();

  const Limits& limits() const { return limits_; }
  // In no order.
  const std::unordered_map<ActorId, Account>& accounts() const { return accounts_; }
  std::uint64_t reserved_bytes() const { return reserved_; }
  std::uint64_t told_bytes() const { return told_; }
  std::uint64_t in_use_bytes() const { return in_use_; }
  std::size_t waiting() const { return waiting_.size(); }
  // Those who wait and would be told something now, in order.
  std::vector<ActorId> InTurn() const;

 private:
  // Takes all credit back; what is in use counts on.
  void TakeBack(ActorId actor, Account& account);
  // The upload that waits, the oldest of that number; null: there is none.
  Upload* Waiting(ActorId actor, std::uint64_t upload);
  // What every actor may have.
  std::uint64_t Share() const;
  std::uint64_t Free() const { return limits_.budget_bytes - reserved_; }
  // It has had credit for a while that others wait for.
  bool TurnIsOver(const Account& account) const;
  // Whether what is free lasts for it and those who wait before it.
  bool HasTurn(const Account& account) const;
  void StopWaiting(Account& account);
  // For how many of those who wait what is free lasts.
  std::uint64_t Turns() const { return Free() / limits_.least_bytes; }
  void Reserve(Account& account, std::uint64_t bytes);

  Limits limits_;
  std::unordered_map<ActorId, Account> accounts_;
  std::map<std::uint64_t, ActorId> waiting_;  // told nothing for lack of free bytes, by ticket
  std::uint64_t tickets_ = 0;
  std::vector<ActorId> users_;  // with uploads in use, in the order of the first of them
  std::size_t suspended_ = 0;
  std::uint64_t numbers_ = 0;      // of credits told
  std::uint64_t told_ = 0;         // over all accounts
  std::uint64_t reserved_ = 0;     // over all accounts, and left_behind_
  std::uint64_t in_use_ = 0;       // as reserved_
  std::uint64_t left_behind_ = 0;  // in use by actors that left: the sum of left_
  struct Left {
    ActorId actor;
    std::uint64_t number = 0;
    Upload upload;
  };
  std::vector<Left> left_;  // oldest first
};

// Groups that may be issued now: a count, no estimate, so that keeping the bound biases nothing.
// A new item is granted only if queued < step_groups * (max_staleness + 1 - (next_step - version)),
// `queued` being the groups issued and neither trained nor dropped, `next_step` the next step to be
// committed, `version` the one that the actor holds, at most next_step.
std::uint64_t IssueRoom(std::uint64_t queued, std::uint32_t step_groups,
                        std::uint32_t max_staleness, std::uint32_t next_step,
                        std::uint32_t version);

}  // namespace thresher::broker
