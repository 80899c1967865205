// Every preset on problems whose optimum is known: a tabular policy, sampled, and moved by the
// gradients of the composed objective.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "common/base/random.h"
#include "common/config/presets.h"
#include "learner/critic_state.h"
#include "learner/objective_config.h"
#include "learner/value.h"

namespace thresher::learner {
namespace {

constexpr std::size_t kGroups = 4, kGroupSize = 8;

// Up to `steps` choices in a row. Action 0 ends it with little; action 1 goes on, and after the
// last step brings 1. Best is 1 everywhere, which a policy that begins below one half rarely tries:
// with one step it is a bandit of two arms.
struct Problem {
  const char* name;
  std::size_t steps;
  static constexpr double kLittle = 0.3;
};

// Probability of action 1 in each state, as logits of action 1 against action 0.
using Policy = std::array<double, 4>;

double LogProb(const Policy& policy, std::size_t state, int action) {
  return -std::log1p(std::exp(action == 1 ? -policy[state] : policy[state]));
}

struct Sample {
  std::vector<int> action;  // the state is how many came before
  std::vector<float> behaviour;
  double reward = 0;
};

Sample Draw(const Problem& problem, const Policy& policy, RandomSequence& random) {
  Sample out;
  for (std::size_t state = 0; state < problem.steps; ++state) {
    const int action = random.NextUniform() < std::exp(LogProb(policy, state, 1)) ? 1 : 0;
    out.action.push_back(action);
    out.behaviour.push_back(static_cast<float>(LogProb(policy, state, action)));
    if (action == 0) break;
  }
  out.reward = out.action.back() == 1 ? 1 : Problem::kLittle;
  return out;
}

class Learner {
 public:
  Learner(const Config& config, Problem problem)
      : config_(config),
        problem_(problem),
        spec_(PolicyObjective(config)),
        estimator_(EstimatorOf(config.objective)),
        random_(21, {}, RandomPurpose::kBootstrap) {
    policy_.fill(-0.3);
    reference_ = policy_;
  }

  // drew: the policy of so many steps ago.
  void Step(const Policy& drew) {
    std::vector<Sample> samples;
    std::vector<Scored> scored;
    for (std::size_t i = 0; i < kGroups * kGroupSize; ++i) {
      samples.push_back(Draw(problem_, drew, random_));
      scored.push_back({samples.back().reward, samples.back().action.size()});
    }
    const std::vector<double> advantages =
        Advantages(estimator_, scored, std::vector<std::size_t>(kGroups, kGroupSize),
                   config_.objective.accept);
    spec_.loss_tokens = spec_.sequences = 0;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      if (estimator_ == Estimator::kAccepted && advantages[i] == 0) samples[i].action.clear();
      spec_.loss_tokens += samples[i].action.size();
      spec_.sequences += samples[i].action.empty() ? 0 : 1;
    }
    const std::vector<TokenGains> gains = Gains(samples);
    Policy gradient{}, of_values{};
    for (std::size_t i = 0; i < samples.size(); ++i) {
      AddGradient(samples[i], advantages[i], gains[i], gradient);
      for (std::size_t t = 0; HasCritic() && t < samples[i].action.size(); ++t) {
        of_values[t] += ValueLossOf(value_[t], value_[t], gains[i].target[t], 0).slope;
      }
    }
    for (std::size_t s = 0; s < policy_.size(); ++s) {
      policy_[s] -= 2 * gradient[s];
      value_[s] -= 0.5 * of_values[s] / static_cast<double>(samples.size());
    }
  }

  const Policy& policy() const { return policy_; }
  double value(std::size_t state) const { return value_[state]; }
  bool HasCritic() const { return CriticKindOf(config_.objective).has_value(); }

 private:
  // Of a critic, whitened with kGae.
  std::vector<TokenGains> Gains(const std::vector<Sample>& samples) {
    std::vector<TokenGains> out(samples.size());
    if (!HasCritic()) return out;
    std::vector<std::vector<double>> values;
    GainSums sums;
    GainSquares squares;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      std::vector<double> reward(samples[i].action.size(), 0), log_ratio;
      reward.back() = samples[i].reward;
      auto& value = values.emplace_back();
      for (std::size_t t = 0; t < reward.size(); ++t) {
        value.push_back(value_[t]);
        log_ratio.push_back(LogProb(policy_, t, samples[i].action[t]) -
                            static_cast<double>(samples[i].behaviour[t]));
      }
      const ObjectiveConfig& o = config_.objective;
      out[i] = estimator_ == Estimator::kGae
                   ? GeneralisedAdvantages(reward, value, o.gamma, o.gae_lambda)
                   : VTrace(reward, value, log_ratio, {o.gamma, o.rho_bar, o.c_bar});
      sums.Add(SumsOf(out[i], value));
    }
    for (std::size_t i = 0; i < samples.size(); ++i)
      squares.Add(SquaresOf(out[i], values[i], sums));
    for (TokenGains& gains : out) {
      for (double& a : gains.advantage) {
        if (estimator_ == Estimator::kGae) a = Whitened(a, sums, squares);
      }
    }
    return out;
  }

  void AddGradient(const Sample& sample, double advantage, const TokenGains& gains,
                   Policy& gradient) {
    const std::size_t count = sample.action.size();
    std::vector<float> logprob, reference, entropy(count), dlogprob(count);
    for (std::size_t t = 0; t < count; ++t) {
      logprob.push_back(static_cast<float>(LogProb(policy_, t, sample.action[t])));
      reference.push_back(static_cast<float>(LogProb(reference_, t, sample.action[t])));
    }
    const std::vector<std::uint8_t> in_loss(count, 1);
    SequenceTerms terms;
    terms.logprob = logprob;
    terms.behaviour = std::span(sample.behaviour).first(count);
    terms.reference = reference;
    terms.entropy = entropy;
    terms.in_loss = in_loss;
    terms.advantage = advantage;
    terms.advantages = gains.advantage;
    ObjectiveStats stats;
    AddSequence(spec_, terms, dlogprob, {}, stats);
    for (std::size_t t = 0; t < count; ++t) {
      const double one = std::exp(LogProb(policy_, t, 1));
      gradient[t] += static_cast<double>(dlogprob[t]) * (sample.action[t] - one);
    }
  }

  const Config config_;
  const Problem problem_;
  ObjectiveSpec spec_;
  const Estimator estimator_;
  RandomSequence random_;
  Policy policy_, reference_, value_{};
};

// What the policy earns on average.
double Earns(const Problem& problem, const Policy& policy) {
  double through = 1;
  for (std::size_t s = 0; s < problem.steps; ++s) through *= std::exp(LogProb(policy, s, 1));
  return through + (1 - through) * Problem::kLittle;
}

TEST(Optimum, EveryPresetReachesItFromAPolicyThatRarelyFindsIt) {
  for (const Problem& problem : {Problem{"two arms", 1}, {"chain", 4}}) {
    for (const std::string& preset : config_internal::PresetNames()) {
      const Config config =
          ParseConfig("", "test", {"objective.preset=" + preset, "sampling.max_new_tokens=4"});
      Learner learner(config, problem);
      ASSERT_LT(Earns(problem, learner.policy()), 0.62);
      for (int step = 0; step < 600; ++step) learner.Step(learner.policy());
      // A penalty against the start (grpo) leaves some of it.
      EXPECT_GT(Earns(problem, learner.policy()), 0.97) << preset << ", " << problem.name;
      if (!learner.HasCritic()) continue;
      EXPECT_NEAR(learner.value(0), 1, 0.05) << preset;
    }
  }
}

// Eight steps behind: with weights, all the same.
TEST(Optimum, StalePoliciesAreLearntFromWhereTheObjectiveWeighs) {
  const Problem problem{"chain", 4};
  for (const char* preset : {"ppo", "vtrace_impala", "grpo", "cispo", "dapo"}) {
    const Config config = ParseConfig(
        "", "test", {std::string("objective.preset=") + preset, "sampling.max_new_tokens=4"});
    Learner learner(config, problem);
    std::vector<Policy> past = {learner.policy()};
    for (int step = 0; step < 600; ++step) {
      learner.Step(past[past.size() > 8 ? past.size() - 8 : 0]);
      past.push_back(learner.policy());
    }
    EXPECT_GT(Earns(problem, learner.policy()), 0.95) << preset;
  }
}

}  // namespace
}  // namespace thresher::learner
