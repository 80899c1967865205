// Turns of two sides on one device, by locks on a file: within a process, and with one that is
// killed.
#include "common/sync/device_turn.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace thresher {
namespace {

class DeviceTurnTest : public ::testing::Test {
 protected:
  ~DeviceTurnTest() override { std::filesystem::remove(file_); }
  std::unique_ptr<DeviceTurn> Open(TurnSide side) const {
    auto turn = DeviceTurn::Open(file_, side);
    EXPECT_TRUE(turn.ok()) << turn.status().ToString();
    return std::move(turn).value();
  }
  std::unique_ptr<DeviceTurn> Actor() const { return Open(TurnSide::kActors); }
  std::unique_ptr<DeviceTurn> Learner() const { return Open(TurnSide::kLearners); }

  const std::filesystem::path file_ =
      std::filesystem::temp_directory_path() / ("turn-" + std::to_string(getpid()));
};

TEST_F(DeviceTurnTest, OneSideHasItAtATime) {
  auto actor = Actor(), learner = Learner();
  EXPECT_TRUE(actor->TryTake());
  EXPECT_TRUE(actor->TryTake());  // has it
  EXPECT_FALSE(learner->TryTake());
  EXPECT_FALSE(learner->held());
  actor->Give();
  EXPECT_FALSE(actor->held());
  EXPECT_TRUE(learner->TryTake());
  EXPECT_FALSE(actor->TryTake());
}

TEST_F(DeviceTurnTest, WhoHasItSeesThatItIsWanted) {
  auto actor = Actor(), learner = Learner();
  ASSERT_TRUE(actor->TryTake());
  EXPECT_FALSE(actor->Wanted());
  EXPECT_FALSE(learner->TryTake());
  EXPECT_TRUE(actor->Wanted());
  EXPECT_FALSE(learner->Wanted());
  actor->Give();
  EXPECT_FALSE(actor->Wanted());
  ASSERT_TRUE(learner->TryTake());
  EXPECT_FALSE(learner->Wanted());
}

TEST_F(DeviceTurnTest, WhoGivesItDoesNotGetItBackBeforeTheOneWhoAsked) {
  auto actor = Actor(), learner = Learner();
  ASSERT_TRUE(actor->TryTake());
  EXPECT_FALSE(learner->TryTake());
  actor->Give();
  EXPECT_FALSE(actor->TryTake());
  EXPECT_TRUE(learner->TryTake());
}

TEST_F(DeviceTurnTest, TwoOfOneSideHaveItTogether) {
  auto one = Actor(), two = Actor(), learner = Learner();
  ASSERT_TRUE(one->TryTake());
  EXPECT_TRUE(two->TryTake());
  EXPECT_FALSE(learner->TryTake());
  EXPECT_TRUE(one->Wanted());
  EXPECT_TRUE(two->Wanted());
  one->Give();
  EXPECT_FALSE(learner->TryTake());
  EXPECT_FALSE(one->TryTake());  // or the learner would wait for ever
  two->Give();
  EXPECT_TRUE(learner->TryTake());
}

TEST_F(DeviceTurnTest, AnEndedOwnerLeavesNeitherItsTurnNorItsWish) {
  auto actor = Actor();
  {
    auto learner = Learner();
    ASSERT_TRUE(learner->TryTake());
  }
  ASSERT_TRUE(actor->TryTake());
  {
    auto learner = Learner();
    EXPECT_FALSE(learner->TryTake());
    EXPECT_TRUE(actor->Wanted());
  }
  EXPECT_FALSE(actor->Wanted());
}

TEST_F(DeviceTurnTest, AKilledProcessLeavesItsTurn) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto turn = DeviceTurn::Open(file_, TurnSide::kLearners);
    const char held = turn.ok() && (*turn)->TryTake() ? 'y' : 'n';
    (void)!write(ready[1], &held, 1);
    for (;;) pause();
  }
  char held = 0;
  ASSERT_EQ(read(ready[0], &held, 1), 1);
  EXPECT_EQ(held, 'y');
  auto actor = Actor();
  EXPECT_FALSE(actor->TryTake());
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(actor->TryTake());
  close(ready[0]);
  close(ready[1]);
}

TEST_F(DeviceTurnTest, AWishCanBeTakenBack) {
  auto actor = Actor(), learner = Learner();
  ASSERT_TRUE(actor->TryTake());
  EXPECT_FALSE(learner->TryTake());
  learner->Give();
  EXPECT_FALSE(actor->Wanted());
  actor->Give();
  EXPECT_TRUE(actor->TryTake());
  learner->Give();  // nothing
  EXPECT_TRUE(actor->held());
  EXPECT_FALSE(learner->TryTake());
}

TEST_F(DeviceTurnTest, AFolderThatIsNotThereIsSaidSo) {
  const auto turn = DeviceTurn::Open(file_ / "no" / "such", TurnSide::kActors);
  EXPECT_EQ(turn.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(turn.status().message().find("such"), std::string::npos);
}

}  // namespace
}  // namespace thresher
