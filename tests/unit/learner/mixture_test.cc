#include "learner/mixture.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "learner/eval_loss.h"
#include "tests/unit/model/small_model.h"

namespace thresher::learner {
namespace {

// Example n: 3 + n % 5 tokens, of which all but the first two are learned.
class Counted final : public examples::SupervisedSource {
 public:
  explicit Counted(std::int32_t vocab, std::uint64_t held_out = 0)
      : vocab_(vocab), held_out_(held_out) {}
  Result<examples::Example> At(std::uint64_t item) const override {
    if (item == broken) return DataLoss("line 7: changed");
    examples::Example example;
    example.tokens = model::RandomTokens(static_cast<std::uint32_t>(item),
                                         3 + static_cast<int>(item % 5), vocab_);
    const auto size = static_cast<std::uint32_t>(example.tokens.size());
    example.segments = {{0, 2, Role::kPrompt, false}, {2, size, Role::kPolicy, true}};
    return example;
  }
  std::uint64_t held_out() const override { return held_out_; }
  Result<examples::Example> HeldOut(std::uint64_t index) const override { return At(1000 + index); }
  const examples::SourceCounts& counts() const override { return counts_; }
  const std::vector<DataHash>& hashes() const override { return hashes_; }

  std::uint64_t broken = ~std::uint64_t{0};

 private:
  std::int32_t vocab_;
  std::uint64_t held_out_;
  examples::SourceCounts counts_;
  std::vector<DataHash> hashes_;
};

Config Make(const std::vector<std::string>& more = {}) {
  std::vector<std::string> settings = {
      "supervised.source=jsonl",     "supervised.file=a.jsonl",
      "supervised.steps=3",          "supervised.batch=10",
      "supervised.warmup_steps=0",   "learner.grad_leaves=8",
      "supervised.mixture_batch=21", "objective.supervised_coefficient=0.5"};
  settings.insert(settings.end(), more.begin(), more.end());
  return ParseConfig("", "test", settings);
}

StepBatch EmptyBatch(std::size_t minibatches, std::size_t own_leaves) {
  StepBatch batch;
  batch.minibatches.resize(minibatches);
  for (Minibatch& part : batch.minibatches) part.leaves.resize(own_leaves / minibatches);
  return batch;
}

StepPlan RlStep(std::uint32_t phase_step) {
  StepPlan plan;
  plan.phase = Phase::kRl;
  plan.phase_step = phase_step;
  return plan;
}

using Group = std::vector<std::unique_ptr<comm::Communicator>>;
Group Ranks(std::uint32_t count) { return comm::MakeLocalGroup(count, std::chrono::seconds(30)); }

TEST(MixtureTest, AStepsExamplesAreTheNextOfTheStreamOnAnyNumberOfRanks) {
  const Config config = Make({"rl.minibatches=2"});
  const Counted source(50);
  const Mixture mixture(config, source);
  for (std::uint32_t ranks : {1u, 2u, 4u}) {
    const Group group = Ranks(ranks);
    std::vector<std::uint64_t> items;
    for (const auto& comm : group) {
      StepBatch batch = EmptyBatch(2, 8 / ranks);
      ASSERT_TRUE(mixture.Add(*comm, RlStep(4), batch).ok());
      for (const LeafWork* leaf : OwnLeaves(batch)) {
        for (const TrainSequence& s : leaf->examples) {
          items.push_back(s.id.item);
          EXPECT_EQ(s.tokens, source.At(s.id.item)->tokens);
          EXPECT_EQ(s.in_loss[0], 0);
          EXPECT_EQ(s.in_loss[1], 1);
        }
      }
      std::uint64_t tokens = 0;
      for (std::uint64_t n = 0; n < 21; ++n) tokens += 1 + (30 + 84 + n) % 5;
      EXPECT_EQ(batch.minibatches[0].example_tokens + batch.minibatches[1].example_tokens, tokens);
      EXPECT_GT(batch.minibatches[0].example_tokens, 0u);
      EXPECT_GT(batch.minibatches[1].example_tokens, 0u);
    }
    std::vector<std::uint64_t> expected;
    for (std::uint64_t n = 0; n < 21; ++n) expected.push_back(30 + 4 * 21 + n);
    EXPECT_EQ(items, expected) << ranks;
  }
}

TEST(MixtureTest, EachMinibatchCountsTheTokensOfItsOwnLeaves) {
  const Config config = Make({"rl.minibatches=2"});
  const Counted source(50);
  const Group group = Ranks(1);
  StepBatch batch = EmptyBatch(2, 8);
  ASSERT_TRUE(Mixture(config, source).Add(*group[0], RlStep(0), batch).ok());
  for (const Minibatch& part : batch.minibatches) {
    std::uint64_t tokens = 0;
    for (const LeafWork& leaf : part.leaves) {
      for (const TrainSequence& s : leaf.examples) {
        for (auto flag : s.in_loss) tokens += flag;
      }
    }
    EXPECT_EQ(part.example_tokens, tokens);
  }
}

TEST(MixtureTest, AFileThatChangedEndsTheStep) {
  const Config config = Make();
  Counted source(50);
  source.broken = 35;
  const Group group = Ranks(1);
  StepBatch batch = EmptyBatch(1, 8);
  EXPECT_EQ(Mixture(config, source).Add(*group[0], RlStep(0), batch).code(), StatusCode::kDataLoss);
}

class EvalLossTest : public ::testing::Test {
 protected:
  EvalLossTest() {
    run_.config = Make(
        {"supervised.eval_share=0.1", "supervised.eval_every=1", "supervised.eval_examples=17"});
    run_.tokenizer = model::Tokenizer::FromAlphabet("abcdefghijklmnopqrstuvwxyz0123456789").value();
    run_.model = model::SmallConfig("llama", true);
    run_.model.vocab = run_.tokenizer->vocab();
    weights_ = model::LivelyWeights(run_.model, 3);
  }

  std::vector<EvalLoss::Measured> Measure(std::uint32_t ranks, int threads,
                                          const Counted& source) const {
    const Group group = Ranks(ranks);
    std::vector<EvalLoss::Measured> out(ranks);
    std::vector<std::jthread> others;
    for (std::uint32_t r = 0; r < ranks; ++r) {
      others.emplace_back([&, r] {
        WorkerPoolOptions options;
        options.threads = threads;
        WorkerPool workers(options);
        out[r] = EvalLoss(run_, source, workers).Measure(*group[r], weights_).value();
      });
    }
    others.clear();
    return out;
  }

  model::RunContext run_;
  std::vector<float> weights_;
};

TEST_F(EvalLossTest, IsTheSameBitsOnAnyNumberOfRanksAndThreads) {
  const Counted source(run_.model.vocab, 40);
  const EvalLoss::Measured one = Measure(1, 1, source)[0];
  EXPECT_GT(one.loss, 0);
  EXPECT_DOUBLE_EQ(one.perplexity, std::exp(one.loss));
  std::uint64_t tokens = 0;
  for (std::uint64_t n = 0; n < 17; ++n) tokens += 1 + (1000 + n) % 5;
  EXPECT_EQ(one.tokens, tokens);
  for (std::uint32_t ranks : {1u, 2u, 4u}) {
    for (const auto& measured : Measure(ranks, 2, source)) {
      EXPECT_EQ(measured.loss, one.loss) << ranks;
      EXPECT_EQ(measured.tokens, one.tokens);
    }
  }
}

// What the learner minimises in the supervised phase, of the same sequences.
TEST_F(EvalLossTest, IsTheLossOfTheSupervisedPhase) {
  const Counted source(run_.model.vocab, 5);
  LeafWork work;
  ObjectiveSpec spec;
  for (std::uint64_t n = 0; n < 5; ++n) {
    work.sequences.push_back(SequenceOf(*source.HeldOut(n), n));
    spec.loss_tokens += source.HeldOut(n)->LossTokens();
  }
  std::vector<float> gradient(model::GradientSize(run_.model));
  LeafComputer computer(model::MakeCpuTrainingPass(run_.model));
  const auto policy = model::PackedModel::Make(run_.model, weights_, run_.tokenizer->vocab(), true);
  const auto stats = computer.Compute(policy, nullptr, work, spec, {}, gradient).value();
  EXPECT_NEAR(Measure(1, 2, source)[0].loss, stats.loss, 1e-6);
}

}  // namespace
}  // namespace thresher::learner
