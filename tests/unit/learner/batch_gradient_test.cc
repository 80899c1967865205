// The gradient of a batch, by workers or by a device; what a device that fails does.
#include "learner/batch_gradient.h"

#include <gtest/gtest.h>

#include <cstring>
#include <utility>

#include "tests/unit/learner/leaf_support.h"

namespace thresher::learner {
namespace {

// A device whose n-th call of a kind fails. Holds its caller to the order of calls, as a real one
// does.
class FailingPass final : public model::TrainingPass {
 public:
  struct Calls {
    int begin = 0, logprobs = 0, backward = 0, end = 0;
  };
  FailingPass(const model::ModelConfig& config, Calls failing, Calls& calls)
      : failing_(failing), calls_(calls), pass_(model::MakeCpuTrainingPass(config)) {}

  Status BeginLeaf(std::shared_ptr<const model::PackedModel> policy,
                   std::span<float> gradient) override {
    THRESHER_RETURN_IF_ERROR(Count(calls_.begin, failing_.begin));
    return pass_->BeginLeaf(std::move(policy), gradient);
  }
  Result<std::vector<float>> ReferenceLogProbs(std::shared_ptr<const model::PackedModel> reference,
                                               const model::TrainRows& rows) override {
    return pass_->ReferenceLogProbs(std::move(reference), rows);
  }
  Result<model::LogProbResult> LogProbs(const model::TrainRows& rows, bool recompute) override {
    THRESHER_RETURN_IF_ERROR(Count(calls_.logprobs, failing_.logprobs));
    return pass_->LogProbs(rows, recompute);
  }
  Status Backward(std::span<const float> dlogprob, std::span<const float> dentropy) override {
    THRESHER_RETURN_IF_ERROR(Count(calls_.backward, failing_.backward));
    return pass_->Backward(dlogprob, dentropy);
  }
  Status EndLeaf() override {
    THRESHER_RETURN_IF_ERROR(Count(calls_.end, failing_.end));
    return pass_->EndLeaf();
  }

 private:
  static Status Count(int& calls, int failing) {
    return ++calls == failing ? ResourceExhausted("planted: no memory") : Status::Ok();
  }

  const Calls failing_;  // from 1; 0: none
  Calls& calls_;
  std::unique_ptr<model::TrainingPass> pass_;
};

class BatchGradientTest : public ::testing::Test {
 protected:
  BatchGradientTest()
      : config_(model::SmallConfig("qwen2", true)),
        weights_(model::LivelyWeights(config_, 3)),
        workers_(WorkerPoolOptions{.threads = 2, .spin = {}}) {
    const auto policy = model::PackedModel::Make(config_, weights_, config_.vocab, true);
    for (std::uint32_t leaf = 0; leaf < 4; ++leaf) {
      LeafWork work;
      for (std::uint32_t i = 0; i < 2; ++i) {
        work.sequences.push_back(PrepareSequence(
            SampleTrajectory(*policy, 10 * leaf + i, 5, 9, 1.0f, 0), i == 0 ? 1.0f : -0.5f));
      }
      spec_.loss_tokens += LossTokens(work);
      spec_.sequences += work.sequences.size();
      leaves_.push_back(std::move(work));
    }
    spec_.kind = ObjectiveSpec::Kind::kPolicyGradient;
  }

  Result<std::vector<float>> Compute(std::unique_ptr<model::TrainingPass> device,
                                     LeafStats* stats = nullptr) {
    BatchGradient batch(config_, config_.vocab, workers_, std::move(device));
    LeafStats unread;
    LeafOptions options;
    options.audit = true;
    return batch.Compute(weights_, nullptr, leaves_, spec_, options,
                         stats != nullptr ? *stats : unread);
  }

  model::ModelConfig config_;
  std::vector<float> weights_;
  WorkerPool workers_;
  std::vector<LeafWork> leaves_;
  ObjectiveSpec spec_;
};

TEST_F(BatchGradientTest, IsTheSameByWorkersAndByADevice) {
  LeafStats by_workers, by_device;
  const auto a = Compute(nullptr, &by_workers);
  const auto b = Compute(model::MakeCpuTrainingPass(config_), &by_device);
  ASSERT_TRUE(a.ok() && b.ok());
  ASSERT_EQ(a->size(), b->size());
  EXPECT_EQ(std::memcmp(a->data(), b->data(), a->size() * sizeof(float)), 0);
  EXPECT_EQ(by_workers.loss, by_device.loss);
  EXPECT_EQ(by_device.loss_tokens, spec_.loss_tokens);
  EXPECT_EQ(by_device.mismatched_tokens, 0u);
}

TEST_F(BatchGradientTest, AFailureOfTheDeviceIsReturnedAndNoLeafIsBegunAfterIt) {
  for (int call = 1; call <= 4; ++call) {
    for (const FailingPass::Calls& failing :
         {FailingPass::Calls{call, 0, 0, 0}, {0, call, 0, 0}, {0, 0, call, 0}, {0, 0, 0, call}}) {
      FailingPass::Calls calls;
      const auto gradient = Compute(std::make_unique<FailingPass>(config_, failing, calls));
      EXPECT_EQ(gradient.status().ToString(), ResourceExhausted("planted: no memory").ToString());
      EXPECT_EQ(calls.begin, call);  // leaves are one micro-batch each
    }
  }
}

}  // namespace
}  // namespace thresher::learner
