#include "common/config/data_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/config.h"

namespace thresher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(DataFilesTest, ReadsPathsWithWeights) {
  EXPECT_THAT(ParseWeightedPaths("a.jsonl").value(), ElementsAre(WeightedPath{"a.jsonl", 1}));
  EXPECT_THAT(
      ParseWeightedPaths("a:3, b:x/c ,d:10000").value(),
      ElementsAre(WeightedPath{"a", 3}, WeightedPath{"b:x/c", 1}, WeightedPath{"d", 10000}));
}

TEST(DataFilesTest, RefusesWhatIsNoListOfPaths) {
  for (const auto& [text, found] :
       std::vector<std::pair<std::string, std::string>>{{"", "empty path"},
                                                        {"a,", "empty path"},
                                                        {",a", "empty path"},
                                                        {":3", "empty path"},
                                                        {"a:0", "weight 0"},
                                                        {"a:10001", "weight 10001"},
                                                        {"a,b,a:2", "a twice"}}) {
    EXPECT_THAT(ParseWeightedPaths(text).status().message(), HasSubstr(found)) << text;
  }
  std::string many = "0";
  for (int i = 1; i <= 64; ++i) many += "," + std::to_string(i);
  EXPECT_THAT(ParseWeightedPaths(many).status().message(), HasSubstr("65 paths"));
}

TEST(DataFilesTest, ReadsRoles) {
  EXPECT_THAT(ParseRoles("assistant, tool").value(), ElementsAre("assistant", "tool"));
  for (const char* text : {"", "bot", "user,user", "user,,tool"}) {
    EXPECT_THAT(ParseRoles(text).status().message(), HasSubstr("allowed: each of system")) << text;
  }
}

// A key that nobody would look at is refused.
TEST(ExampleRulesTest, KeysOfExamplesBelongTogether) {
  struct Case {
    std::vector<std::string> settings;
    std::string error;  // empty: accepted
  };
  const std::string jsonl = "supervised.source=jsonl", file = "supervised.file=a.jsonl";
  const std::vector<Case> cases = {
      {{jsonl, file}, ""},
      {{jsonl, file, "supervised.eval_share=0.1", "supervised.eval_every=5"}, ""},
      {{jsonl, file, "supervised.eval_file=b.jsonl", "supervised.eval_every=5"}, ""},
      {{jsonl, file, "objective.supervised_coefficient=0.5"}, ""},
      {{"supervised.source=trajectories", "supervised.run=runs/a"}, ""},
      {{jsonl}, "supervised.file"},
      {{file}, "supervised.file"},
      {{jsonl, file, "supervised.run=a"}, "supervised.run"},
      {{"supervised.source=trajectories"}, "supervised.run"},
      {{jsonl, file, "supervised.eval_share=0.1"}, "supervised.eval_every"},
      {{jsonl, file, "supervised.eval_every=5"}, "supervised.eval_every"},
      {{jsonl, file, "supervised.eval_share=0.1", "supervised.eval_file=b",
        "supervised.eval_every=5"},
       "supervised.eval_share"},
      {{"supervised.eval_file=b", "supervised.eval_every=5"}, "supervised.source"},
      {{jsonl, file, "supervised.eval_share=0.1", "supervised.eval_every=5", "learner.device=cuda"},
       "learner.device"},
      {{"objective.supervised_coefficient=0.5"}, "supervised.source"},
      {{jsonl, file, "objective.supervised_coefficient=0.5", "rl.steps=0"}, "rl.steps"},
      {{"supervised.source=trajectories", "supervised.run=a", "supervised.from_step=4",
        "supervised.to_step=3"},
       "supervised.from_step"},
      {{jsonl, "supervised.file=a:0"}, "supervised.file"},
      {{jsonl, file, "supervised.loss_roles=bot"}, "supervised.loss_roles"},
  };
  for (const Case& c : cases) {
    std::string error;
    try {
      ParseConfig("", "test", c.settings);
    } catch (const ConfigError& e) {
      error = e.what();
    }
    const std::string last = c.settings.back();
    if (c.error.empty()) {
      EXPECT_EQ(error, "") << last;
    } else {
      EXPECT_THAT(error, HasSubstr(c.error)) << last;
    }
  }
}

// Contents and weights decide results (they are in the manifest); places do not.
TEST(ExampleRulesTest, PathsAreNotKeysOfTheResult) {
  const auto keys = [](const std::string& file) {
    return ResultKeysText(
        ParseConfig("", "test", {"supervised.source=jsonl", "supervised.file=" + file}));
  };
  EXPECT_EQ(keys("a"), keys("b/c"));
  EXPECT_NE(keys("a"), ResultKeysText(ParseConfig("", "test", {})));
}

}  // namespace
}  // namespace thresher
