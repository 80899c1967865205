#include "broker/admission.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <random>
#include <vector>

namespace thresher::broker {
namespace {

using Verdict = Admission::Verdict;

constexpr ActorId kA{0}, kB{1}, kC{2};

Admission Make(std::uint64_t budget, std::uint64_t least) { return Admission({budget, least}); }

// Everything taken is recorded, sealed and written.
void WriteAll(Admission& admission) {
  std::vector<std::pair<ActorId, std::uint64_t>> taken;
  for (const auto& [actor, account] : admission.accounts()) {
    for (const auto& [number, upload] : account.uploads) taken.emplace_back(actor, number);
  }
  for (const auto& [actor, number] : taken) admission.NoteHandled(actor, number);
  admission.Seal();
  admission.HandOn();
}

// Its whole share: to begin with it is told of a part.
wire::Credit TellAll(Admission& admission, ActorId actor) {
  if (admission.accounts().at(actor).told == 0) admission.Tell(actor);
  return admission.Tell(actor);
}

// Tells the actor, which obeys at once.
std::uint64_t Heed(Admission& admission, ActorId actor) {
  const wire::Credit credit = TellAll(admission, actor);
  admission.NoteObeyed(actor, credit);
  return credit.bytes;
}

// One actor with a credit of 500 of 1000.
Admission WithActor() {
  Admission admission = Make(1000, 10);
  admission.Join(kA);
  EXPECT_EQ(Heed(admission, kA), 500u);
  return admission;
}

TEST(Admission, EveryActorGetsAnEqualShareAndOneIsKeptForTheNext) {
  Admission admission = Make(1200, 10);
  admission.Join(kA);
  EXPECT_EQ(Heed(admission, kA), 600u);
  admission.Join(kB);
  EXPECT_EQ(Heed(admission, kB), 400u);  // there already, without anybody giving something back
  EXPECT_EQ(Heed(admission, kA), 400u);
  admission.Join(kC);
  for (ActorId actor : {kC, kA, kB}) EXPECT_EQ(Heed(admission, actor), 300u);
  EXPECT_EQ(admission.reserved_bytes(), 900u);
  admission.Leave(kA);
  EXPECT_EQ(Heed(admission, kB), 400u);
}

TEST(Admission, BeginsWithAPartSoThatManyWhoComeAtOnceAllHaveSome) {
  Admission admission = Make(6400, 10);
  std::uint64_t told = 0;
  for (std::uint32_t actor = 0; actor < 63; ++actor) {
    admission.Join(ActorId(actor));
    const std::uint64_t bytes = admission.Tell(ActorId(actor)).bytes;
    EXPECT_EQ(bytes, std::max<std::uint64_t>(10, 6400 / (actor + 2) / 8));
    told += bytes;
  }
  EXPECT_EQ(admission.reserved_bytes(), told);
  for (std::uint32_t actor = 0; actor < 63; ++actor) {
    EXPECT_EQ(Heed(admission, ActorId(actor)), 100u);
  }
}

TEST(Admission, ASmallerCreditCountsOnceItIsObeyed) {
  Admission admission = Make(1200, 10);
  admission.Join(kA);
  const wire::Credit first = TellAll(admission, kA);
  admission.Join(kB);
  const wire::Credit second = admission.Tell(kA);
  EXPECT_EQ(second.bytes, 400u);
  admission.NoteObeyed(kA, first);  // on its way before it knew
  EXPECT_EQ(admission.reserved_bytes(), 600u);
  EXPECT_EQ(admission.Take(kA, 1, 600), Verdict::kTaken);
  WriteAll(admission);
  admission.NoteObeyed(kA, {second.number, 500});  // still unanswered
  EXPECT_EQ(admission.reserved_bytes(), 500u);
  admission.NoteObeyed(kA, second);
  EXPECT_EQ(admission.reserved_bytes(), 400u);
  EXPECT_EQ(admission.Take(kA, 2, 401), Verdict::kRefused);
}

TEST(Admission, WhoDoesNotObeyLosesItAllTheSame) {
  Admission admission = Make(1200, 10);
  admission.Join(kA);
  const wire::Credit first = TellAll(admission, kA);
  admission.Join(kB);
  admission.Tell(kA);
  for (int i = 0; i < 4; ++i) admission.NoteObeyed(kA, first);
  EXPECT_EQ(admission.reserved_bytes(), 600u);
  admission.NoteObeyed(kA, first);
  EXPECT_EQ(admission.reserved_bytes(), 400u);
  admission.Join(kC);
  const wire::Credit third = admission.Tell(kA);
  for (int i = 0; i < 4; ++i) admission.NoteObeyed(kA, {third.number, 9999});
  EXPECT_EQ(admission.reserved_bytes(), 400u);
  admission.NoteObeyed(kA, {third.number, 9999});  // it claims that much is unanswered
  EXPECT_EQ(admission.reserved_bytes(), 300u);
}

TEST(Admission, BytesComeBackWhenTheyAreHandedOnAndNotBefore) {
  Admission admission = WithActor();
  EXPECT_EQ(admission.Take(kA, 1, 300), Verdict::kTaken);
  EXPECT_EQ(admission.Take(kA, 2, 200), Verdict::kTaken);
  EXPECT_EQ(admission.Take(kA, 3, 1), Verdict::kRefused);
  EXPECT_EQ(admission.in_use_bytes(), 500u);
  EXPECT_EQ(admission.accounts().at(kA).refused, 1u);
  WriteAll(admission);
  EXPECT_EQ(admission.in_use_bytes(), 0u);
  EXPECT_EQ(admission.Take(kA, 3, 500), Verdict::kTaken);
}

TEST(Admission, AGroupHandsOnWhatWasRecordedWhenItWasSealed) {
  Admission admission = WithActor();
  for (std::uint64_t n : {1, 2, 3}) ASSERT_EQ(admission.Take(kA, n, 100), Verdict::kTaken);
  admission.NoteHandled(kA, 1);
  admission.Seal();
  admission.NoteHandled(kA, 2);  // while the group is written
  ASSERT_EQ(admission.Take(kA, 4, 100), Verdict::kTaken);
  admission.HandOn();
  EXPECT_EQ(admission.in_use_bytes(), 300u);
  EXPECT_EQ(admission.Take(kA, 2, 100), Verdict::kRepeated);
  admission.Leave(kA);  // what is recorded of it is of the next group
  admission.HandOn();
  EXPECT_EQ(admission.in_use_bytes(), 300u);
  admission.Seal();
  admission.HandOn();
  EXPECT_EQ(admission.in_use_bytes(), 200u);
  EXPECT_EQ(admission.reserved_bytes(), 200u);
}

TEST(Admission, WhatWaitsForTheDiskCountsUntilItIsHandledAlsoWhenItsActorIsGone) {
  Admission admission = WithActor();
  ASSERT_EQ(admission.Take(kA, 1, 100), Verdict::kTaken);
  ASSERT_EQ(admission.Take(kA, 2, 30), Verdict::kTaken);
  admission.Leave(kA);
  admission.Seal();
  admission.HandOn();
  EXPECT_EQ(admission.in_use_bytes(), 130u);
  admission.Join(kA);
  Heed(admission, kA);
  ASSERT_EQ(admission.Take(kA, 1, 100), Verdict::kTaken);  // again
  admission.NoteHandled(kA, 1);                            // the first one
  admission.Seal();
  admission.HandOn();
  EXPECT_EQ(admission.in_use_bytes(), 130u);
  EXPECT_EQ(admission.Take(kA, 1, 100), Verdict::kRepeated);
  admission.NoteDropped(kA, 2);
  EXPECT_EQ(admission.in_use_bytes(), 100u);
  EXPECT_EQ(admission.reserved_bytes(), 500u);
  admission.NoteHandled(kA, 1);
  admission.Seal();
  admission.HandOn();
  EXPECT_EQ(admission.in_use_bytes(), 0u);
}

TEST(Admission, WhatIsNotKeptComesBackAtOnceAndMayBeSentAgain) {
  Admission admission = WithActor();
  ASSERT_EQ(admission.Take(kA, 1, 500), Verdict::kTaken);
  admission.NoteDropped(kA, 1);
  EXPECT_EQ(admission.in_use_bytes(), 0u);
  EXPECT_EQ(admission.Take(kA, 1, 500), Verdict::kTaken);
  admission.NoteHandled(kA, 1);
  admission.NoteDropped(kA, 1);  // too late
  admission.NoteDropped(kB, 7);  // nobody's
  EXPECT_EQ(admission.in_use_bytes(), 500u);
}

TEST(Admission, TheSameUploadTwiceIsCountedOnce) {
  Admission admission = Make(1000, 10);
  admission.Join(kA);
  Heed(admission, kA);
  EXPECT_EQ(admission.Take(kA, 1, 400), Verdict::kTaken);
  EXPECT_EQ(admission.Take(kA, 1, 400), Verdict::kRepeated);
  WriteAll(admission);
  EXPECT_EQ(admission.Take(kA, 1, 400), Verdict::kTaken);
}

TEST(Admission, NobodySendsWithoutHavingJoined) {
  Admission admission = Make(1000, 10);
  EXPECT_EQ(admission.Take(kA, 1, 1), Verdict::kRefused);
  admission.Join(kA);
  EXPECT_EQ(admission.Take(kA, 1, 1), Verdict::kRefused);  // nor before it was told
  EXPECT_EQ(admission.in_use_bytes(), 0u);
}

TEST(Admission, ANewConversationBeginsAnewAndWhatTheOldOneLeftStillCounts) {
  Admission admission = Make(1000, 10);
  admission.Join(kA);
  Heed(admission, kA);
  ASSERT_EQ(admission.Take(kA, 1, 450), Verdict::kTaken);
  admission.NoteHandled(kA, 1);
  admission.Join(kA);
  EXPECT_EQ(admission.reserved_bytes(), 450u);
  EXPECT_EQ(admission.in_use_bytes(), 450u);
  EXPECT_EQ(Heed(admission, kA), 500u);
  EXPECT_EQ(admission.Take(kA, 1, 450), Verdict::kTaken);  // sent again after the reconnect
  WriteAll(admission);
  admission.Leave(kA);
  EXPECT_EQ(admission.reserved_bytes(), 0u);
}

TEST(Admission, AStuckActorHasNothingUntilItSpeaks) {
  Admission admission = Make(900, 10);
  admission.Join(kA);
  admission.Join(kB);
  const wire::Credit first = TellAll(admission, kA);
  ASSERT_EQ(first.bytes, 300u);
  admission.Suspend(kA);
  EXPECT_EQ(admission.reserved_bytes(), 0u);
  EXPECT_EQ(admission.Take(kA, 1, 1), Verdict::kRefused);
  EXPECT_EQ(Heed(admission, kB), 450u);
  const wire::Credit none = admission.Tell(kA);
  EXPECT_EQ(none.bytes, 0u);
  admission.NoteObeyed(kA, first);  // from before
  EXPECT_EQ(admission.Tell(kA), none);
  admission.NoteObeyed(kA, none);
  EXPECT_EQ(Heed(admission, kA), 300u);
  admission.Suspend(kA);
  admission.Resume(kA);
  EXPECT_EQ(Heed(admission, kA), 300u);
}

TEST(Admission, MoreActorsThanSharesTakeTurns) {
  Admission admission = Make(100, 40);
  const std::vector<ActorId> actors = {ActorId(0), ActorId(1), ActorId(2), ActorId(3), ActorId(4)};
  for (ActorId actor : actors) admission.Join(actor);
  std::map<ActorId, int> turns;
  for (int round = 0; round < 60; ++round) {
    for (ActorId actor : actors) {
      const std::uint64_t bytes = Heed(admission, actor);
      EXPECT_TRUE(bytes == 0 || bytes == 40) << bytes;
      turns[actor] += bytes > 0;
    }
    EXPECT_LE(admission.reserved_bytes(), 100u);
  }
  for (ActorId actor : actors) EXPECT_GE(turns[actor], 10) << actor.value;
}

TEST(Admission, ThoseWhoWaitAreInTurnAsSoonAsThereIsRoom) {
  Admission admission = Make(100, 40);
  for (ActorId actor : {kA, kB, kC, ActorId(9)}) {
    admission.Join(actor);
    admission.Tell(actor);
  }
  EXPECT_EQ(admission.waiting(), 2u);
  EXPECT_TRUE(admission.InTurn().empty());
  admission.Leave(kA);
  EXPECT_EQ(admission.InTurn(), std::vector<ActorId>{kC});
  EXPECT_EQ(admission.Tell(ActorId(9)).bytes, 0u) << "it is not its turn";
  EXPECT_EQ(admission.Tell(kC).bytes, 40u);
  EXPECT_TRUE(admission.InTurn().empty());
  admission.Leave(kB);
  admission.Leave(kC);
  EXPECT_EQ(admission.InTurn(), std::vector<ActorId>{ActorId(9)});
}

TEST(Admission, WhoHasUsedItsCreditGivesItToThoseWhoWait) {
  Admission admission = Make(50, 40);
  admission.Join(kA);
  admission.Join(kB);
  ASSERT_EQ(Heed(admission, kA), 40u);
  ASSERT_EQ(Heed(admission, kB), 0u);
  EXPECT_EQ(Heed(admission, kA), 40u);  // its turn has only begun
  ASSERT_EQ(admission.Take(kA, 1, 40), Verdict::kTaken);
  WriteAll(admission);
  EXPECT_EQ(Heed(admission, kA), 0u);
  EXPECT_EQ(Heed(admission, kB), 40u);
}

// ---- against a model

// An actor that keeps to the rules, with messages under way in both directions.
struct Sender {
  std::vector<wire::Credit> to_it;                                 // under way
  std::vector<std::pair<std::uint64_t, std::uint64_t>> to_broker;  // uploads under way
  std::vector<wire::Credit> obeyed;                                // heartbeats under way
  wire::Credit credit;
  std::uint64_t unanswered = 0;
  std::uint64_t uploads = 0;
  std::uint64_t sent_in_all = 0;
  bool floods = false;  // sends whatever it likes
  bool suspended = false;
  int unheeded = 0;
  bool was_cut = false;  // the broker waited too long for it
};

// What may be held, worked out from all that was ever told rather than from running sums.
struct Model {
  std::map<ActorId, std::vector<wire::Credit>> told;  // since the newest that is obeyed
  std::map<ActorId, std::uint64_t> held;              // of that one
  struct Upload {
    ActorId actor;
    std::uint64_t number, bytes;
    bool left = false;  // behind
    bool gone = false;  // its sender: nobody waits for the answer
  };
  std::vector<Upload> taken;  // by the broker, in order, not handed on

  // Of those who are there; of those who are not, whose number is left out.
  std::uint64_t InUse(std::optional<ActorId> actor) const {
    std::uint64_t sum = 0;
    for (const Upload& u : taken)
      sum += u.left == !actor && (!actor || u.actor == *actor) ? u.bytes : 0;
    return sum;
  }
  void LeaveBehind(ActorId actor) {
    for (Upload& upload : taken) upload.left |= upload.actor == actor;
  }

  std::uint64_t Reserved(ActorId actor) const {
    std::uint64_t most = held.at(actor);
    for (const wire::Credit& credit : told.at(actor)) most = std::max(most, credit.bytes);
    return most;
  }
  std::uint64_t Sum() const {
    std::uint64_t sum = InUse(std::nullopt);
    for (const auto& [actor, credits] : told) sum += Reserved(actor);
    return sum;
  }
};

class AdmissionStorm {
 public:
  explicit AdmissionStorm(unsigned seed) : random_(seed) {
    least_ = 1 + Below(50);
    budget_ = least_ + Below(1000);
    admission_.emplace(Admission::Limits{budget_, least_});
  }

  void Run() {
    for (int i = 0; i < 3000; ++i) {
      Act();
      Check();
    }
    Settle();
  }

 private:
  std::uint64_t Below(std::uint64_t n) { return random_() % n; }

  void Join(ActorId actor) {
    Leave(actor);
    admission_->Join(actor);
    Sender sender;
    sender.floods = actor.value == 0;
    senders_[actor] = sender;
    model_.told[actor] = {};
    model_.held[actor] = 0;
    Tell(actor);
  }

  void Leave(ActorId actor) {
    admission_->Leave(actor);
    if (senders_.erase(actor) == 0) return;
    model_.LeaveBehind(actor);
    for (Model::Upload& upload : model_.taken) upload.gone |= upload.actor == actor;
    model_.told.erase(actor);
    model_.held.erase(actor);
  }

  void Suspend(ActorId actor) {
    admission_->Suspend(actor);
    model_.LeaveBehind(actor);
    model_.held[actor] = 0;
    senders_[actor].was_cut = true;
    if (std::exchange(senders_[actor].suspended, true)) return;
    model_.told[actor].clear();
    Tell(actor);
  }

  void Tell(ActorId actor) {
    const wire::Credit credit = admission_->Tell(actor);
    auto& told = model_.told[actor];
    if (told.empty() || told.back().number != credit.number) {
      told.push_back(credit);
      senders_[actor].unheeded = 0;
    }
    senders_[actor].to_it.push_back(credit);
    const auto active =
        std::ranges::count_if(senders_, [](const auto& entry) { return !entry.second.suspended; });
    EXPECT_LE(credit.bytes, std::max(least_, budget_ / (static_cast<std::uint64_t>(active) + 1)));
    EXPECT_TRUE(credit.bytes == 0 || credit.bytes >= least_);
  }

  void Receive(ActorId actor, Sender& sender) {
    const auto [number, bytes] = sender.to_broker.front();
    sender.to_broker.erase(sender.to_broker.begin());
    const bool fits = model_.InUse(actor) + bytes <= model_.Reserved(actor);
    const Verdict verdict = admission_->Take(actor, number, bytes);
    EXPECT_EQ(verdict, fits ? Verdict::kTaken : Verdict::kRefused);
    if (verdict == Verdict::kTaken) {
      model_.taken.push_back({actor, number, bytes});
    } else {
      sender.unanswered -= std::min(bytes, sender.unanswered);  // it is told to send it again
      EXPECT_TRUE(sender.floods || sender.was_cut) << "one that keeps to its credit is refused";
    }
  }

  void Send(Sender& sender) {
    const std::uint64_t bytes = 1 + Below(least_);
    if (!sender.floods && sender.unanswered + bytes > sender.credit.bytes) return;
    sender.to_broker.emplace_back(++sender.uploads, sender.floods ? 1 + Below(budget_) : bytes);
    sender.unanswered += bytes;
    sender.sent_in_all += bytes;
  }

  void Beat(ActorId actor, Sender& sender) {
    if (!sender.to_it.empty()) {
      sender.credit = sender.to_it.front();
      sender.to_it.erase(sender.to_it.begin());
    }
    if (Below(2) == 0) {
      sender.obeyed.push_back(
          {sender.credit.number, std::max(sender.credit.bytes, sender.unanswered)});
    }
    if (sender.obeyed.empty()) return;
    const wire::Credit obeyed = sender.obeyed.front();
    sender.obeyed.erase(sender.obeyed.begin());
    auto& told = model_.told[actor];
    if (told.back().number == obeyed.number) {
      admission_->NoteObeyed(actor, obeyed);
      sender.suspended = false;
      const std::uint64_t before = model_.Reserved(actor);
      told = {told.back()};
      sender.unheeded = obeyed.bytes > told.back().bytes ? sender.unheeded + 1 : 0;
      sender.was_cut |= sender.unheeded >= 5;
      model_.held[actor] =
          std::min(before, std::max({told.back().bytes, sender.unheeded < 5 ? obeyed.bytes : 0,
                                     model_.InUse(actor)}));
    }
    Tell(actor);
  }

  // The first `count` that wait are handled, the rest waits on. Some were not worth keeping.
  void HandOn(std::size_t count) {
    std::vector<Model::Upload> handled(model_.taken.begin(), model_.taken.begin() + long(count));
    model_.taken.erase(model_.taken.begin(), model_.taken.begin() + long(count));
    for (const Model::Upload& upload : handled) {
      if (Below(8) == 0) {
        admission_->NoteDropped(upload.actor, upload.number);
      } else {
        admission_->NoteHandled(upload.actor, upload.number);
      }
    }
    admission_->Seal();
    admission_->HandOn();
    for (const Model::Upload& upload : handled) {
      if (upload.gone) continue;
      Sender& sender = senders_[upload.actor];
      sender.unanswered -= std::min(upload.bytes, sender.unanswered);
      Tell(upload.actor);
    }
  }

  void Come(ActorId actor) {
    const std::uint64_t what = Below(3);
    if (what == 0) return Join(actor);
    what == 1 ? Leave(actor) : Suspend(actor);
  }

  void Act() {
    const ActorId actor(static_cast<std::uint32_t>(Below(8)));
    auto found = senders_.find(actor);
    if (found == senders_.end()) {
      if (Below(4) == 0) Join(actor);
      return;
    }
    Sender& sender = found->second;
    switch (Below(16)) {
      case 0:
        return Below(4) == 0 ? Come(actor) : HandOn(Below(model_.taken.size() + 1));
      case 1:
      case 2:
      case 3:
      case 4:
        return Beat(actor, sender);
      case 5:
      case 6:
      case 7:
      case 8:
        if (!sender.to_broker.empty()) Receive(actor, sender);
        return;
      default:
        return Send(sender);
    }
  }

  void Check() {
    EXPECT_EQ(admission_->reserved_bytes(), model_.Sum());
    EXPECT_LE(admission_->reserved_bytes(), budget_);
    std::uint64_t in_use = model_.InUse(std::nullopt);
    for (const auto& [actor, sender] : senders_) {
      const std::uint64_t bytes = model_.InUse(actor);
      EXPECT_EQ(admission_->accounts().at(actor).in_use, bytes);
      EXPECT_LE(bytes, admission_->accounts().at(actor).reserved);
      in_use += bytes;
    }
    EXPECT_EQ(admission_->in_use_bytes(), in_use);
    EXPECT_LE(in_use, budget_);
  }

  // When everybody goes on, everybody gets through: nothing leaks, nobody starves.
  void Settle() {
    for (auto& [actor, sender] : senders_) sender.sent_in_all = 0;
    for (int i = 0; i < 400; ++i) {
      for (auto& [actor, sender] : senders_) {
        if (sender.to_it.size() > 1) {  // it reads faster than it is told
          sender.to_it = {sender.to_it.back()};
          sender.obeyed.clear();
        }
        Beat(actor, sender);
        Send(sender);
        while (!sender.to_broker.empty()) Receive(actor, sender);
      }
      HandOn(model_.taken.size());
    }
    Check();
    for (auto& [actor, sender] : senders_) EXPECT_GT(sender.sent_in_all, 0u) << actor.value;
  }

  std::mt19937_64 random_;
  std::uint64_t least_ = 1, budget_ = 1;
  std::optional<Admission> admission_;
  std::map<ActorId, Sender> senders_;
  Model model_;
};

TEST(Admission, AgreesWithAModelThatForgetsNothing) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    AdmissionStorm(seed).Run();
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

TEST(IssueRoom, IsACountOfGroups) {
  EXPECT_EQ(IssueRoom(0, 8, 0, 5, 5), 8u);  // sync: a whole step, of exactly this version
  EXPECT_EQ(IssueRoom(8, 8, 0, 5, 5), 0u);
  EXPECT_EQ(IssueRoom(0, 8, 0, 5, 4), 0u);
  EXPECT_EQ(IssueRoom(5, 8, 2, 5, 5), 19u);
  EXPECT_EQ(IssueRoom(5, 8, 2, 5, 4), 11u);
  EXPECT_EQ(IssueRoom(5, 8, 2, 5, 3), 3u);
  EXPECT_EQ(IssueRoom(9, 8, 2, 5, 3), 0u);
  EXPECT_EQ(IssueRoom(0, 8, 2, 5, 2), 0u);
}

// First in, first out: whatever is granted by the count, nothing is trained more than max_staleness
// versions after it was generated.
TEST(IssueRoom, KeepsTheBoundWhateverActorsHold) {
  std::mt19937_64 random(3);
  for (int run = 0; run < 200; ++run) {
    const auto groups = static_cast<std::uint32_t>(1 + random() % 5);
    const auto bound = static_cast<std::uint32_t>(random() % 4);
    std::deque<std::uint32_t> queue;  // versions, by issue
    std::uint32_t step = 0;
    for (int i = 0; i < 500; ++i) {
      const std::uint32_t version = step - std::min<std::uint32_t>(step, random() % (bound + 2));
      if (IssueRoom(queue.size(), groups, bound, step, version) > 0) queue.push_back(version);
      if (queue.size() < groups || random() % 3 != 0) continue;
      for (std::uint32_t g = 0; g < groups; ++g) {
        EXPECT_LE(step - queue.front(), bound);
        queue.pop_front();
      }
      ++step;
    }
    EXPECT_GT(step, 10u);
  }
}

}  // namespace
}  // namespace thresher::broker
