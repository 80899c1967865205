#include "common/base/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

namespace thresher {
namespace {

TEST(StatusTest, DefaultIsOk) {
  Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.ToString(), "OK");
}

TEST(StatusTest, TextHoldsCodeAndMessage) {
  EXPECT_EQ(DataLoss("record 17: checksum").ToString(), "DATA_LOSS: record 17: checksum");
}

TEST(StatusTest, EveryCodeHasItsOwnName) {
  std::set<std::string> names;
  const int count = static_cast<int>(StatusCode::kInternal) + 1;
  for (int i = 0; i < count; ++i) names.insert(StatusCodeName(static_cast<StatusCode>(i)));
  EXPECT_EQ(static_cast<int>(names.size()), count);
}

TEST(StatusTest, ContextIsPutBeforeTheMessageAndKeepsTheCode) {
  Status status = NotFound("no such file").WithContext("config.yaml");
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "config.yaml: no such file");
  EXPECT_TRUE(Status::Ok().WithContext("config.yaml").ok());
}

Result<int> Half(int value) {
  if (value % 2 != 0) return InvalidArgument(std::to_string(value) + " is odd");
  return value / 2;
}

Result<int> Quarter(int value) {
  THRESHER_ASSIGN_OR_RETURN(int half, Half(value));
  return Half(half);
}

Status CheckEven(int value, bool& reached_the_end) {
  THRESHER_RETURN_IF_ERROR(Half(value).status());
  reached_the_end = true;
  return Status::Ok();
}

TEST(ResultTest, HoldsAValueOrTheReasonWhyNot) {
  EXPECT_EQ(*Half(8), 4);
  Result<int> odd = Half(7);
  ASSERT_FALSE(odd.ok());
  EXPECT_EQ(odd.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(odd.status().message(), "7 is odd");
}

TEST(ResultTest, AssignOrReturnPassesValuesOnAndStopsAtTheFirstError) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(7).status().message(), "7 is odd");
  EXPECT_EQ(Quarter(6).status().message(), "3 is odd");
}

TEST(ResultTest, ReturnIfErrorStopsOnlyOnError) {
  bool reached = false;
  EXPECT_FALSE(CheckEven(3, reached).ok());
  EXPECT_FALSE(reached);
  EXPECT_TRUE(CheckEven(4, reached).ok());
  EXPECT_TRUE(reached);
}

TEST(ResultTest, MoveOnlyValuesMoveOut) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(5));
  std::unique_ptr<int> value = std::move(result).value();
  EXPECT_EQ(*value, 5);
}

TEST(ResultDeathTest, ValueOfAnErrorAndAnErrorFromOkAreBugs) {
  EXPECT_DEATH((void)Half(7).value(), "7 is odd");
  EXPECT_DEATH((void)Result<int>(Status::Ok()), "ok Status");
}

TEST(CheckDeathTest, FailurePrintsPlaceExpressionAndMessage) {
  EXPECT_DEATH(THRESHER_CHECK(1 + 1 == 3, "arithmetic"),
               "status_test.cc:[0-9]+.*1 \\+ 1 == 3.*arithmetic");
}

TEST(CheckDeathTest, FailureCallsTheFlightRecorder) {
  auto fail = [] {
    SetFlightRecorder([](const std::string& failure) {
      std::fprintf(stderr, "recorded <%s>\n", failure.c_str());
    });
    THRESHER_CHECK(false, "gone wrong");
  };
  EXPECT_DEATH(fail(), "recorded <.*gone wrong");
}

}  // namespace
}  // namespace thresher
