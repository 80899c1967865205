#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/gpu/device.h"
#include "common/model/cuda/cuda_training_pass.h"
#include "learner/optimizer.h"
#include "tests/unit/learner/leaf_support.h"

// Whole steps of a learner, by an optimiser on the host and by one on a device.
namespace thresher::learner::testing {

// Everything a step leaves that somebody sees.
struct Outcome {
  double norm = 0, loss = 0;
  std::string published;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

class OptimizerSteps : public ::testing::Test {
 protected:
  static constexpr std::size_t kLeaves = 8;   // of a batch
  static constexpr std::size_t kOfRanks = 4;  // of them, where ranks divide them

  OptimizerSteps() : workers_(WorkerPoolOptions{.threads = 2, .spin = {}}) {}

  void SetUp() override {
    const auto device = gpu::OpenDevice(0);
    if (!device.ok()) GTEST_SKIP() << device.status().message();
    Use(model::SmallConfig("qwen2", true));
  }

  void Use(const model::ModelConfig& config) {
    options_.model = config;
    options_.adamw = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};
    options_.valid_vocab = config.vocab;
    weights_ = model::LivelyWeights(config, 3);
    const auto policy = model::PackedModel::Make(config, weights_, options_.valid_vocab, true);
    reference_ = model::PackedModel::Make(config, model::LivelyWeights(config, 4),
                                          options_.valid_vocab, false);
    leaves_.clear();
    spec_ = {};
    spec_.kind = ObjectiveSpec::Kind::kPolicyGradient;
    spec_.kl = 0.1;
    for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
      LeafWork work;
      for (std::uint32_t i = 0; i < 2; ++i) {
        work.sequences.push_back(PrepareSequence(
            SampleTrajectory(*policy, 10 * leaf + i, 5, 6 + static_cast<int>(leaf), 1.0f, 0),
            i == 0 ? 1.0f : -0.5f));
      }
      spec_.loss_tokens += LossTokens(work);
      spec_.sequences += work.sequences.size();
      leaves_.push_back(std::move(work));
    }
  }

  std::unique_ptr<Optimizer> OnHost() { return MakeOptimizer(options_, workers_, {}); }
  // With the leaves on the device alone, and with everything there.
  std::unique_ptr<Optimizer> Offloaded() {
    model::TrainingDevice device;
    device.pass = model::MakeCudaTrainingPass(options_.model, {}).value();
    return MakeOptimizer(options_, workers_, std::move(device));
  }
  std::unique_ptr<Optimizer> OnDevice(WorkerPool* workers = nullptr) {
    model::CudaTrainingOptions cuda;
    cuda.parameters =
        model::DeviceParameters::Make(options_.model, {0, options_.valid_vocab, {}}).value();
    model::TrainingDevice device;
    device.parameters = cuda.parameters;
    device.pass = model::MakeCudaTrainingPass(options_.model, cuda).value();
    return MakeOptimizer(options_, workers != nullptr ? *workers : workers_, std::move(device));
  }

  Status Start(Optimizer& optimizer) const {
    return optimizer.Restore(weights_, AdamW::Fresh(weights_.size()));
  }

  // A step with leaves [begin, end) of the batch; clipped, as the trainer does it.
  Outcome Step(Optimizer& optimizer, comm::Communicator& comm, std::size_t begin,
               std::size_t end) const {
    LeafOptions options;
    options.micro_batch_tokens = 14;  // several micro-batches a leaf
    options.recompute = begin % 2 == 1;
    LeafStats stats;
    const auto leaves = std::span(leaves_).subspan(begin, end - begin);
    Status status = optimizer.Compute(reference_, leaves, spec_, options, stats);
    EXPECT_TRUE(status.ok()) << status.ToString();
    status = optimizer.AddRanks(comm);
    EXPECT_TRUE(status.ok()) << status.ToString();
    Outcome outcome;
    outcome.loss = stats.loss;
    outcome.norm = optimizer.Norm().value();
    const double scale = outcome.norm > 0.5 ? 0.5 / outcome.norm : 1.0;
    status = std::isfinite(outcome.norm) ? optimizer.Step(0.02, scale) : optimizer.Skip();
    EXPECT_TRUE(status.ok()) << status.ToString();
    outcome.published = Published(optimizer);
    return outcome;
  }
  Outcome Step(Optimizer& optimizer, std::size_t begin, std::size_t end) const {
    const auto single = comm::MakeSingle();
    return Step(optimizer, *single, begin, end);
  }

  static std::string Published(Optimizer& optimizer) {
    const auto bytes = optimizer.Published();
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
  }

  static TrainState StateOf(Optimizer& optimizer) {
    TrainState lent;
    EXPECT_TRUE(optimizer.Lend(lent).ok());
    TrainState copy = lent;
    optimizer.TakeBack(lent);
    EXPECT_TRUE(lent.weights.empty() && lent.optimizer.first_moment.empty());
    return copy;
  }
  static void ExpectSameState(Optimizer& a, Optimizer& b) {
    const TrainState x = StateOf(a), y = StateOf(b);
    EXPECT_TRUE(SameBits(x.weights, y.weights));
    EXPECT_TRUE(SameBits(x.optimizer.first_moment, y.optimizer.first_moment));
    EXPECT_TRUE(SameBits(x.optimizer.second_moment, y.optimizer.second_moment));
    EXPECT_EQ(x.optimizer.steps, y.optimizer.steps);
    std::vector<float> room, other;
    EXPECT_TRUE(std::ranges::equal(*a.Weights(room), *b.Weights(other)));
  }

  WorkerPool workers_;
  OptimizerOptions options_;
  std::vector<float> weights_;
  std::shared_ptr<const model::PackedModel> reference_;
  std::vector<LeafWork> leaves_;
  ObjectiveSpec spec_;
};

}  // namespace thresher::learner::testing
