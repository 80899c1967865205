#include "broker/work_source.h"

#include <gtest/gtest.h>

#include <random>

#include "broker/batcher.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

class WorkSourceTest : public ::testing::Test {
 protected:
  Config config_ = TinyConfig();
  RunState state_{Plan(config_)};
  WorkSource work_{config_};
  LeaseTable leases_{BrokerEpoch(1), {std::chrono::hours(1), std::chrono::hours(1), 3}};

  void Apply(const wire::JournalRecord& record) {
    Status status = state_.Apply(record);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  void IssueAll() {
    for (const auto& issued : work_.Issuable(state_)) Apply(issued);
  }
  void Publish(std::uint32_t step) {
    Apply(wire::VersionPublished{V(step), H("w" + std::to_string(step)), 10});
  }
  // Accepts everything of a step, composes and commits it.
  void FinishStep(std::uint32_t step) {
    const wire::ItemsIssued issued = state_.groups().FindUnit({false, step})->issued;
    std::vector<TrajectoryId> ids;
    std::vector<wire::BatchEntry> entries;
    for (std::uint64_t i = 0; i < issued.items; ++i) {
      for (std::uint32_t s = 0; s < issued.samples; ++s) {
        auto record = Accepted(Id(issued.stream, issued.first_item + i, s), s);
        Apply(record);
        ids.push_back(record.id);
        entries.push_back({record.id, record.content_hash});
      }
    }
    Hash128 digest = wire::HashBatch(entries);
    Apply(wire::BatchComposed{0, step, digest, ids, 0});
    Apply(wire::StepCommitted{0, step, digest, wire::HashChain(state_.ChainBefore(step), digest),
                              H("s"), 1, 0, 0, false});
  }
  void FinishSupervised() {
    for (std::uint32_t step = 0; step < 2; ++step) {
      IssueAll();
      FinishStep(step);
    }
  }
  static ActorView View(std::uint32_t actor, std::optional<std::uint32_t> version,
                        std::uint32_t capacity = 100) {
    return {ActorId(actor), version.has_value(), V(version.value_or(0)), capacity};
  }
  static std::uint32_t Count(const Selection& selection) {
    std::uint32_t count = 0;
    for (const auto& lease : selection.leases) count += lease.samples;
    return count;
  }
};

TEST_F(WorkSourceTest, SupervisedStepsAreIssuedUpToTheLookahead) {
  config_.supervised.steps = 5;
  RunState state{Plan(config_)};
  auto issued = WorkSource(config_).Issuable(state);
  ASSERT_EQ(issued.size(), 2u);  // the next step and one ahead
  EXPECT_EQ(issued[0].step, 0u);
  EXPECT_EQ(issued[1].step, 1u);
  EXPECT_EQ(issued[0].stream, Stream::kSupervised);
  ASSERT_TRUE(state.Apply(issued[0]).ok());
  ASSERT_TRUE(state.Apply(issued[1]).ok());
  EXPECT_TRUE(WorkSource(config_).Issuable(state).empty());
}

TEST_F(WorkSourceTest, AnRlStepWaitsForItsVersion) {
  FinishSupervised();
  EXPECT_TRUE(work_.Issuable(state_).empty());
  Publish(2);
  auto issued = work_.Issuable(state_);
  ASSERT_EQ(issued.size(), 2u);
  EXPECT_EQ(issued[0].stream, Stream::kTrain);
  EXPECT_EQ(issued[0].step, 2u);
  EXPECT_EQ(issued[0].version, V(2));
  EXPECT_EQ(issued[1].stream, Stream::kEval);
}

TEST_F(WorkSourceTest, TrainingComesBeforeEvaluationOfTheSameVersion) {
  FinishSupervised();
  Publish(2);
  IssueAll();
  ActorView actor = View(0, 2);
  Selection first = work_.Select(state_, leases_, actor, 6, {actor});
  ASSERT_EQ(Count(first), 6u);
  for (const auto& lease : first.leases) {
    EXPECT_EQ(lease.purpose, wire::Purpose::kTrain);
    EXPECT_TRUE(lease.pinned);
    EXPECT_EQ(lease.version, V(2));
    EXPECT_EQ(lease.samples, 2u) << "whole items where they fit";
    leases_.Grant(ActorId(0), lease, TimePoint{});
  }
  Selection second = work_.Select(state_, leases_, actor, 6, {actor});
  EXPECT_EQ(Count(second), 6u);
  EXPECT_EQ(second.leases.front().purpose, wire::Purpose::kEvaluate);
}

TEST_F(WorkSourceTest, AnEvaluationDoesNotTiltTheSharingOfTraining) {
  FinishSupervised();
  Publish(2);
  IssueAll();  // 6 samples to train on, 6 to evaluate
  ActorView a = View(0, 2);
  ActorView b = View(1, 2);
  Selection first = work_.Select(state_, leases_, a, 100, {a, b});
  std::uint32_t training = 0;
  for (const auto& lease : first.leases) {
    if (lease.purpose == wire::Purpose::kTrain) training += lease.samples;
  }
  EXPECT_EQ(training, 4u) << "half of 6, rounded up to whole items";
  EXPECT_EQ(Count(first), 8u);
}

TEST_F(WorkSourceTest, PinnedWorkGoesOnlyToActorsThatHoldTheVersion) {
  FinishSupervised();
  Publish(2);
  IssueAll();
  ActorView other = View(1, 1);
  ActorView holder = View(0, 2);
  EXPECT_TRUE(work_.Select(state_, leases_, other, 10, {other, holder}).leases.empty());
  EXPECT_TRUE(work_.Select(state_, leases_, View(1, std::nullopt), 10, {holder}).leases.empty());
}

TEST_F(WorkSourceTest, AnOlderVersionGetsWhatIsLeftOfIt) {
  FinishSupervised();
  Publish(2);
  IssueAll();
  FinishStep(2);
  Publish(3);
  IssueAll();
  ActorView old = View(0, 2);
  ActorView current = View(1, 3);
  Selection left = work_.Select(state_, leases_, old, 100, {old, current});
  ASSERT_FALSE(left.leases.empty());
  EXPECT_EQ(left.leases.front().purpose, wire::Purpose::kEvaluate);
  EXPECT_EQ(left.leases.front().version, V(2));
  Selection next = work_.Select(state_, leases_, current, 100, {old, current});
  EXPECT_EQ(next.leases.front().version, V(3));
  EXPECT_FALSE(next.adopts_version);
}

TEST_F(WorkSourceTest, ARoundWhoseHoldersDiedIsTakenUpByAnIdleActor) {
  FinishSupervised();
  Publish(2);
  IssueAll();
  FinishStep(2);
  Publish(3);
  IssueAll();
  ActorView survivor = View(1, 3);
  Selection training = work_.Select(state_, leases_, survivor, 100, {survivor});
  EXPECT_FALSE(training.adopts_version);
  FinishStep(3);  // its own work is done
  Selection orphans = work_.Select(state_, leases_, survivor, 100, {survivor});
  EXPECT_TRUE(orphans.adopts_version);
  EXPECT_EQ(orphans.leases.front().version, V(2));
  ActorView holder = View(0, 2);
  EXPECT_TRUE(work_.Select(state_, leases_, survivor, 100, {survivor, holder}).leases.empty());
}

TEST_F(WorkSourceTest, LostSamplesGoToWhoHoldsTheirVersion) {
  const std::set<TrajectoryId> lost = {Id(Stream::kSupervised, 1), Id(Stream::kTrain, 0, 1),
                                       Id(Stream::kTrain, 1, 0), Id(Stream::kTrain, 3, 0)};
  auto names = [&](const ActorView& actor, const LiveActors& live, bool adopts = false) {
    const Selection given = work_.SelectLost(state_, leases_, lost, actor, 100, live);
    EXPECT_EQ(given.adopts_version, adopts);
    std::vector<TrajectoryId> ids;
    for (const wire::Lease& lease : given.leases) {
      EXPECT_EQ(lease.samples, 1u);
      EXPECT_EQ(lease.group_size, lease.stream == Stream::kTrain ? 2u : 1u);
      EXPECT_EQ(lease.pinned, lease.stream == Stream::kTrain);
      ids.push_back(Id(lease.stream, lease.item, lease.first_sample));
    }
    return ids;
  };
  using Ids = std::vector<TrajectoryId>;
  // Steps 2 and 3 of the run are RL, of three groups each.
  const ActorView two = View(0, 2), three = View(1, 3), four = View(2, 4), none = View(3, {});
  EXPECT_EQ(names(two, {two, three}),
            (Ids{Id(Stream::kTrain, 0, 1), Id(Stream::kTrain, 1, 0), Id(Stream::kSupervised, 1)}));
  EXPECT_EQ(names(three, {two, three}),
            (Ids{Id(Stream::kTrain, 3, 0), Id(Stream::kSupervised, 1)}));
  EXPECT_EQ(names(none, {two, three, none}), (Ids{Id(Stream::kSupervised, 1)}));
  // Nobody holds version 2: whoever is idle loads it, and nothing else meanwhile.
  EXPECT_EQ(names(four, {three, four}, true),
            (Ids{Id(Stream::kTrain, 0, 1), Id(Stream::kTrain, 1, 0)}));
  wire::Lease lease;
  lease.stream = Stream::kTrain;
  lease.item = 1;
  lease.samples = 1;
  leases_.Grant(ActorId(2), lease, {});
  EXPECT_EQ(names(four, {three, four}), (Ids{Id(Stream::kSupervised, 1)}));
  EXPECT_EQ(work_.SelectLost(state_, leases_, lost, two, 1, {two}).leases.size(), 1u);
}

TEST_F(WorkSourceTest, WorkIsSharedInProportionToCapacity) {
  config_.supervised.batch = 40;
  config_.supervised.steps = 1;
  RunState state{Plan(config_)};
  WorkSource work(config_);
  for (const auto& issued : work.Issuable(state)) ASSERT_TRUE(state.Apply(issued).ok());
  ActorView big = View(0, std::nullopt, 30);
  ActorView small = View(1, std::nullopt, 10);
  Selection first = work.Select(state, leases_, big, 100, {big, small});
  EXPECT_EQ(Count(first), 30u);
  for (const auto& lease : first.leases) leases_.Grant(ActorId(0), lease, TimePoint{});
  EXPECT_EQ(Count(work.Select(state, leases_, big, 100, {big, small})), 0u);
  EXPECT_EQ(Count(work.Select(state, leases_, small, 100, {big, small})), 10u);
}

TEST_F(WorkSourceTest, SplitsAnItemThatDoesNotFitAndSkipsWhatIsTaken) {
  config_.rl.group_size = 8;
  config_.supervised.steps = 0;
  RunState state{Plan(config_)};
  WorkSource work(config_);
  ASSERT_TRUE(state.Apply(wire::VersionPublished{V(0), H("w"), 1}).ok());
  for (const auto& issued : work.Issuable(state)) ASSERT_TRUE(state.Apply(issued).ok());
  ActorView actor = View(0, 0);
  Selection part = work.Select(state, leases_, actor, 5, {actor});
  ASSERT_EQ(part.leases.size(), 1u);
  EXPECT_EQ(part.leases[0].samples, 5u);
  leases_.Grant(ActorId(0), part.leases[0], TimePoint{});
  ASSERT_TRUE(state.Apply(Accepted(Id(Stream::kTrain, 0, 6), 1)).ok());
  Selection rest = work.Select(state, leases_, actor, 2, {actor});
  ASSERT_EQ(rest.leases.size(), 2u);
  EXPECT_EQ(rest.leases[0].first_sample, 5u);
  EXPECT_EQ(rest.leases[0].samples, 1u);
  EXPECT_EQ(rest.leases[1].first_sample, 7u);
}

// One that has served the whole life of its table gives what one that looks at it for the first
// time gives, whatever was leased, finished, handed back or lost in between.
TEST_F(WorkSourceTest, RemembersNothingThatChangesWhatItGives) {
  config_.supervised.batch = 40;
  RunState state{Plan(config_)};
  for (const auto& issued : WorkSource(config_).Issuable(state)) {
    ASSERT_TRUE(state.Apply(issued).ok());
  }
  std::mt19937 random(3);
  std::size_t given = 0;
  for (int round = 0; round < 4000; ++round) {
    const ActorView actor = View(static_cast<std::uint32_t>(random() % 3), std::nullopt, 8);
    const std::vector<ActorView> live = {View(0, {}, 8), View(1, {}, 8), View(2, {}, 8)};
    const auto room = static_cast<std::uint32_t>(1 + random() % 6);
    const Selection fresh = WorkSource(config_).Select(state, leases_, actor, room, live);
    const Selection selection = work_.Select(state, leases_, actor, room, live);
    ASSERT_EQ(selection.leases, fresh.leases) << "round " << round;
    if (random() % 4 == 0) continue;  // not granted after all
    for (const wire::Lease& lease : selection.leases) {
      const wire::Lease granted = leases_.Grant(actor.actor, lease, TimePoint{});
      given += granted.samples;
      for (std::uint32_t s = 0; s < granted.samples; ++s) {
        const TrajectoryId id = Id(granted.stream, granted.item, granted.first_sample + s);
        if (random() % 8 == 0 && state.Apply(Accepted(id)).ok()) leases_.Complete(id);
      }
      const auto whole = Id(granted.stream, granted.item, granted.first_sample);
      if (random() % 3 == 0) (void)leases_.Release(actor.actor, granted.fence, {whole}).ok();
    }
    if (random() % 20 == 0) leases_.ReleaseActor(actor.actor);
  }
  EXPECT_GT(given, 200u);
}

// Rounds of 3 groups of 2, at most 3; no supervised steps.
class DynamicSourceTest : public ::testing::Test {
 protected:
  Config config_ = TinyConfig(
      {"supervised.steps=0", "eval.items=0", "rl.dynamic_sampling=true", "rl.max_rounds=3"});
  RunState state_{Plan(config_)};
  WorkSource work_{config_};

  void Apply(const wire::JournalRecord& record) {
    Status status = state_.Apply(record);
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_TRUE(state_.ledger().Check(state_.groups().CountHeld()).ok());
  }
  // Issues what may be issued, which is one round, and lets it arrive: the first `informative`
  // groups with rewards that differ.
  void FinishRound(std::uint64_t informative) {
    const auto issuable = work_.Issuable(state_);
    ASSERT_EQ(issuable.size(), 1u);
    const wire::ItemsIssued& round = issuable[0];
    rounds_.push_back(round);
    Apply(round);
    EXPECT_TRUE(work_.Issuable(state_).empty());  // before it is complete
    for (std::uint64_t i = 0; i < round.items; ++i) {
      for (std::uint32_t s = 0; s < round.samples; ++s) {
        Apply(Accepted(Id(Stream::kTrain, round.first_item + i, s), i < informative ? s : 0));
      }
    }
  }
  void TrainStep(std::uint32_t step) {
    Composition composed = ComposeBatch(state_.groups(), state_.plan().Step(step), 0, true);
    for (const auto& drop : composed.drops) Apply(drop);
    Apply(composed.batch);
    EXPECT_TRUE(work_.Issuable(state_).empty());  // the batch is there: no further round
    Apply(wire::StepCommitted{0, step, composed.batch.digest,
                              wire::HashChain(state_.ChainBefore(step), composed.batch.digest),
                              H("s"), 1, 0, 0, false});
  }

  std::vector<wire::ItemsIssued> rounds_;
};

TEST_F(DynamicSourceTest, IssuesFurtherRoundsUntilThereAreEnough) {
  Apply(wire::VersionPublished{V(0), H("w0"), 10});
  FinishRound(1);
  FinishRound(0);
  FinishRound(3);
  EXPECT_TRUE(work_.Issuable(state_).empty());
  for (std::uint32_t round = 0; round < 3; ++round) {
    EXPECT_EQ(rounds_[round].round, round);
    EXPECT_EQ(rounds_[round].step, 0u);
    EXPECT_EQ(rounds_[round].version, V(0));
    EXPECT_EQ(rounds_[round].first_item, 3 * round);
  }
  TrainStep(0);
  EXPECT_EQ(state_.Statistics(0)->rounds, 3u);
  EXPECT_EQ(state_.Statistics(0)->surplus, 2u);
  EXPECT_TRUE(state_.groups().units().empty()) << "every round is closed";
  Apply(wire::VersionPublished{V(1), H("w1"), 10});
  FinishRound(3);
  EXPECT_EQ(rounds_[3].first_item, 9u);  // the ordinals of the next step, whatever this one used
  EXPECT_TRUE(work_.Issuable(state_).empty());
  TrainStep(1);
}

TEST_F(DynamicSourceTest, ARoundOutOfTurnIsRefused) {
  Apply(wire::VersionPublished{V(0), H("w0"), 10});
  wire::ItemsIssued round = Issued(state_.plan().Step(0), V(0));
  round.round = 1;
  round.first_item = 3;
  EXPECT_FALSE(RunState(state_).Apply(round).ok());  // the first one is not issued
  Apply(work_.Issuable(state_).at(0));
  EXPECT_FALSE(RunState(state_).Apply(round).ok());  // nor complete
}

}  // namespace
}  // namespace thresher::broker
