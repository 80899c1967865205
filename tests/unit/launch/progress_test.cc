#include "launch/progress.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace thresher::launch {
namespace {

using nlohmann::json;

TEST(ShortNumberTest, KeepsTheUnitThatRoundingGives) {
  EXPECT_EQ(ShortNumber(0), "0");
  EXPECT_EQ(ShortNumber(312.4), "312");
  EXPECT_EQ(ShortNumber(999.4), "999");
  EXPECT_EQ(ShortNumber(999.6), "1.0k");
  EXPECT_EQ(ShortNumber(9123), "9.1k");
  EXPECT_EQ(ShortNumber(1.25e6), "1.2M");
}

TEST(ShortBytesTest, CountsInPowersOf1024) {
  EXPECT_EQ(ShortBytes(512), "512 B");
  EXPECT_EQ(ShortBytes(1024), "1.0 KiB");
  EXPECT_EQ(ShortBytes(3.1 * 1024 * 1024), "3.1 MiB");
  EXPECT_EQ(ShortBytes(1024.0 * 1024 * 1024), "1.0 GiB");
}

TEST(ShortDurationTest, ShowsHoursOnlyWhenThereAreAny) {
  EXPECT_EQ(ShortDuration(0), "0:00");
  EXPECT_EQ(ShortDuration(-3), "0:00");
  EXPECT_EQ(ShortDuration(69.6), "1:10");
  EXPECT_EQ(ShortDuration(3599.4), "59:59");
  EXPECT_EQ(ShortDuration(7384), "2:03:04");
}

TEST(EstimateTextTest, ShowsValueAndInterval) {
  EXPECT_EQ(EstimateText({{"value", 0.45}, {"low", 0.42}, {"high", 0.48}}), "0.450 [0.420, 0.480]");
  EXPECT_EQ(EstimateText(json()), "-");
}

json RlStatus() {
  return {{"phase", "rl"},
          {"phase_step", 140},
          {"phase_steps", 200},
          {"reward_mean", 0.41},
          {"pass_at_1", {{"value", 0.39}, {"low", 0.36}, {"high", 0.42}}},
          {"tokens", {{"generated_per_second", 9100.0}, {"trained_per_second", 7200.0}}},
          {"staleness_max", 0},
          {"mismatched_tokens", 3},
          {"phase_eta_seconds", 70}};
}

TEST(ProgressLineTest, ShowsEverythingOfARun) {
  EXPECT_EQ(ProgressLine(RlStatus()),
            "rl 140/200  reward 0.41  pass@1 0.39  generated 9.1k tok/s  trained 7.2k tok/s"
            "  staleness 0  mismatch 3  ETA 1:10");
}

TEST(ProgressLineTest, LeavesOutWhatIsNotKnownYet) {
  json status = RlStatus();
  status["reward_mean"] = nullptr;
  status["pass_at_1"] = nullptr;
  status["phase_eta_seconds"] = nullptr;
  std::string line = ProgressLine(status);
  EXPECT_EQ(line.find("reward"), std::string::npos);
  EXPECT_EQ(line.find("pass@1"), std::string::npos);
  EXPECT_EQ(line.find("ETA"), std::string::npos);
}

TEST(ProgressLineTest, SaysWhyNothingMoves) {
  json status = RlStatus();
  status["paused"] = "disk full";
  EXPECT_NE(ProgressLine(status).find("PAUSED: disk full"), std::string::npos);
}

}  // namespace
}  // namespace thresher::launch
