// The section `objective` and its presets.
#include "common/config/presets.h"
#include "common/config/schema_rows.h"

namespace thresher::config_internal {

namespace {

void AddCritic(Keys& keys) {
  keys.push_back(Later(Choice(
      "objective.critic", [](Config& c) { return &c.objective.critic; }, {"none", "own", "shared"},
      "what values states: nothing, a model of its own that starts from the policy of the phase's "
      "start, or a head on the policy's hidden states")));
  keys.push_back(Later(Number(
      "objective.critic_learning_rate", [](Config& c) { return &c.objective.critic_learning_rate; },
      "0.0003", 0, 10,
      "of what the critic has of its own: its model and head, or the head alone; it stays")));
  keys.push_back(Later(Number(
      "objective.critic_warmup_steps", [](Config& c) { return &c.objective.critic_warmup_steps; },
      "0", 0, 1e8, "first steps of the phase, in which the critic learns and the policy stays")));
  keys.push_back(Later(Number(
      "objective.value_coefficient", [](Config& c) { return &c.objective.value_coefficient; },
      "0.5", 0, 1000,
      "with objective.critic: shared, of the value loss in what the policy's trunk learns; 0: "
      "nothing of it gets there")));
  keys.push_back(Later(Number(
      "objective.value_clip", [](Config& c) { return &c.objective.value_clip; }, "0", 0, 1e6,
      "values count at least the loss that they have within this of what they were before the "
      "batch; 0: off")));
  keys.push_back(Later(Number(
      "objective.gamma", [](Config& c) { return &c.objective.gamma; }, "1", 0, 1,
      "discount from token to token, with a critic")));
  keys.push_back(Later(Number(
      "objective.gae_lambda", [](Config& c) { return &c.objective.gae_lambda; }, "0.95", 0, 1,
      "with objective.advantage: gae, 0: what the next value says, 1: what was rewarded")));
  keys.push_back(Later(Number(
      "objective.rho_bar", [](Config& c) { return &c.objective.rho_bar; }, "1", 1e-6, 1e6,
      "with objective.advantage: vtrace, the largest importance weight of a token")));
  keys.push_back(Later(Number(
      "objective.c_bar", [](Config& c) { return &c.objective.c_bar; }, "1", 1e-6, 1e6,
      "with objective.advantage: vtrace, the largest weight with which a token hands on what came "
      "after it; at most objective.rho_bar")));
}

}  // namespace

void AddObjective(Keys& keys) {
  keys.push_back(Free(Choice(
      "objective.preset", [](Config& c) { return &c.objective.preset; }, PresetNames(),
      "a published recipe: what it says of other keys holds where they are not set themselves")));
  keys.push_back(Choice(
      "objective.advantage", [](Config& c) { return &c.objective.advantage; },
      {"group", "group_mean", "leave_one_out", "batch", "batch_baseline", "accepted", "gae",
       "vtrace"},
      "reward less its group's mean, over its standard deviation; without the division; less the "
      "mean of the others; normalised over the batch, as it is or less its group's mean; 1 for "
      "accepted samples; of each token, by a critic's values: generalised estimates, V-trace"));
  keys.push_back(Number(
      "objective.accept", [](Config& c) { return &c.objective.accept; }, "1", -1e9, 1e9,
      "the least reward of a correct answer: with objective.advantage: accepted, of one that is "
      "trained on"));
  keys.push_back(Choice(
      "objective.ratio", [](Config& c) { return &c.objective.ratio; },
      {"token", "sequence", "none"},
      "importance ratio of each token, the geometric mean over its sequence, or none (REINFORCE)"));
  keys.push_back(Later(Choice(
      "objective.ratio_distribution", [](Config& c) { return &c.objective.ratio_distribution; },
      {"full", "sampled"},
      "what log-probabilities are taken of: the whole softmax at the temperature, or what "
      "sampling.top_k, top_p, min_p and repetition_penalty leave of it, from which tokens are "
      "drawn")));
  keys.push_back(Choice(
      "objective.surrogate", [](Config& c) { return &c.objective.surrogate; },
      {"clip", "cispo", "plain"},
      "PPO's clipped ratio, the clipped ratio as a weight, or the ratio as it is"));
  keys.push_back(Number(
      "objective.clip_low", [](Config& c) { return &c.objective.clip_low; }, "0.2", 0, 1,
      "the importance ratio is clipped below 1 - this"));
  keys.push_back(Number(
      "objective.clip_high", [](Config& c) { return &c.objective.clip_high; }, "0.28", 0, 100,
      "the importance ratio is clipped above 1 + this"));
  keys.push_back(Number(
      "objective.dual_clip", [](Config& c) { return &c.objective.dual_clip; }, "0", 0, 1000,
      "a token of negative advantage counts at most as if its ratio were this; 0: without bound"));
  keys.push_back(Choice(
      "objective.old", [](Config& c) { return &c.objective.old; }, {"behaviour", "recomputed"},
      "the policy that the ratio is taken against: the one that drew, as recorded, or the one that "
      "the batch's first pass began with (decoupled PPO)"));
  keys.push_back(Choice(
      "objective.correction", [](Config& c) { return &c.objective.correction; },
      {"none", "truncated", "masked"},
      "what a token counts where the recomputed policy is not the one that drew: its importance "
      "weight, cut off above, or 0 beyond bounds"));
  keys.push_back(Choice(
      "objective.correction_level", [](Config& c) { return &c.objective.correction_level; },
      {"token", "sequence", "geometric"},
      "that weight is the token's, the product over its sequence, or their geometric mean"));
  keys.push_back(Number(
      "objective.correction_low", [](Config& c) { return &c.objective.correction_low; }, "0", 0,
      1e6, "masked: weights below count 0"));
  keys.push_back(Number(
      "objective.correction_high", [](Config& c) { return &c.objective.correction_high; }, "2", 0,
      1e6, "weights above count this (truncated) or 0 (masked)"));
  keys.push_back(Choice(
      "objective.aggregate", [](Config& c) { return &c.objective.aggregate; },
      {"token_mean", "sequence_mean", "constant"},
      "the loss averages over all tokens, within each sequence first, or divides each sequence's "
      "sum by sampling.max_new_tokens"));
  keys.push_back(Number(
      "objective.kl", [](Config& c) { return &c.objective.kl; }, "0", 0, 100,
      "coefficient of the penalty against the policy at the start of the phase; 0: off"));
  keys.push_back(Choice(
      "objective.kl_in", [](Config& c) { return &c.objective.kl_in; }, {"loss", "reward"},
      "that penalty is a part of the loss, or taken off the rewards before advantages are made of "
      "them"));
  keys.push_back(Choice(
      "objective.kl_estimator", [](Config& c) { return &c.objective.kl_estimator; },
      {"k3", "k2", "k1"}, "of that penalty: k3 or k2 in the loss, k1 or k3 in the reward"));
  keys.push_back(Number(
      "objective.reference_every", [](Config& c) { return &c.objective.reference_every; }, "0", 0,
      1e8,
      "steps of the phase after which the policy of then is what that penalty is against; 0: "
      "never another one"));
  keys.push_back(Number(
      "objective.entropy", [](Config& c) { return &c.objective.entropy; }, "0", 0, 100,
      "coefficient of the bonus on the entropy of what each token is drawn from; 0: off"));
  keys.push_back(Number(
      "objective.overlong_share", [](Config& c) { return &c.objective.overlong_share; }, "0", 0, 1,
      "the last share of sampling.max_new_tokens, in which the overlong penalty rises from 0 to "
      "whole"));
  keys.push_back(Number(
      "objective.overlong_penalty", [](Config& c) { return &c.objective.overlong_penalty; }, "0", 0,
      1e6, "taken off the reward of an answer as long as sampling.max_new_tokens; 0: nothing"));
  keys.push_back(Number(
      "objective.length_reward", [](Config& c) { return &c.objective.length_reward; }, "0", 0, 1e6,
      "times 1/2 to -1/2 is added to the reward of an answer, from the shortest of its group to "
      "the "
      "longest; one whose reward is below objective.accept gains nothing; 0: off"));
  keys.push_back(Choice(
      "objective.step_rewards", [](Config& c) { return &c.objective.step_rewards; },
      {"none", "process"},
      "rewards that a grader gives at tokens before the end: nothing is made of them, or each "
      "token "
      "learns from all that come with it or after it"));
  keys.push_back(Flag(
      "objective.mask_truncated", [](Config& c) { return &c.objective.mask_truncated; }, "false",
      "answers cut off at their longest give no gradient; their rewards still count in the group"));
  keys.push_back(Later(Number(
      "objective.supervised_coefficient",
      [](Config& c) { return &c.objective.supervised_coefficient; }, "0", 0, 1e6,
      "of a supervised loss on supervised.mixture_batch examples of supervised.source that is "
      "added "
      "to each step's; 0: none")));
  AddCritic(keys);
}

}  // namespace thresher::config_internal
