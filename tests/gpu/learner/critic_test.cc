// A critic whose leaves a device computes ends with the bits of one on the CPU.
#include "learner/critic.h"

#include "tests/gpu/learner/optimizer_testing.h"

namespace thresher::learner::testing {
namespace {

class CriticSteps : public OptimizerSteps {
 protected:
  struct Trained {
    std::string policy;
    std::vector<float> critic;
    std::map<std::string, double> metrics;
    double value_loss = 0;
    friend bool operator==(const Trained&, const Trained&) = default;
  };

  // Two batches of one optimiser step each.
  Trained Train(Optimizer& policy, std::unique_ptr<model::TrainingPass> device, const char* kind,
                const char* advantage) {
    CriticOptions options;
    options.objective.critic = kind;
    options.objective.advantage = advantage;
    options.objective.gamma = options.objective.gae_lambda = 0.9;
    options.objective.rho_bar = options.objective.c_bar = 1;
    options.objective.value_clip = 0.2;
    options.objective.value_coefficient = 0.6;
    options.objective.critic_learning_rate = 0.01;
    options.kind = *CriticKindOf(options.objective);
    options.model = options_.model;
    options.adamw = options_.adamw;
    options.valid_vocab = options_.valid_vocab;
    options.leaf.micro_batch_tokens = 14;
    Critic critic(options, workers_, std::move(device));
    EXPECT_TRUE(Start(policy).ok());
    critic.Start(weights_);
    const auto single = comm::MakeSingle();
    Trained out;
    for (std::size_t step = 0; step < 2; ++step) {
      StepBatch batch;
      Minibatch& part = batch.minibatches.emplace_back();
      part.leaves = {leaves_[step]};
      double reward = 1;
      for (LeafWork& leaf : part.leaves) {
        for (TrainSequence& s : leaf.sequences) s.reward = reward = -0.7 * reward;
      }
      std::vector<float> room;
      Status status = critic.Evaluate(*single, policy.Weights(room).value(), batch);
      EXPECT_TRUE(status.ok()) << status.ToString();
      out.metrics = batch.metrics;
      LeafOptions leaf = options.leaf;
      leaf.value = critic.Begin(part.leaves.size());
      LeafStats stats;
      status = policy.Compute(reference_, part.leaves, spec_, leaf, stats);
      EXPECT_TRUE(status.ok()) << status.ToString();
      status = critic.Compute(part.leaves, spec_, stats);
      EXPECT_TRUE(status.ok()) << status.ToString();
      EXPECT_GT(critic.Norm(), 0);
      EXPECT_TRUE(policy.Norm().ok() && policy.Step(0.01, 1).ok());
      critic.Step(1);
      out.value_loss += stats.value_loss;
    }
    out.policy = Published(policy);
    out.critic.assign(critic.weights().begin(), critic.weights().end());
    return out;
  }

  std::unique_ptr<model::TrainingPass> Pass() const {
    return model::MakeCudaTrainingPass(options_.model, {}).value();
  }
};

TEST_F(CriticSteps, HaveTheSameBitsWhereverTheyAreComputed) {
  for (const auto& [kind, advantage, everything] : {std::tuple{"own", "gae", true},
                                                    {"own", "vtrace", true},
                                                    {"shared", "gae", false},
                                                    {"shared", "vtrace", true}}) {
    SCOPED_TRACE(std::string(kind) + " " + advantage);
    const auto host = OnHost(), device = everything ? OnDevice() : Offloaded();
    const Trained expected = Train(*host, nullptr, kind, advantage);
    EXPECT_GT(expected.value_loss, 0);
    EXPECT_TRUE(Train(*device, Pass(), kind, advantage) == expected);
  }
}

}  // namespace
}  // namespace thresher::learner::testing
