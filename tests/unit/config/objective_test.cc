// Presets, and which choices of an objective go together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/config.h"
#include "common/config/presets.h"

namespace thresher {
namespace {

using ::testing::HasSubstr;

Config Parse(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  return ParseConfig(yaml, "test.yaml", overrides);
}

std::string ErrorOf(const std::vector<std::string>& overrides) {
  try {
    (void)Parse("", overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(ObjectivePresets, EachIsAValidConfigurationThatReadsBack) {
  const std::string custom = ResolvedYaml(Parse(""));
  for (const std::string& name : config_internal::PresetNames()) {
    const Config config = Parse("objective: {preset: " + name + "}");
    const std::string text = ResolvedYaml(config);
    EXPECT_EQ(ResolvedYaml(ParseConfig(text, "resolved", {})), text) << name;
    EXPECT_EQ(text == custom, name == "custom") << name;
  }
}

TEST(ObjectivePresets, SayWhatTheirPapersSay) {
  const ObjectiveConfig gspo = Parse("", {"objective.preset=gspo"}).objective;
  EXPECT_EQ(gspo.ratio, "sequence");
  EXPECT_EQ(gspo.clip_low, 3e-4);
  EXPECT_EQ(gspo.clip_high, 4e-4);
  EXPECT_EQ(gspo.aggregate, "sequence_mean");
  const Config dapo = Parse("", {"objective.preset=dapo"});
  EXPECT_TRUE(dapo.rl.dynamic_sampling);
  EXPECT_EQ(dapo.objective.clip_high, 0.28);
  EXPECT_EQ(dapo.objective.overlong_penalty, 1);
  const Config rloo = Parse("", {"objective.preset=rloo"});
  EXPECT_EQ(rloo.objective.advantage, "leave_one_out");
  EXPECT_EQ(rloo.objective.ratio, "none");
  EXPECT_FALSE(Parse("", {"objective.preset=raft"}).rl.drop_zero_variance);
  EXPECT_EQ(Parse("", {"objective.preset=grpo"}).objective.kl, 0.04);
  const ObjectiveConfig ppo = Parse("", {"objective.preset=ppo"}).objective;
  EXPECT_EQ(ppo.advantage, "gae");
  EXPECT_EQ(ppo.critic, "own");
  EXPECT_EQ(ppo.gae_lambda, 0.95);
  EXPECT_EQ(ppo.value_clip, 0.2);
  EXPECT_EQ(ppo.clip_high, 0.2);
  const ObjectiveConfig impala = Parse("", {"objective.preset=vtrace_impala"}).objective;
  EXPECT_EQ(impala.advantage, "vtrace");
  EXPECT_EQ(impala.critic, "shared");
  EXPECT_EQ(impala.ratio, "none");
  EXPECT_EQ(impala.value_coefficient, 0.5);
}

TEST(ObjectivePresets, YieldToWhatIsSetWhereverItStands) {
  const Config config = Parse("objective:\n  clip_high: 0.5\n  preset: dapo\n",
                              {"rl.dynamic_sampling=false", "objective.preset=grpo"});
  EXPECT_EQ(config.objective.clip_high, 0.5);
  EXPECT_EQ(config.objective.kl, 0.04);  // grpo's: set last
  EXPECT_FALSE(
      Parse("", {"objective.preset=dapo", "rl.dynamic_sampling=false"}).rl.dynamic_sampling);
}

TEST(ObjectivePresets, HaveNoPartInTheIdentityButByWhatTheySay) {
  EXPECT_EQ(ResultKeysText(Parse("", {"objective.preset=dr_grpo"})),
            ResultKeysText(Parse("", {"objective.advantage=group_mean", "objective.clip_high=0.2",
                                      "objective.aggregate=constant"})));
}

TEST(ObjectivePresets, AnUnknownOneIsRefusedWithThoseThereAre) {
  EXPECT_THAT(ErrorOf({"objective.preset=dpo"}),
              HasSubstr("objective.preset: value 'dpo'; allowed: "
                        "custom, cispo, dapo, dr_grpo, grpo"));
}

TEST(ObjectiveRules, WhatMakesNoSenseIsRefusedWithTheReason) {
  struct Case {
    std::vector<std::string> overrides;
    const char* error;
  };
  const Case cases[] = {
      {{"objective.ratio=none"},
       "objective.surrogate: value clip; allowed: plain, for with "
       "objective.ratio (none) there is nothing to clip"},
      {{"objective.preset=rloo", "rl.epochs=2"}, "rl.epochs: value 2; allowed: 1, for with "},
      {{"objective.preset=rloo", "rl.minibatches=2"}, "rl.minibatches: value 2; allowed: 1, for"},
      {{"objective.preset=cispo", "objective.dual_clip=9"},
       "with objective.surrogate: clip (cispo)"},
      {{"objective.dual_clip=1.1"}, "more than 1 + objective.clip_high"},
      {{"objective.correction=truncated"},
       "for with objective.old (behaviour) the ratio itself is"},
      {{"objective.old=recomputed", "rl.minibatches=2"}, "1 with objective.old (recomputed)"},
      {{"objective.correction_low=3"}, "objective.correction_low: value 3"},
      {{"objective.overlong_penalty=1"}, "0 without objective.overlong_share"},
      {{"objective.overlong_share=0.5"}, "more with it"},
      {{"rl.minibatches=3"}, "a power of two, at most learner.grad_leaves (8) / learner.ranks (1)"},
      {{"rl.minibatches=4", "learner.ranks=4"}, "rl.minibatches: value 4"},
      {{"rl.group_size=1"}, "2 to 65536, for objective.advantage (group) compares"},
      {{"objective.advantage=gae"},
       "objective.critic: value none; allowed: own or shared, for objective.advantage (gae) is "
       "made of values"},
      {{"objective.critic=own"}, "none, for objective.advantage (group) looks at no values"},
      {{"objective.preset=ppo", "objective.ratio=sequence"}, "objective.ratio: value sequence"},
      {{"objective.preset=vtrace_impala", "objective.ratio=token"},
       "objective.ratio: value token; allowed: none, for objective.advantage (vtrace) has the"},
      {{"objective.preset=vtrace_impala", "objective.old=recomputed",
        "objective.correction=truncated"},
       "objective.correction: value truncated; allowed: none, for objective.advantage (vtrace)"},
      {{"objective.preset=vtrace_impala", "objective.c_bar=2"}, "at most objective.rho_bar (1.0"},
      {{"objective.critic_warmup_steps=1"}, "0 with objective.critic (none)"},
      {{"objective.preset=ppo", "rl.steps=3", "objective.critic_warmup_steps=4"},
       "objective.critic_warmup_steps: value 4; allowed: at most rl.steps (3)"},
      {{"objective.kl=1", "objective.kl_estimator=k1"},
       "objective.kl_estimator: value k1; allowed: k3 or k2, for in the loss the gradient of k1"},
      {{"objective.kl=1", "objective.kl_in=reward", "objective.kl_estimator=k2"},
       "objective.kl_estimator: value k2; allowed: k1 or k3, for in the reward"},
      {{"objective.preset=raft", "objective.kl=1", "objective.kl_in=reward"},
       "objective.kl_in: value reward; allowed: loss, for objective.advantage (accepted)"},
      {{"objective.preset=rloo", "objective.kl=1", "learner.device=cuda"},
       "learner.device: value cuda; allowed: cpu with objective.kl_in (reward)"},
      {{"objective.ratio_distribution=sampled", "objective.kl=0.1"},
       "objective.kl: value 0.100000; allowed: 0, for with objective.ratio_distribution "
       "(sampled) "},
      {{"objective.ratio_distribution=sampled", "objective.entropy=0.1"},
       "objective.entropy: value 0.100000; allowed: 0, for with "},
      {{"objective.ratio_distribution=sampled", "objective.preset=vtrace_impala"},
       "objective.advantage: value vtrace; allowed: another one, for with "},
      {{"objective.ratio_distribution=sampled", "learner.device=cuda"},
       "learner.device: value cuda; allowed: cpu, for with "},
      {{"objective.step_rewards=process"},
       "rl.drop_zero_variance: value true; allowed: false, for groups of equal outcomes"},
      {{"objective.step_rewards=process", "objective.preset=rloo"},
       "objective.advantage: value leave_one_out; allowed: group, group_mean, gae or vtrace, for"},
      {{"objective.step_rewards=process", "objective.preset=gspo"},
       "objective.ratio: value sequence; allowed: token or none, for with"},
      {{"objective.step_rewards=process", "objective.kl=1", "objective.kl_in=reward"},
       "objective.kl_in: value reward; allowed: loss, for with objective.step_rewards (process)"},
      {{"objective.step_rewards=process", "controls=all"}, "controls: value all; allowed: none or"},
      {{"objective.step_rewards=process", "rl.permute_rewards=true"},
       "rl.permute_rewards: value true; allowed: false, for rewards at the tokens of one answer"},
      {{"objective.ratio_distribution=vocabulary"}, "allowed: full, sampled"},
      {{"sampling.top_p=0"}, "sampling.top_p: value '0'; allowed: number, 1e-06 to 1"},
      {{"sampling.top_k=-1"}, "sampling.top_k: value '-1'; allowed: integer, 0 to 1000000000"},
      {{"sampling.min_p=1.5"}, "sampling.min_p: value '1.5'; allowed: number, 0 to 1"},
      {{"sampling.repetition_penalty=0"},
       "sampling.repetition_penalty: value '0'; allowed: number, 0.01"},
      {{"objective.preset=ppo", "learner.device=cuda", "actors.device=cuda",
        "engine.colocated=true"},
       "engine.colocated: value true; allowed: false with objective.critic (own)"},
  };
  for (const Case& c : cases) EXPECT_THAT(ErrorOf(c.overrides), HasSubstr(c.error));
  EXPECT_EQ(ErrorOf({"objective.preset=raft", "rl.group_size=1"}), "");
  EXPECT_EQ(ErrorOf({"objective.preset=rloo", "objective.kl=0.05"}), "");
  EXPECT_EQ(ErrorOf({"objective.preset=ppo", "rl.group_size=1", "rl.epochs=4"}), "");
  EXPECT_EQ(ErrorOf({"objective.preset=vtrace_impala", "objective.critic=own",
                     "objective.rho_bar=2", "objective.c_bar=2"}),
            "");
  EXPECT_EQ(ErrorOf({"rl.steps=0", "objective.ratio=none"}), "");  // nothing of it is used
  EXPECT_EQ(ErrorOf({"objective.ratio_distribution=sampled", "sampling.top_k=20", "rl.epochs=2",
                     "objective.old=recomputed", "actors.device=cuda"}),
            "");
  EXPECT_EQ(ErrorOf({"objective.old=recomputed", "objective.correction=masked", "rl.epochs=4"}),
            "");
}

}  // namespace
}  // namespace thresher
