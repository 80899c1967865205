#include "common/base/fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

namespace thresher {
namespace {

FaultPlan Plan(std::string_view text, std::uint64_t attempt = 0) {
  auto plan = FaultPlan::Parse("actor-0", text, attempt);
  EXPECT_TRUE(plan.ok()) << plan.status().ToString();
  return std::move(plan).value();
}

TEST(FaultPlan, WithoutFaultsEverythingIsANoOp) {
  FaultPlan plan = Plan("");
  plan.Reached("decode");
  EXPECT_FALSE(plan.Due("ulp", "version", 1u << 30));
}

TEST(FaultPlan, IsForOneProcessAndOneAttempt) {
  const char* text = "actor-0:ulp@version=3,actor-1:token@item=0,actor-0:token@item=0#1";
  FaultPlan first = Plan(text, 0), second = Plan(text, 1), third = Plan(text, 2);
  EXPECT_TRUE(first.Due("ulp", "version", 3));
  EXPECT_FALSE(first.Due("token", "item", 5));
  EXPECT_FALSE(second.Due("ulp", "version", 3));
  EXPECT_TRUE(second.Due("token", "item", 5));
  EXPECT_FALSE(third.Due("ulp", "version", 3));
  EXPECT_FALSE(third.Due("token", "item", 5));
}

TEST(FaultPlan, IsDueOnceFromItsNumberOn) {
  FaultPlan plan = Plan("actor-0:ulp@version=3");
  EXPECT_FALSE(plan.Due("ulp", "version", 2));
  EXPECT_FALSE(plan.Due("ulp", "item", 3));
  EXPECT_FALSE(plan.Due("token", "version", 3));
  EXPECT_TRUE(plan.Due("ulp", "version", 7));
  EXPECT_FALSE(plan.Due("ulp", "version", 8));
}

TEST(FaultPlanDeathTest, KillsAtTheNthArrival) {
  FaultPlan plan = Plan("actor-0:kill@decode=3");
  plan.Reached("decode");
  plan.Reached("upload");
  plan.Reached("decode");
  EXPECT_EXIT(plan.Reached("decode"), ::testing::KilledBySignal(SIGKILL),
              "actor-0: planted fault: kill at decode 3");
}

TEST(FaultPlan, QuotesThePartThatCannotBeRead) {
  for (const char* part :
       {"kill@decode=3", "actor-0:kill=3", "actor-0:kill@decode",
        "actor-0:kill@decode=", "actor-0:kill@decode=x", "actor-0:kill@decode=-1",
        "actor-0:kill@decode=3#", "actor-0:kill@decode=3#x", "actor-0:@decode=3", "actor-0:kill@=3",
        ":kill@decode=3", "actor-0:kill@decode=0", "actor-0:kill@decode=99999999999999999999"}) {
    auto plan = FaultPlan::Parse("actor-0", std::string("actor-0:ulp@version=1,") + part, 0);
    ASSERT_FALSE(plan.ok()) << part;
    EXPECT_EQ(plan.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(plan.status().message(), ::testing::HasSubstr("'" + std::string(part) + "'"));
  }
}

TEST(FaultPlan, ReadsTheEnvironment) {
  ::unsetenv("THRESHER_ATTEMPT");
  ::setenv("THRESHER_FAULT", "actor-0:ulp@version=1,actor-0:token@item=1#2", 1);
  auto first = FaultPlan::FromEnvironment("actor-0");
  ::setenv("THRESHER_ATTEMPT", "2", 1);
  auto third = FaultPlan::FromEnvironment("actor-0");
  ::setenv("THRESHER_ATTEMPT", "two", 1);
  auto bad = FaultPlan::FromEnvironment("actor-0");
  ::unsetenv("THRESHER_ATTEMPT");
  ::unsetenv("THRESHER_FAULT");
  ASSERT_TRUE(first.ok() && third.ok());
  EXPECT_TRUE(first->Due("ulp", "version", 1));
  EXPECT_FALSE(third->Due("ulp", "version", 1));
  EXPECT_TRUE(third->Due("token", "item", 1));
  ASSERT_FALSE(bad.ok());
  EXPECT_THAT(bad.status().message(), ::testing::HasSubstr("two"));
}

}  // namespace
}  // namespace thresher
