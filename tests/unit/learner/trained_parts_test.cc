// An optimiser of less than all parameters: of those that are not frozen, and of adapters.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <thread>

#include "learner/host_optimizer.h"
#include "tests/unit/learner/leaf_support.h"

namespace thresher::learner {
namespace {

using namespace std::chrono_literals;
using model::PackedModel;

constexpr std::size_t kLeaves = 8;
constexpr double kRate = 0.01;

std::vector<std::uint32_t> Bits(std::span<const float> values) {
  std::vector<std::uint32_t> bits;
  for (float v : values) bits.push_back(std::bit_cast<std::uint32_t>(v));
  return bits;
}

// A device, as far as an optimiser on the host sees it: it takes the gradients that nobody needs,
// too.
class Device final : public model::TrainingPass {
 public:
  explicit Device(const model::ModelConfig& config) : pass_(model::MakeCpuTrainingPass(config)) {}
  Status BeginLeaf(std::shared_ptr<const PackedModel> policy, std::span<float> gradient) override {
    return pass_->BeginLeaf(std::move(policy), gradient);
  }
  Result<std::vector<float>> ReferenceLogProbs(std::shared_ptr<const PackedModel> reference,
                                               const model::TrainRows& rows) override {
    return pass_->ReferenceLogProbs(std::move(reference), rows);
  }
  Result<model::LogProbResult> LogProbs(const model::TrainRows& rows, bool recompute) override {
    return pass_->LogProbs(rows, recompute);
  }
  Status Backward(std::span<const float> dlogprob, std::span<const float> dentropy) override {
    return pass_->Backward(dlogprob, dentropy);
  }
  Status EndLeaf() override { return pass_->EndLeaf(); }

 private:
  std::unique_ptr<model::TrainingPass> pass_;
};

class TrainedPartsTest : public ::testing::Test {
 protected:
  TrainedPartsTest() {
    const auto drew = PackedModel::Make(config_, weights_, config_.vocab, false);
    for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
      LeafWork& work = leaves_.emplace_back();
      for (std::uint32_t i = 0; i < 1 + leaf % 2; ++i) {
        work.sequences.push_back(PrepareSequence(
            SampleTrajectory(*drew, 10 * leaf + i, 3 + static_cast<int>(leaf), 9, 1.0f, 0), 1));
      }
      spec_.loss_tokens += LossTokens(work);
      spec_.sequences += work.sequences.size();
    }
    spec_.kind = ObjectiveSpec::Kind::kSupervised;
  }

  OptimizerOptions Options(const std::vector<std::string>& overrides) const {
    OptimizerOptions options;
    options.model = config_;
    options.valid_vocab = config_.vocab;
    const Config config = ParseConfig("", "test", overrides);
    options.adamw = config.optimizer;
    options.trained = model::Trained::Of(config, config_).value();
    options.seed = 5;
    return options;
  }

  // A rank of an optimiser.
  struct Rank {
    WorkerPool workers;
    HostOptimizer optimizer;
    Rank(const OptimizerOptions& options, int threads,
         std::unique_ptr<model::TrainingPass> device = nullptr)
        : workers(WorkerPoolOptions{.threads = threads, .spin = {}}),
          optimizer(options, workers, std::move(device)) {}
  };
  std::unique_ptr<Rank> New(const OptimizerOptions& options, int threads = 2,
                            std::unique_ptr<model::TrainingPass> device = nullptr) const {
    auto rank = std::make_unique<Rank>(options, threads, std::move(device));
    EXPECT_TRUE(
        rank->optimizer.Restore(weights_, AdamW::Fresh(rank->optimizer.TrainedCount())).ok());
    if (options.trained.lora) {
      EXPECT_TRUE(rank->optimizer.Adapt({}).ok());
    }
    return rank;
  }

  // One step on the leaves of a rank; the loss before it, and the norm.
  struct Outcome {
    double loss = 0, norm = 0;
  };
  Outcome Step(HostOptimizer& optimizer, comm::Communicator& comm) const {
    const std::size_t each = kLeaves / comm.size();
    LeafStats stats;
    EXPECT_TRUE(optimizer
                    .Compute(nullptr, std::span(leaves_).subspan(comm.rank().value * each, each),
                             spec_, {}, stats)
                    .ok());
    EXPECT_TRUE(optimizer.AddRanks(comm).ok());
    const double norm = optimizer.Norm().value();
    EXPECT_TRUE(optimizer.Step(kRate, 1.0).ok());
    return {stats.loss, norm};
  }
  Outcome Step(HostOptimizer& optimizer) const { return Step(optimizer, *comm::MakeSingle()); }

  std::vector<float> WeightsOf(HostOptimizer& optimizer) const {
    std::vector<float> room;
    const auto weights = optimizer.Weights(room).value();
    return {weights.begin(), weights.end()};
  }
  // The sum over all leaves with regard to all weights.
  std::vector<float> WholeGradient(std::span<const float> weights) const {
    WorkerPool workers(WorkerPoolOptions{.threads = 1, .spin = {}});
    BatchGradient batch(config_, config_.vocab, workers);
    LeafStats stats;
    return batch.Compute(weights, nullptr, leaves_, spec_, {}, stats).value();
  }

  // Everything after `steps` on `ranks`.
  TrainState Trained(const OptimizerOptions& options, std::uint32_t ranks, int threads,
                     int steps) const {
    auto group = comm::MakeLocalGroup(ranks, 10s);
    std::vector<TrainState> states(ranks);
    std::vector<std::thread> threads_of;
    for (std::uint32_t r = 0; r < ranks; ++r) {
      threads_of.emplace_back([&, r] {
        auto rank = New(options, threads);
        for (int i = 0; i < steps; ++i) Step(rank->optimizer, *group[r]);
        EXPECT_TRUE(rank->optimizer.Copy(states[r]).ok());
      });
    }
    for (std::thread& thread : threads_of) thread.join();
    for (const TrainState& state : states) {
      EXPECT_EQ(Bits(state.weights), Bits(states[0].weights));
    }
    return states[0];
  }

  void ExpectSame(const TrainState& a, const TrainState& b) const {
    EXPECT_EQ(Bits(a.weights), Bits(b.weights));
    EXPECT_EQ(Bits(a.adapters.weights), Bits(b.adapters.weights));
    EXPECT_EQ(Bits(a.adapters.base), Bits(b.adapters.base));
    EXPECT_EQ(Bits(a.optimizer.first_moment), Bits(b.optimizer.first_moment));
    EXPECT_EQ(Bits(a.optimizer.second_moment), Bits(b.optimizer.second_moment));
    EXPECT_EQ(a.optimizer.steps, b.optimizer.steps);
  }

  const model::ModelConfig config_ = model::SmallConfig("qwen2", true);
  const std::vector<float> weights_ = model::LivelyWeights(config_, 3);
  std::vector<LeafWork> leaves_;
  ObjectiveSpec spec_;
};

TEST_F(TrainedPartsTest, FrozenOnesKeepTheirBitsAndTheOthersMoveAsIfNoneWas) {
  auto whole = New(Options({}));
  Step(whole->optimizer);
  const std::vector<float> moved = WeightsOf(whole->optimizer);
  for (const std::string& freeze :
       {std::string("model.embed_tokens.*"), std::string("model.layers.0.*"),
        std::string("*_proj.weight"), std::string("model.norm.weight, *.q_proj.*, *.up_proj.*"),
        std::string("model.embed*, model.layers.0.*, model.layers.1.self_attn.*")}) {
    const OptimizerOptions options = Options({"learner.freeze=\"" + freeze + "\""});
    auto rank = New(options);
    Step(rank->optimizer);
    const std::vector<float> first = WeightsOf(rank->optimizer);
    Step(rank->optimizer);
    Step(rank->optimizer);
    const std::vector<float> last = WeightsOf(rank->optimizer);
    std::size_t ordinal = 0, trained = 0;
    for (const model::ParameterInfo& info : model::ParameterList(config_)) {
      const bool frozen = options.trained.frozen[ordinal++];
      const auto of = [&](const std::vector<float>& all) {
        return Bits(std::span(all).subspan(info.offset, info.count));
      };
      EXPECT_EQ(of(first), of(frozen ? weights_ : moved)) << freeze << ": " << info.name;
      if (frozen) {
        EXPECT_EQ(of(last), of(weights_)) << freeze << ": " << info.name;
      }
      if (!frozen) trained += info.count;
    }
    EXPECT_EQ(rank->optimizer.TrainedCount(), trained);
    TrainState state;
    ASSERT_TRUE(rank->optimizer.Copy(state).ok());
    EXPECT_EQ(state.optimizer.first_moment.size(), trained);
  }
}

TEST_F(TrainedPartsTest, FrozenOnesTakeNoPartInTheNorm) {
  const OptimizerOptions options = Options({"learner.freeze=model.layers.1.*"});
  const std::vector<float> gradient = WholeGradient(weights_);
  std::vector<float> own;
  for (const model::ParameterInfo& info : options.trained.List(config_)) {
    const auto part = std::span(gradient).subspan(info.offset, info.count);
    own.insert(own.end(), part.begin(), part.end());
  }
  const double norm = Step(New(options)->optimizer).norm;
  EXPECT_EQ(norm, BlockedNorm(own));
  EXPECT_NE(norm, BlockedNorm(std::span(gradient).first(weights_.size())));
}

TEST_F(TrainedPartsTest, AnyNumberOfRanksAndThreadsGivesTheSameBits) {
  for (const std::vector<std::string>& overrides :
       {std::vector<std::string>{"lora.rank=4", "lora.phase=all"},
        {"lora.rank=3", "lora.phase=all", "lora.targets=q_proj,v_proj",
         "learner.freeze=model.layers.0.*"},
        {"learner.freeze=model.embed_tokens.*, model.layers.?.self_attn.k_proj.*"}}) {
    const TrainState one = Trained(Options(overrides), 1, 1, 3);
    for (const std::uint32_t ranks : {1u, 2u, 4u}) {
      ExpectSame(Trained(Options(overrides), ranks, 2, 3), one);
    }
  }
}

TEST_F(TrainedPartsTest, LeavesOfADeviceGiveTheSameBits) {
  for (const std::vector<std::string>& overrides :
       {std::vector<std::string>{"lora.rank=4", "lora.phase=all"},
        {"learner.freeze=model.layers.0.*"}}) {
    TrainState on_device, on_workers;
    auto rank = New(Options(overrides), 2, std::make_unique<Device>(config_));
    for (int i = 0; i < 2; ++i) Step(rank->optimizer);
    ASSERT_TRUE(rank->optimizer.Copy(on_device).ok());
    rank = New(Options(overrides));
    for (int i = 0; i < 2; ++i) Step(rank->optimizer);
    ASSERT_TRUE(rank->optimizer.Copy(on_workers).ok());
    ExpectSame(on_device, on_workers);
  }
}

TEST_F(TrainedPartsTest, AdaptersBeginAtTheBaseAndWhatIsPublishedIsMerged) {
  const OptimizerOptions options = Options({"lora.rank=4", "lora.phase=all"});
  const model::Lora& lora = *options.trained.lora;
  auto rank = New(options);
  EXPECT_EQ(Bits(WeightsOf(rank->optimizer)), Bits(weights_));
  for (int i = 0; i < 3; ++i) Step(rank->optimizer);
  TrainState state;
  ASSERT_TRUE(rank->optimizer.Copy(state).ok());
  EXPECT_EQ(Bits(state.adapters.base), Bits(lora.BaseOf(weights_)));
  std::vector<float> merged = weights_;
  for (std::size_t i = 0; i < lora.targets().size(); ++i) {
    lora.Merge(i, state.adapters.base, state.adapters.weights, merged);
  }
  EXPECT_EQ(Bits(state.weights), Bits(merged));
  EXPECT_NE(Bits(state.weights), Bits(weights_));
  const auto published = rank->optimizer.Published().value();
  EXPECT_EQ(HashBytes128(published), HashBytes128(std::as_bytes(std::span(merged))));
}

// One step in plain words: the whole gradient, projected, moves A and B by AdamW.
TEST_F(TrainedPartsTest, AStepIsAdamWOfTheProjectedGradient) {
  const OptimizerOptions options = Options({"lora.rank=4", "lora.phase=all"});
  const model::Lora& lora = *options.trained.lora;
  auto rank = New(options);
  Step(rank->optimizer);  // B is zero before it, and with it dA
  TrainState before, after;
  ASSERT_TRUE(rank->optimizer.Copy(before).ok());
  const double norm = Step(rank->optimizer).norm;
  ASSERT_TRUE(rank->optimizer.Copy(after).ok());

  std::vector<float> gradient(lora.count());
  lora.Project(before.adapters.weights, WholeGradient(before.weights), gradient);
  // Projected leaf by leaf, and then added: not the same bits.
  EXPECT_NEAR(norm / BlockedNorm(gradient), 1, 1e-5);
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    const double g = (after.optimizer.first_moment[i] -
                      options.adamw.beta1 * double(before.optimizer.first_moment[i])) /
                     (1 - options.adamw.beta1);
    ASSERT_NEAR(g, gradient[i], 1e-4 * (std::abs(gradient[i]) + norm / 100)) << i;
  }
  AdamW adamw(options.adamw, lora.parameters());
  adamw.Restore(before.optimizer);
  std::vector<float> weights = before.adapters.weights;
  adamw.Step(weights, gradient, kRate, 1.0);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    ASSERT_NEAR(weights[i], after.adapters.weights[i], 0.02 * kRate) << i;
  }
}

// The loss along its own gradient, A and B of every target apart.
TEST_F(TrainedPartsTest, TheGradientOfAdaptersIsTheSlopeOfTheLoss) {
  const OptimizerOptions options = Options({"lora.rank=3", "lora.phase=all"});
  const model::Lora& lora = *options.trained.lora;
  std::vector<float> adapters = lora.Initial(5);
  RandomSequence random(8, TrajectoryId{}, RandomPurpose::kBootstrap);
  for (float& v : adapters) v += static_cast<float>(0.1 * (random.NextUniform() - 0.5));
  const std::vector<float> base = lora.BaseOf(weights_);
  const auto merged = [&](const std::vector<float>& at) {
    std::vector<float> out = weights_;
    for (std::size_t i = 0; i < lora.targets().size(); ++i) lora.Merge(i, base, at, out);
    return out;
  };
  const auto loss = [&](const std::vector<float>& at) {
    auto rank = std::make_unique<Rank>(Options({}), 1);
    EXPECT_TRUE(rank->optimizer.Restore(merged(at), AdamW::Fresh(weights_.size())).ok());
    return Step(rank->optimizer).loss;
  };
  std::vector<float> gradient(lora.count());
  lora.Project(adapters, WholeGradient(merged(adapters)), gradient);
  for (const model::ParameterInfo& info : lora.parameters()) {
    double square = 0;
    for (std::size_t i = info.offset; i < info.offset + info.count; ++i) {
      square += double(gradient[i]) * gradient[i];
    }
    const double length = std::sqrt(square);
    ASSERT_GT(length, 1e-4) << info.name;
    // As in leaf_computer_test: a step that the loss shows above its fp32 noise.
    const double step = std::min(2e-3 / length, 2e-2);
    const auto moved = [&](double sign) {
      std::vector<float> at = adapters;
      for (std::size_t i = info.offset; i < info.offset + info.count; ++i) {
        at[i] += static_cast<float>(sign * step * gradient[i] / length);
      }
      return loss(at);
    };
    EXPECT_NEAR((moved(1) - moved(-1)) / (2 * step), length, 0.02 * length + 1e-4) << info.name;
  }
}

TEST_F(TrainedPartsTest, AdaptersLearn) {
  auto rank = New(Options({"lora.rank=4", "lora.phase=all"}));
  const double first = Step(rank->optimizer).loss;
  for (int i = 0; i < 30; ++i) Step(rank->optimizer);
  EXPECT_LT(Step(rank->optimizer).loss, 0.8 * first);
}

TEST_F(TrainedPartsTest, ARestoredOneGoesOnByTheSameBits) {
  for (const std::vector<std::string>& overrides :
       {std::vector<std::string>{"lora.rank=4", "lora.phase=all"},
        {"learner.freeze=model.layers.0.*"}}) {
    const OptimizerOptions options = Options(overrides);
    auto straight = New(options);
    for (int i = 0; i < 2; ++i) Step(straight->optimizer);
    TrainState saved;
    ASSERT_TRUE(straight->optimizer.Lend(saved).ok());
    TrainState copy = saved;
    straight->optimizer.TakeBack(saved);
    EXPECT_TRUE(saved.weights.empty() && saved.adapters.empty());

    auto resumed = std::make_unique<Rank>(options, 1);
    if (options.trained.lora) {
      ASSERT_TRUE(resumed->optimizer.Adapt(std::move(copy.adapters)).ok());
    }
    ASSERT_TRUE(resumed->optimizer.Restore(copy.weights, copy.optimizer).ok());
    TrainState a, b;
    for (Rank* rank : {straight.get(), resumed.get()}) {
      for (int i = 0; i < 2; ++i) Step(rank->optimizer);
    }
    ASSERT_TRUE(straight->optimizer.Copy(a).ok());
    ASSERT_TRUE(resumed->optimizer.Copy(b).ok());
    ExpectSame(a, b);
  }
}

TEST_F(TrainedPartsTest, AdaptersThatBeginLaterStartOnTheWeightsOfThen) {
  const OptimizerOptions options = Options({"lora.rank=4", "lora.phase=all"});
  auto rank = std::make_unique<Rank>(options, 2);
  ASSERT_TRUE(rank->optimizer.Restore(weights_, AdamW::Fresh(weights_.size())).ok());
  EXPECT_EQ(rank->optimizer.TrainedCount(), weights_.size());
  Step(rank->optimizer);
  const std::vector<float> then = WeightsOf(rank->optimizer);
  EXPECT_NE(Bits(then), Bits(weights_));
  ASSERT_TRUE(rank->optimizer.Adapt({}).ok());
  EXPECT_EQ(Bits(WeightsOf(rank->optimizer)), Bits(then));
  EXPECT_EQ(rank->optimizer.TrainedCount(), options.trained.lora->count());
  Step(rank->optimizer);
  TrainState state;
  ASSERT_TRUE(rank->optimizer.Copy(state).ok());
  EXPECT_EQ(Bits(state.adapters.base), Bits(options.trained.lora->BaseOf(then)));
  EXPECT_EQ(state.optimizer.steps, 1u);
}

}  // namespace
}  // namespace thresher::learner
