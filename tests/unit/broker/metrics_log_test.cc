#include "broker/metrics_log.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "common/base/process.h"
#include "common/data/event_file.h"
#include "common/data/files.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

using Kind = MetricsLine::Kind;

std::string StepText(int step, double time, double loss = 0.5) {
  return nlohmann::ordered_json{{"time", time},
                                {"step", step},
                                {"phase", "rl"},
                                {"samples", 8},
                                {"outcomes", {{"scored", 7}, {"crashed", 1}}},
                                {"learner", {{"loss", loss}, {"gradient_norm", nullptr}}}}
      .dump();
}

std::string RoundText(int round, int step, double time) {
  nlohmann::ordered_json line = {{"time", time}};
  line["eval"] = {{"round", round}, {"step", step}, {"label", "step"}, {"pass_at_1", 0.25}};
  return line.dump();
}

TEST(MetricsLine, NamesAreGroupedAndOnlyNumbersStay) {
  const auto line = ParseMetricsLine(StepText(3, 1.5));
  ASSERT_TRUE(line);
  EXPECT_EQ(line->kind, Kind::kStep);
  EXPECT_EQ(line->number, 3u);
  EXPECT_EQ(line->step, 3);
  EXPECT_EQ(line->numbers, (Numbers{{"run/samples", 8},
                                    {"outcomes/scored", 7},
                                    {"outcomes/crashed", 1},
                                    {"learner/loss", 0.5}}));
}

TEST(MetricsLine, ARoundStandsAtTheStepsThatWereTrained) {
  const auto line = ParseMetricsLine(RoundText(2, 40, 1.5));
  ASSERT_TRUE(line);
  EXPECT_EQ(line->kind, Kind::kRound);
  EXPECT_EQ(line->number, 2u);
  EXPECT_EQ(line->step, 40);
  EXPECT_EQ(line->numbers, (Numbers{{"eval/round", 2}, {"eval/pass_at_1", 0.25}}));
}

TEST(MetricsLine, OtherTextIsNoLine) {
  for (const char* text :
       {"", "{", "[]", "7", "{}", R"({"step":1})", R"({"time":1})", R"({"time":"x","step":1})",
        R"({"time":1,"step":-1})", R"({"time":1,"eval":{"round":1}})", R"({"time":1,"eval":3})"}) {
    EXPECT_FALSE(ParseMetricsLine(text)) << text;
  }
}

class MetricsLogTest : public testing::Test {
 protected:
  MetricsLog Open(bool tensorboard = true) {
    return MetricsLog::Open(folder_.path(), clock_,
                            {.tensorboard = tensorboard, .epoch = BrokerEpoch(++epoch_)})
        .value();
  }
  std::string Lines() const { return ReadFile(folder_.path() / "metrics.jsonl").value(); }
  std::vector<std::string> EventFiles() const { return NamesIn(Tensorboard()); }
  std::filesystem::path Tensorboard() const { return folder_.path() / "tensorboard"; }
  // All records of all files, in order, without the heads.
  std::vector<std::string> Records() const {
    std::vector<std::string> records;
    for (const std::string& name : EventFiles()) {
      std::string bytes = ReadFile(Tensorboard() / name).value();
      std::vector<std::string> of_file;
      while (const auto last = FindLastEvent(bytes)) {
        of_file.insert(of_file.begin(), std::string(last->record));
        bytes.resize(static_cast<std::size_t>(last->record.data() - bytes.data()));
      }
      records.insert(records.end(), of_file.begin(), of_file.end());
    }
    return records;
  }
  // What the lines of metrics.jsonl should have become.
  std::vector<std::string> Expected() const {
    std::vector<std::string> records;
    std::istringstream in(Lines());
    for (std::string text; std::getline(in, text);) {
      const MetricsLine line = ParseMetricsLine(text).value();
      ScalarEvent event{line.time, line.step, {}};
      for (const auto& [name, value] : line.numbers) {
        event.scalars.emplace_back(name, static_cast<float>(value));
      }
      records.push_back(EncodeEvent(event));
    }
    return records;
  }

  TemporaryFolder folder_;
  ManualClock clock_;
  std::uint64_t epoch_ = 0;
};

TEST_F(MetricsLogTest, EachLineBecomesAnEvent) {
  MetricsLog log = Open();
  EXPECT_TRUE(EventFiles().empty());  // made with its first event
  log.Add(StepText(0, 10.25));
  log.Add(RoundText(0, 0, 10.5));
  log.Add(StepText(1, 11.125));
  EXPECT_EQ(Records().size(), 3u);
  EXPECT_EQ(Records(), Expected());
  EXPECT_EQ(log.newest(Kind::kStep)->number, 1u);
  EXPECT_EQ(log.newest(Kind::kRound)->number, 0u);
  EXPECT_EQ(log.lost(), 0u);
}

TEST_F(MetricsLogTest, WhatIsReportedAgainAfterAKillIsNotWrittenAgain) {
  {
    MetricsLog log = Open();
    for (int step = 0; step < 3; ++step) log.Add(StepText(step, step));
    log.Add(RoundText(1, 2, 3));
    log.Add(RoundText(0, 0, 4));
    log.Add(StepText(2, 99));
    log.Add(RoundText(1, 2, 99));
  }
  const std::string before = Lines();
  EXPECT_EQ(std::ranges::count(before, '\n'), 5);
  MetricsLog again = Open();
  EXPECT_EQ(again.newest(Kind::kStep)->number, 2u);
  EXPECT_EQ(again.newest(Kind::kRound)->number, 0u);
  again.Add(StepText(1, 99));
  again.Add(StepText(2, 99));
  again.Add(RoundText(0, 0, 99));
  again.Add(RoundText(1, 2, 99));
  EXPECT_EQ(Lines(), before);
  EXPECT_EQ(Records(), Expected());
  again.Add(StepText(3, 100));
  again.Add(RoundText(2, 3, 101));
  EXPECT_EQ(std::ranges::count(Lines(), '\n'), 7);
  EXPECT_EQ(Records(), Expected());
  EXPECT_EQ(EventFiles().size(), 2u);
}

// A process may die at any byte of either file.
TEST_F(MetricsLogTest, AfterAKillAnywhereEveryEventIsThereOnce) {
  {
    MetricsLog log = Open();
    for (int step = 0; step < 4; ++step) log.Add(StepText(step, 7, step));  // one moment for all
    log.Add(RoundText(0, 4, 7));
  }
  const std::string file = EventFiles().front(), lines = Lines();
  const std::string events = ReadFile(Tensorboard() / file).value();
  for (std::size_t size = 0; size <= events.size(); size += 7) {
    std::filesystem::remove_all(Tensorboard());
    std::filesystem::create_directory(Tensorboard());
    std::ofstream(Tensorboard() / file) << events.substr(0, size);
    MetricsLog again = Open();
    again.Add(StepText(3, 8));
    ASSERT_EQ(Records(), Expected()) << size;
  }
  for (std::size_t size = 0; size <= lines.size(); size += 11) {
    std::filesystem::remove_all(Tensorboard());
    std::ofstream(folder_.path() / "metrics.jsonl") << lines.substr(0, size);
    MetricsLog again = Open();
    for (int step = 0; step < 4; ++step) again.Add(StepText(step, 7, step));
    again.Add(RoundText(0, 4, 7));
    ASSERT_EQ(Lines(), lines) << size;
    ASSERT_EQ(Records(), Expected()) << size;
  }
}

TEST_F(MetricsLogTest, SwitchedOffNothingIsMade_SwitchedOnLaterAllIsThere) {
  {
    MetricsLog log = Open(/*tensorboard=*/false);
    for (int step = 0; step < 3; ++step) log.Add(StepText(step, step));
    EXPECT_FALSE(Exists(Tensorboard()));
  }
  MetricsLog log = Open();
  log.Add(StepText(3, 3));
  EXPECT_EQ(Records().size(), 4u);
  EXPECT_EQ(Records(), Expected());
}

TEST_F(MetricsLogTest, WhatCannotBeWrittenNowIsWrittenLaterAndCostsNoLines) {
  std::ofstream(Tensorboard()) << "a file is in the way";
  MetricsLog log = Open();
  log.Add(StepText(0, 1));
  log.Add(StepText(1, 2));
  EXPECT_EQ(log.lost(), 2u);
  EXPECT_EQ(std::ranges::count(Lines(), '\n'), 2);
  std::filesystem::remove(Tensorboard());
  log.Add(StepText(2, 3));
  log.Add(StepText(3, 4));
  EXPECT_EQ(Records().size(), 4u);
  EXPECT_EQ(Records(), Expected());
  EXPECT_EQ(log.lost(), 2u);
}

TEST_F(MetricsLogTest, ForeignFilesAndDamageInTheFolderDoNoHarm) {
  std::filesystem::create_directory(Tensorboard());
  std::ofstream(Tensorboard() / "events.out.tfevents.9999999999.other.1.0") << "no event file";
  std::ofstream(Tensorboard() / "zzz") << EncodeEvent({1, 0, {}});
  std::ofstream(folder_.path() / "metrics.jsonl") << "damage\n" << StepText(0, 1) << "\n\n[]\n";
  MetricsLog log = Open();
  log.Add(StepText(0, 1));
  log.Add(StepText(1, 2));
  std::size_t events = 0;
  for (const std::string& name : EventFiles()) {
    if (name.find(".other.") != std::string::npos || name == "zzz") continue;
    const std::string bytes = ReadFile(Tensorboard() / name).value();
    EXPECT_EQ(FindLastEvent(bytes)->wall_time, 2);
    ++events;
  }
  EXPECT_EQ(events, 1u);
}

}  // namespace
}  // namespace thresher::broker
