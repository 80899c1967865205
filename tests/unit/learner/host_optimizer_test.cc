// Ranks that share a step out: what they train has the same bits however they do it.
#include "learner/host_optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <thread>

#include "tests/unit/learner/leaf_support.h"

namespace thresher::learner {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kLeaves = 4;
constexpr int kSteps = 3;

struct Way {
  std::uint32_t ranks = 1;
  bool zero = false, overlap = false;
  std::uint64_t bucket_bytes = kNormBlock * sizeof(float);
  int threads = 1;
  std::size_t micro_batch_tokens = 1u << 20;
};

struct Trained {
  TrainState state;  // of rank 0, as a checkpoint has it
  std::vector<double> norms;
};

class HostOptimizerTest : public ::testing::TestWithParam<const char*> {
 protected:
  HostOptimizerTest() {
    const std::string param = GetParam();
    config_ = model::SmallConfig("qwen2", param != "apart");
    config_.width = 64;
    config_.ffn_width = 512;
    config_.layers = 4;  // some 400,000 parameters: 7 blocks of the norm
    weights_ = model::LivelyWeights(config_, 3);
    if (param == "frozen") {
      for (std::size_t i = 0; i < model::ParameterList(config_).size(); ++i) {
        trained_.frozen.push_back(i % 4 == 1);
      }
    }
    if (param == "adapters") {
      LoraConfig lora;
      lora.rank = 16;
      lora.alpha = 8;
      lora.targets = "all-linear";
      trained_.lora = model::Lora::Make(lora, config_, {}).value();
    }
    const auto policy = model::PackedModel::Make(config_, weights_, config_.vocab, false);
    for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
      LeafWork& work = leaves_.emplace_back();
      for (std::uint32_t i = 0; i < 2; ++i) {
        work.sequences.push_back(
            PrepareSequence(SampleTrajectory(*policy, 10 * leaf + i, 3, 4, 1.0f, 0), 0));
        work.sequences.back().advantage = (leaf + i) % 2 == 0 ? 1.0f : -0.5f;
      }
      if (leaf % 2 == 1) {  // in the leaf's last passes
        work.examples = work.sequences;
        spec_.example_tokens += LossTokens(work);
      }
      spec_.loss_tokens += LossTokens(work);
      spec_.sequences += work.sequences.size();
    }
    spec_.kind = ObjectiveSpec::Kind::kPolicyGradient;
    spec_.example_coefficient = 0.5;
    adamw_.beta1 = 0.9;
    adamw_.beta2 = 0.95;
    adamw_.epsilon = 1e-8;
    adamw_.weight_decay = 0.01;
  }

  Trained TrainRank(comm::Communicator& comm, const Way& way) const {
    WorkerPool workers(WorkerPoolOptions{.threads = way.threads, .spin = {}});
    OptimizerOptions options{config_, adamw_, config_.vocab, kLeaves / way.ranks};
    options.comm = &comm;
    options.trained = trained_;
    options.zero = way.zero;
    options.overlap = way.overlap;
    options.bucket_bytes = way.bucket_bytes;
    const auto make = [&] { return std::make_unique<HostOptimizer>(options, workers, nullptr); };
    auto optimizer = make();
    EXPECT_TRUE(optimizer->Restore(weights_, AdamW::Fresh(optimizer->TrainedCount())).ok());
    if (trained_.lora) {
      EXPECT_TRUE(optimizer->Adapt({}).ok());
    }
    Trained out;
    for (int step = 0; step < kSteps; ++step) {
      const std::size_t each = kLeaves / way.ranks;
      const auto mine = std::span(leaves_).subspan(comm.rank().value * each, each);
      LeafStats stats;
      LeafOptions leaf;
      leaf.micro_batch_tokens = way.micro_batch_tokens;
      EXPECT_TRUE(optimizer->Compute(nullptr, mine, spec_, leaf, stats).ok());
      EXPECT_TRUE(optimizer->AddRanks(comm).ok());
      out.norms.push_back(optimizer->Norm().value());
      EXPECT_TRUE(optimizer->Step(trained_.lora ? 1e-4 : 1e-2, 1 / out.norms.back()).ok());
      Checkpoint(comm, *optimizer, out.state, step % 2 == 0);
      if (step != 1) continue;
      // As after a restart.
      TrainState all = Broadcast(comm, out.state);
      optimizer = make();
      if (trained_.lora) {
        EXPECT_TRUE(optimizer->Adapt(std::move(all.adapters)).ok());
      }
      EXPECT_TRUE(optimizer->Restore(all.weights, all.optimizer).ok());
    }
    std::vector<float> room;
    const auto weights = optimizer->Weights(room).value();
    out.state.weights.assign(weights.begin(), weights.end());
    return out;
  }

  static void Checkpoint(comm::Communicator& comm, Optimizer& optimizer, TrainState& state,
                         bool lend) {
    if (comm.rank().value != 0) {
      EXPECT_TRUE(optimizer.ShareShard().ok());
    } else if (!lend) {
      EXPECT_TRUE(optimizer.Copy(state).ok());
    } else {
      TrainState lent;
      EXPECT_TRUE(optimizer.Lend(lent).ok());
      state = lent;
      optimizer.TakeBack(lent);
    }
  }

  // As all ranks read the files that rank 0 wrote.
  static TrainState Broadcast(comm::Communicator& comm, TrainState state) {
    EXPECT_TRUE(comm.Broadcast(LearnerRank(0),
                               std::as_writable_bytes(std::span(&state.optimizer.steps, 1)), "n")
                    .ok());
    for (auto* v : {&state.weights, &state.optimizer.first_moment, &state.optimizer.second_moment,
                    &state.adapters.base, &state.adapters.weights}) {
      std::uint64_t size = v->size();
      EXPECT_TRUE(
          comm.Broadcast(LearnerRank(0), std::as_writable_bytes(std::span(&size, 1)), "s").ok());
      v->resize(size);
      EXPECT_TRUE(comm.Broadcast(LearnerRank(0), std::as_writable_bytes(std::span(*v)), "v").ok());
    }
    return state;
  }

  Trained Train(const Way& way) const {
    auto group = comm::MakeLocalGroup(way.ranks, 60s);
    std::vector<Trained> got(way.ranks);
    {
      std::vector<std::jthread> threads;
      for (std::uint32_t r = 0; r < way.ranks; ++r) {
        threads.emplace_back([&, r] { got[r] = TrainRank(*group[r], way); });
      }
    }
    for (std::uint32_t r = 1; r < way.ranks; ++r) {
      EXPECT_EQ(got[r].state.weights, got[0].state.weights);
      EXPECT_EQ(got[r].norms, got[0].norms);
    }
    return got[0];
  }

  model::ModelConfig config_;
  std::vector<float> weights_;
  model::Trained trained_;
  std::vector<LeafWork> leaves_;
  ObjectiveSpec spec_;
  OptimizerConfig adamw_;
};
INSTANTIATE_TEST_SUITE_P(Trained, HostOptimizerTest,
                         ::testing::Values("tied", "apart", "frozen", "adapters"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(HostOptimizerTest, ShardsOverlapBucketsAndRanksChangeNoBit) {
  ASSERT_GT(weights_.size(), 5 * kNormBlock);
  const Trained expected = Train({});
  EXPECT_NE(expected.state.weights, weights_);
  for (double norm : expected.norms) EXPECT_TRUE(std::isfinite(norm) && norm > 0) << norm;
  for (const Way& way : {Way{2}, Way{2, true}, Way{2, false, true}, Way{2, true, true, 1u << 30, 2},
                         Way{4, true}, Way{4, true, true, 3u << 18, 1, 8},
                         Way{4, false, true, 1u << 18, 2, 8}, Way{1, true, true}}) {
    SCOPED_TRACE(std::to_string(way.ranks) + " ranks, zero " + std::to_string(way.zero) +
                 ", overlap " + std::to_string(way.overlap));
    const Trained got = Train(way);
    EXPECT_EQ(got.norms, expected.norms);
    EXPECT_EQ(got.state.weights, expected.state.weights);
    EXPECT_EQ(got.state.optimizer.steps, expected.state.optimizer.steps);
    EXPECT_EQ(got.state.optimizer.first_moment, expected.state.optimizer.first_moment);
    EXPECT_EQ(got.state.optimizer.second_moment, expected.state.optimizer.second_moment);
  }
}

void ExpectSame(const TrainState& a, const TrainState& b) {
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.optimizer.steps, b.optimizer.steps);
  EXPECT_EQ(a.optimizer.first_moment, b.optimizer.first_moment);
  EXPECT_EQ(a.optimizer.second_moment, b.optimizer.second_moment);
  EXPECT_EQ(a.adapters.base, b.adapters.base);
  EXPECT_EQ(a.adapters.weights, b.adapters.weights);
}

// Two optimisers are asked for the same things in a random order; one has a second set of weights
// and moments for what it shares. A shared state is that of its moment until the next.
TEST_P(HostOptimizerTest, ASharedStateStaysAndTheOptimiserGoesOnWithTheSameBits) {
  WorkerPool workers(WorkerPoolOptions{.threads = 2, .spin = {}});
  OptimizerOptions options{config_, adamw_, config_.vocab, kLeaves};
  options.trained = trained_;
  HostOptimizer plain(options, workers, nullptr);
  options.double_buffer = true;
  HostOptimizer buffered(options, workers, nullptr);
  std::vector<HostOptimizer*> both = {&plain, &buffered};
  for (HostOptimizer* each : both) {
    ASSERT_TRUE(each->Restore(weights_, AdamW::Fresh(each->TrainedCount())).ok());
    if (trained_.lora) {
      ASSERT_TRUE(each->Adapt({}).ok());
    }
  }
  TrainState shared, shared_then;  // what the second gave, and what was in it
  const auto step = [&](bool skip) {
    for (HostOptimizer* each : both) {
      LeafStats stats;
      ASSERT_TRUE(each->Compute(nullptr, leaves_, spec_, {}, stats).ok());
      const double norm = each->Norm().value();
      ASSERT_TRUE((skip ? each->Skip() : each->Step(1e-2, 1 / norm)).ok());
    }
  };
  std::mt19937 random(7);
  int steps = 0, shares = 0;
  for (int i = 0; i < 60; ++i) {
    SCOPED_TRACE(i);
    const int what = static_cast<int>(random() % 12);
    TrainState a, b;
    if (what < 5) {
      step(what == 4);
      ++steps;
    } else if (what < 9) {
      ASSERT_TRUE(plain.Share(shared_then).ok());
      ASSERT_TRUE(buffered.Share(shared).ok());
      ++shares;
    } else if (what == 9) {
      for (HostOptimizer* each : both) ASSERT_TRUE(each->ResetMoments().ok());
    } else if (what == 10) {
      ASSERT_TRUE(plain.Copy(a).ok());
      ASSERT_TRUE(buffered.Copy(b).ok());
      ExpectSame(a, b);
    } else {
      ASSERT_TRUE(plain.Lend(a).ok());
      ASSERT_TRUE(buffered.Lend(b).ok());
      ExpectSame(a, b);
      plain.TakeBack(a);
      buffered.TakeBack(b);
    }
    if (shares > 0) ExpectSame(shared, shared_then);
    std::vector<float> room;
    EXPECT_TRUE(std::ranges::equal(plain.Weights(room).value(), buffered.Weights(room).value()));
    EXPECT_TRUE(std::ranges::equal(plain.Published().value(), buffered.Published().value()));
    if (HasFailure()) return;
  }
  EXPECT_GT(steps, 10);
  EXPECT_GT(shares, 10);
}

TEST_P(HostOptimizerTest, ASharedStateIsNotCopiedWhereAllIsTrained) {
  WorkerPool workers(WorkerPoolOptions{.threads = 1, .spin = {}});
  OptimizerOptions options{config_, adamw_, config_.vocab, kLeaves};
  options.trained = trained_;
  options.double_buffer = true;
  HostOptimizer optimizer(options, workers, nullptr);
  ASSERT_TRUE(optimizer.Restore(weights_, AdamW::Fresh(optimizer.TrainedCount())).ok());
  TrainState state;
  ASSERT_TRUE(optimizer.Share(state).ok());
  std::vector<float> room;
  EXPECT_EQ(optimizer.Weights(room).value().data() == state.weights.data(),
            trained_.frozen.empty());
}

}  // namespace
}  // namespace thresher::learner
