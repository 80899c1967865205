// A critic beside a policy: what its gradient is, and that nothing but the batch decides its bits.
#include "learner/critic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "learner/host_optimizer.h"
#include "learner/value.h"
#include "tests/unit/learner/leaf_support.h"

namespace thresher::learner {
namespace {

using namespace std::chrono_literals;
using model::PackedModel;

constexpr std::size_t kLeaves = 8;

struct Way {
  std::uint32_t ranks = 1;
  int threads = 1;
  std::size_t micro_batch_tokens = 1u << 20;
  bool recompute = false;
  bool restored = false;  // the critic goes through a checkpoint after the first batch
};

struct Trained {
  std::vector<float> policy, critic;
  std::map<std::string, double> metrics;
  double value_loss = 0;
};

class CriticTest : public ::testing::TestWithParam<const char*> {
 protected:
  CriticTest() {
    config_ = model::SmallConfig("qwen2", true);
    weights_ = model::LivelyWeights(config_, 3);
    const auto drew =
        PackedModel::Make(config_, model::LivelyWeights(config_, 3, 0.29), config_.vocab, false);
    for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
      LeafWork& work = leaves_.emplace_back();
      for (std::uint32_t i = 0; i < leaf % 3; ++i) {  // also of nothing
        Trajectory t = SampleTrajectory(*drew, 10 * leaf + i, 3 + static_cast<int>(leaf), 4 + 5 * i,
                                        i == 0 ? 1.0f : 0.8f, 0);
        work.sequences.push_back(PrepareSequence(t, 0));
        work.sequences.back().reward = (leaf + i) % 2 == 0 ? 1.5 : -0.5;
        if (i == 1) work.sequences.back().step_rewards = {{3 + leaf, 0.75}, {3 + leaf, 0.5}};
      }
    }
    objective_.gamma = 0.97;
    objective_.gae_lambda = 0.9;
    objective_.rho_bar = objective_.c_bar = 1;
    objective_.value_clip = 0.3;
    objective_.value_coefficient = 0.7;
    objective_.critic_learning_rate = 1e-3;
    objective_.critic = GetParam();
    objective_.advantage = objective_.critic == "own" ? "gae" : "vtrace";
    adamw_.beta1 = 0.9;
    adamw_.beta2 = 0.95;
    adamw_.epsilon = 1e-8;
    adamw_.weight_decay = 0.01;
  }

  CriticOptions Options(const Way& way) const {
    CriticOptions options;
    options.kind = *CriticKindOf(objective_);
    options.model = config_;
    options.adamw = adamw_;
    options.objective = objective_;
    options.valid_vocab = config_.vocab;
    options.leaf.micro_batch_tokens = way.micro_batch_tokens;
    options.leaf.recompute = way.recompute;
    return options;
  }

  // Leaves [begin, end), as a rank has them with two minibatches.
  StepBatch Batch(std::size_t begin, std::size_t end) const {
    StepBatch batch;
    batch.minibatches.resize(2);
    for (std::size_t i = 0; i < kLeaves; ++i) {
      Minibatch& part = batch.minibatches[i % 2];
      part.loss_tokens += LossTokens(leaves_[i]);
      part.sequences += leaves_[i].sequences.size();
      if (begin <= i && i < end) part.leaves.push_back(leaves_[i]);
    }
    return batch;
  }

  ObjectiveSpec Spec(const Minibatch& part) const {
    ObjectiveSpec spec;
    spec.kind = ObjectiveSpec::Kind::kPolicyGradient;
    spec.surrogate = ObjectiveSpec::Surrogate::kPlain;
    if (objective_.advantage == "vtrace") spec.ratio = ObjectiveSpec::Ratio::kNone;
    spec.loss_tokens = part.loss_tokens;
    spec.sequences = part.sequences;
    return spec;
  }

  // One rank's life of two batches, each of two epochs.
  Trained TrainRank(comm::Communicator& comm, const Way& way) const {
    WorkerPool workers(WorkerPoolOptions{.threads = way.threads, .spin = {}});
    const std::size_t leaves = kLeaves / way.ranks;
    HostOptimizer policy({config_, adamw_, config_.vocab, leaves / 2, false}, workers, nullptr);
    EXPECT_TRUE(policy.Restore(weights_, AdamW::Fresh(weights_.size())).ok());
    auto critic = std::make_unique<Critic>(Options(way), workers);
    critic->Start(weights_);
    Trained out;
    for (int step = 0; step < 2; ++step) {
      const std::size_t begin = comm.rank().value * leaves;
      StepBatch batch = Batch(begin, begin + leaves);
      std::vector<float> room;
      EXPECT_TRUE(critic->Evaluate(comm, policy.Weights(room).value(), batch).ok());
      for (int part = 0; part < 4; ++part) {
        TrainPart(comm, way, policy, *critic, batch.minibatches[static_cast<std::size_t>(part % 2)],
                  out);
      }
      out.metrics = batch.metrics;
      if (!way.restored) continue;
      CriticState state = critic->Lend();
      critic = std::make_unique<Critic>(Options(way), workers);
      critic->Restore(std::move(state));
    }
    std::vector<float> room;
    const auto weights = policy.Weights(room).value();
    out.policy.assign(weights.begin(), weights.end());
    out.critic.assign(critic->weights().begin(), critic->weights().end());
    return out;
  }

  void TrainPart(comm::Communicator& comm, const Way& way, Optimizer& policy, Critic& critic,
                 const Minibatch& part, Trained& out) const {
    LeafOptions options = Options(way).leaf;
    options.value = critic.Begin(part.leaves.size());
    LeafStats stats;
    const ObjectiveSpec spec = Spec(part);
    EXPECT_TRUE(policy.Compute(nullptr, part.leaves, spec, options, stats).ok());
    EXPECT_TRUE(critic.Compute(part.leaves, spec, stats).ok());
    EXPECT_TRUE(policy.AddRanks(comm).ok() && critic.AddRanks(comm).ok());
    EXPECT_TRUE(std::isfinite(critic.Norm()));
    EXPECT_TRUE(policy.Step(1e-3, 1).ok());
    critic.Step(0.5);
    out.value_loss += stats.value_loss;
  }

  Trained Train(const Way& way) const {
    auto group = comm::MakeLocalGroup(way.ranks, 30s);
    std::vector<Trained> got(way.ranks);
    {
      std::vector<std::jthread> threads;
      for (std::uint32_t r = 0; r < way.ranks; ++r) {
        threads.emplace_back([&, r] { got[r] = TrainRank(*group[r], way); });
      }
    }
    for (std::uint32_t r = 1; r < way.ranks; ++r) {
      EXPECT_EQ(got[r].policy, got[0].policy);
      EXPECT_EQ(got[r].critic, got[0].critic);
      EXPECT_EQ(got[r].metrics, got[0].metrics);
      got[0].value_loss += got[r].value_loss;
    }
    return got[0];
  }

  // A critic that says something, in the flat order of its kind.
  std::vector<float> LivelyCritic() const {
    const CriticKind kind = *CriticKindOf(objective_);
    std::vector<float> out;
    if (kind == CriticKind::kOwn) out = model::LivelyWeights(config_, 9);
    const std::size_t trunk = out.size();
    out.resize(CriticParameterCount(kind, config_));
    for (std::size_t i = trunk; i < out.size(); ++i) {
      out[i] = 0.2f * std::sin(static_cast<float>(i) * 1.7f);
    }
    return out;
  }

  model::ModelConfig config_;
  std::vector<float> weights_;
  std::vector<LeafWork> leaves_;
  ObjectiveConfig objective_;
  OptimizerConfig adamw_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, CriticTest, ::testing::Values("own", "shared"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(CriticTest, NothingButTheBatchDecidesItsBits) {
  const Trained base = Train({});
  EXPECT_NE(base.policy, weights_);
  EXPECT_EQ(base.metrics.size(), 4u);
  for (const Way& way : {Way{1, 2, 16}, Way{2, 1, 1u << 20}, Way{2, 2, 30, true}, Way{4, 1, 1},
                         Way{1, 1, 1u << 20, false, true}}) {
    const Trained got = Train(way);
    const auto what = ::testing::Message()
                      << way.ranks << " ranks, " << way.threads << " threads, "
                      << way.micro_batch_tokens << (way.restored ? " restored" : "");
    EXPECT_EQ(got.policy, base.policy) << what;
    EXPECT_EQ(got.critic, base.critic) << what;
    EXPECT_EQ(got.metrics, base.metrics) << what;
    EXPECT_NEAR(got.value_loss, base.value_loss, 1e-12 * std::abs(base.value_loss)) << what;
  }
}

TEST_P(CriticTest, ItsHeadStartsAtZeroAndItsTrunkIsThePolicys) {
  WorkerPool workers(WorkerPoolOptions{.threads = 1, .spin = {}});
  Critic critic(Options({}), workers);
  EXPECT_FALSE(critic.started());
  critic.Start(weights_);
  EXPECT_TRUE(critic.started());
  const std::size_t head = static_cast<std::size_t>(config_.width) + 1;
  const bool own = objective_.critic == "own";
  ASSERT_EQ(critic.weights().size(), head + (own ? weights_.size() : 0));
  for (float w : critic.weights().last(head)) EXPECT_EQ(w, 0.0f);
  if (own) {
    EXPECT_TRUE(std::ranges::equal(critic.weights().first(weights_.size()), weights_));
  }
  CriticState other = critic.Lend();
  other.weights.push_back(0);
  EXPECT_DEATH(critic.Restore(std::move(other)), "a critic of another model");
}

// The tokens' values are the head on the hidden states, and advantages and targets follow from
// them, from the reward at the last token, and with V-trace from how far the policy has moved.
TEST_P(CriticTest, WhatItSaysOfABatchFollowsFromTheFormulas) {
  WorkerPool workers(WorkerPoolOptions{.threads = 2, .spin = {}});
  Critic critic(Options({}), workers);
  const std::vector<float> flat = LivelyCritic();
  critic.Restore({flat, AdamW::Fresh(flat.size())});
  auto group = comm::MakeLocalGroup(1, 30s);
  StepBatch batch = Batch(0, kLeaves);
  ASSERT_TRUE(critic.Evaluate(*group[0], weights_, batch).ok());
  const bool own = objective_.critic == "own";
  const std::size_t width = static_cast<std::size_t>(config_.width);
  const auto trunk =
      own ? std::span<const float>(flat).first(weights_.size()) : std::span<const float>(weights_);
  const auto model = PackedModel::Make(config_, trunk, config_.vocab, false);
  const auto policy = PackedModel::Make(config_, weights_, config_.vocab, false);
  const auto head = std::span<const float>(flat).last(width + 1);
  const model::WorkspacePtr workspace = model::NewWorkspace();

  std::vector<double> advantages, got;
  double moved = 0;
  for (std::size_t i = 0; i < kLeaves; ++i) {
    for (const TrainSequence& s : batch.minibatches[i % 2].leaves[i / 2].sequences) {
      const int rows = static_cast<int>(s.in_loss.size());
      const auto pages = model::PageTable(0, 1, rows);
      model::KvCache cache(config_, static_cast<std::int32_t>(pages.size()));
      model::RowBatch batch_rows;
      model::Append(s.tokens, 0, rows, pages, batch_rows);
      const std::vector<float> hidden = model::HiddenOf(*model, batch_rows, cache);
      const std::vector<float> of_policy = model::HiddenOf(*policy, batch_rows, cache);
      const std::vector<std::int32_t> target(s.tokens.begin() + 1, s.tokens.end());
      const auto logprob =
          model::LogProb(*policy, of_policy, target,
                         std::vector<float>(target.size(), s.temperature), *workspace)
              .logprob;
      std::vector<double> v, r, q;
      for (std::size_t t = 0; t < s.in_loss.size(); ++t) {
        double value = head[width];
        for (std::size_t c = 0; c < width; ++c) {
          value += static_cast<double>(hidden[t * width + c]) * head[c];
        }
        EXPECT_NEAR(s.values.value[t], value, 1e-5);
        if (!s.in_loss[t]) continue;
        v.push_back(static_cast<double>(s.values.value[t]));
        r.push_back(0);
        for (const StepReward& step : s.step_rewards) {
          if (step.row == t) r.back() += step.value;
        }
        q.push_back(static_cast<double>(logprob[t]) - static_cast<double>(s.behaviour_logprob[t]));
        moved = std::max(moved, std::abs(q.back()));
      }
      r.back() += s.reward;
      const TokenGains gains =
          own ? GeneralisedAdvantages(r, v, 0.97, 0.9) : VTrace(r, v, q, {0.97, 1, 1});
      advantages.insert(advantages.end(), gains.advantage.begin(), gains.advantage.end());
      std::size_t k = 0;
      for (std::size_t t = 0; t < s.in_loss.size(); ++t) {
        if (!s.in_loss[t]) continue;
        EXPECT_EQ(s.values.target[t], gains.target[k++]);
        got.push_back(s.values.advantage[t]);
      }
    }
  }
  EXPECT_GT(moved, 0.01);
  double mean = 0, square = 0, size = 0;
  const double n = static_cast<double>(advantages.size());
  for (double a : advantages) mean += a / n;
  for (double a : advantages) square += (a - mean) * (a - mean);
  const double scale = own ? 1 / std::sqrt(square / (n - 1) + 1e-8) : 1;
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], scale * (advantages[i] - (own ? mean : 0)), 1e-10);
    size += std::abs(got[i]) / n;
  }
  EXPECT_NEAR(batch.metrics["advantage_size"], size, 1e-10);
}

// Finite differences, tensor by tensor: along a gradient the slope is its length.
TEST_P(CriticTest, ItsGradientIsTheSlopeOfTheLosses) {
  LeafWork work;
  for (const LeafWork& leaf : leaves_) {
    work.sequences.insert(work.sequences.end(), leaf.sequences.begin(), leaf.sequences.end());
  }
  RandomSequence random(4, {}, RandomPurpose::kBootstrap);
  for (TrainSequence& s : work.sequences) {
    for (std::size_t t = 0; t < s.in_loss.size(); ++t) {
      s.values.value.push_back(static_cast<float>(random.NextUniform() - 0.5));
      s.values.target.push_back(2 * random.NextUniform() - 1);
      s.values.advantage.push_back(2 * random.NextUniform() - 1);
    }
  }
  Minibatch all;
  all.loss_tokens = LossTokens(work);
  all.sequences = work.sequences.size();
  const ObjectiveSpec spec = Spec(all);
  const std::vector<float> flat = LivelyCritic();
  const bool own = objective_.critic == "own";
  const std::size_t head = static_cast<std::size_t>(config_.width) + 1;
  LeafComputer computer(model::MakeCpuTrainingPass(config_));

  struct Outcome {
    double loss, value_loss;
    std::vector<float> gradient, head;
  };
  const auto compute = [&](std::span<const float> trunk, std::span<const float> value_head) {
    ValueTerm term;
    term.head = value_head;
    term.trunk = own ? 1.0f : 0.7f;
    Outcome out;
    out.gradient.resize(model::GradientSize(config_));
    out.head.resize(head);
    const auto packed = PackedModel::Make(config_, trunk, config_.vocab, true);
    LeafOptions options;
    options.micro_batch_tokens = 40;
    LeafStats stats;
    if (own) {
      stats =
          computer.ComputeValues(packed, work, spec, term, options, out.gradient, out.head).value();
    } else {
      options.value = &term;
      stats =
          computer.Compute(packed, nullptr, work, spec, options, out.gradient, out.head).value();
    }
    out.value_loss = stats.value_loss;
    out.loss = stats.loss + (own ? 1.0 : 0.7) * stats.value_loss;
    return out;
  };
  const std::vector<float> trunk =
      own ? std::vector<float>(flat.begin(), flat.end() - head) : weights_;
  const std::vector<float> value_head(flat.end() - head, flat.end());
  Outcome at = compute(trunk, value_head);
  model::FoldTiedGradient(config_, at.gradient);

  const auto length = [](std::span<const float> g) {
    double square = 0;
    for (float x : g) square += static_cast<double>(x) * x;
    return std::sqrt(square);
  };
  const auto moved = [&](std::vector<float> weights, std::size_t offset, std::span<const float> g,
                         double step) {
    for (std::size_t i = 0; i < g.size(); ++i) {
      weights[offset + i] += static_cast<float>(step * g[i] / length(g));
    }
    return weights;
  };
  int tensors = 0;
  for (const model::ParameterInfo& info : model::ParameterList(config_)) {
    const auto g = std::span<const float>(at.gradient).subspan(info.offset, info.count);
    if (info.name.find("k_proj.bias") != std::string::npos) continue;  // no softmax sees it
    ASSERT_GT(length(g), 1e-5) << info.name;
    const double step = std::min(2e-3 / length(g), 5e-3);
    const double above = compute(moved(trunk, info.offset, g, step), value_head).loss;
    const double below = compute(moved(trunk, info.offset, g, -step), value_head).loss;
    EXPECT_NEAR((above - below) / (2 * step), length(g), 0.02 * length(g) + 1e-4) << info.name;
    ++tensors;
  }
  EXPECT_GT(tensors, 15);
  // The head's own is of the value loss, whatever of it counts in the trunk.
  const double step = 1e-2;
  const double above = compute(trunk, moved(value_head, 0, at.head, step)).value_loss;
  const double below = compute(trunk, moved(value_head, 0, at.head, -step)).value_loss;
  EXPECT_NEAR((above - below) / (2 * step), length(at.head), 1e-3 * length(at.head));
}

TEST_P(CriticTest, AHeadWhoseGradientStaysAboveLeavesThePolicysAlone) {
  StepBatch batch = Batch(0, kLeaves);
  auto group = comm::MakeLocalGroup(1, 30s);
  WorkerPool workers(WorkerPoolOptions{.threads = 1, .spin = {}});
  for (double coefficient : {0.0, 0.7}) {
    objective_.value_coefficient = coefficient;
    Critic critic(Options({}), workers);
    const std::vector<float> flat = LivelyCritic();
    critic.Restore({flat, AdamW::Fresh(flat.size())});
    ASSERT_TRUE(critic.Evaluate(*group[0], weights_, batch).ok());
    BatchGradient policy(config_, config_.vocab, workers);
    const Minibatch& part = batch.minibatches[1];
    LeafOptions options;
    LeafStats stats;
    const auto alone =
        policy.Compute(weights_, nullptr, part.leaves, Spec(part), options, stats).value();
    options.value = critic.Begin(part.leaves.size());
    const auto beside =
        policy.Compute(weights_, nullptr, part.leaves, Spec(part), options, stats).value();
    ASSERT_TRUE(critic.Compute(part.leaves, Spec(part), stats).ok());
    EXPECT_GT(critic.Norm(), 0);
    EXPECT_EQ(alone == beside, coefficient == 0 || objective_.critic == "own");
  }
}

TEST_P(CriticTest, ItLearnsWhatIsRewarded) {
  // Rewards that the first token of the answer's prompt tells.
  objective_.advantage = "gae";
  objective_.gamma = objective_.gae_lambda = 1;
  objective_.value_clip = 0;
  for (LeafWork& leaf : leaves_) {
    for (TrainSequence& s : leaf.sequences) s.reward = s.tokens[0] % 2 == 0 ? 1 : -1;
  }
  WorkerPool workers(WorkerPoolOptions{.threads = 2, .spin = {}});
  auto group = comm::MakeLocalGroup(1, 30s);
  Critic critic(Options({}), workers);
  critic.Start(weights_);
  std::vector<double> explained;
  for (int step = 0; step < 150; ++step) {
    StepBatch batch = Batch(0, kLeaves);
    ASSERT_TRUE(critic.Evaluate(*group[0], weights_, batch).ok());
    explained.push_back(batch.metrics["explained_variance"]);
    for (const Minibatch& part : batch.minibatches) {
      LeafOptions options;
      LeafStats stats;
      options.value = critic.Begin(part.leaves.size());
      BatchGradient policy(config_, config_.vocab, workers);
      if (options.value != nullptr) {
        ASSERT_TRUE(
            policy.Compute(weights_, nullptr, part.leaves, Spec(part), options, stats).ok());
      }
      ASSERT_TRUE(critic.Compute(part.leaves, Spec(part), stats).ok());
      critic.Step(1);
    }
  }
  EXPECT_EQ(explained.front(), 0);  // the head is zero: a constant
  EXPECT_GT(explained.back(), 0.8);
}

}  // namespace
}  // namespace thresher::learner
