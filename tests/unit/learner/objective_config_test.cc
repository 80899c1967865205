#include "learner/objective_config.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "learner/critic_state.h"

namespace thresher::learner {
namespace {

Config With(const std::string& key, const std::string& value) {
  // What the rules ask for beside some of the values.
  std::vector<std::string> overrides = {key + "=" + value};
  if (value == "none" && key == "objective.ratio") overrides.push_back("objective.surrogate=plain");
  if (key == "objective.correction") overrides.push_back("objective.old=recomputed");
  if (key == "objective.critic" && value != "none") overrides.push_back("objective.advantage=gae");
  if (value == "gae") overrides.push_back("objective.critic=own");
  if (value == "reward") overrides.push_back("objective.kl=0.5");
  if (value == "process") overrides.push_back("rl.drop_zero_variance=false");
  if (value == "vtrace") overrides.push_back("objective.preset=vtrace_impala");
  return ParseConfig("", "test", overrides);
}

// Every field of the spec, the estimator, and whether there is a critic of which kind.
std::string Text(const Config& config) {
  const ObjectiveSpec s = PolicyObjective(config);
  std::ostringstream out;
  out << int(EstimatorOf(config.objective)) << ' '
      << int(CriticKindOf(config.objective).value_or(CriticKind(7))) << ' ' << int(s.aggregate)
      << ' ' << int(s.ratio) << ' ' << int(s.surrogate) << ' ' << int(s.old) << ' '
      << int(s.correction) << ' ' << int(s.correction_level) << ' ' << int(s.kl_estimator) << ' '
      << s.clip_low << ' ' << s.clip_high << ' ' << s.dual_clip << ' ' << s.correction_low << ' '
      << s.correction_high << ' ' << s.kl << ' ' << PenalisesReward(config.objective) << ' '
      << s.entropy << ' ' << s.longest << ' ' << int(s.distribution) << ' '
      << LearnsFromSteps(config.objective) << ComparesSteps(config.objective);
  return out.str();
}

TEST(ObjectiveConfigTest, EveryChoiceOfTheSchemaIsAChoiceOfTheObjective) {
  int choices = 0;
  for (const KeyDoc& key : DocumentedKeys()) {
    if (!key.path.starts_with("objective.") || key.path == "objective.preset") continue;
    if (key.type != "text") continue;
    std::set<std::string> texts;
    std::istringstream allowed(key.allowed);
    int values = 0;
    for (std::string value; std::getline(allowed, value, ','); ++values) {
      texts.insert(Text(With(key.path, value.substr(value.find_first_not_of(' ')))));
    }
    EXPECT_EQ(texts.size(), static_cast<std::size_t>(values)) << key.path;
    choices += values;
  }
  EXPECT_EQ(choices, 8 + 3 + 2 + 3 + 2 + 3 + 3 + 3 + 2 + 3 + 3 + 2);
}

TEST(ObjectiveConfigTest, EveryNumberArrives) {
  const std::string base = Text(ParseConfig("", "test", {}));
  for (const char* value : {"clip_low=0.3", "clip_high=0.31", "dual_clip=5", "correction_low=0.5",
                            "correction_high=3", "kl=0.7", "entropy=0.9"}) {
    EXPECT_NE(Text(ParseConfig("", "test", {std::string("objective.") + value})), base) << value;
  }
  EXPECT_NE(Text(ParseConfig("", "test", {"sampling.max_new_tokens=17"})), base);
}

TEST(ObjectiveConfigDeathTest, AnUnknownChoiceIsABug) {
  Config config = ParseConfig("", "test", {});
  config.objective.ratio = "word";
  EXPECT_DEATH((void)PolicyObjective(config), "no choice is called 'word'");
}

}  // namespace
}  // namespace thresher::learner
