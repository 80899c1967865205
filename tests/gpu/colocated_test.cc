// An engine and a learner that take turns on one device.
#include <gtest/gtest.h>

#include "common/gpu/device.h"
#include "common/gpu/shared_device.h"
#include "common/model/cuda/cuda_runner.h"
#include "common/model/cuda/cuda_training_pass.h"
#include "tests/unit/actor/engine_testing.h"
#include "tests/unit/kernels/kernel_testing.h"

#if defined(THRESHER_CUDA_SIM)
#include "tests/support/cuda_sim/cuda_sim.h"
#endif

namespace thresher::actor {
namespace {

using std::chrono::milliseconds;

TEST(AwaitMemory, AsksAgainUntilThereIsRoom) {
  int asked = 0;
  EXPECT_TRUE(gpu::AwaitMemory(milliseconds(60000), [&] {
                return ++asked < 4 ? ResourceExhausted("full") : Status::Ok();
              }).ok());
  EXPECT_EQ(asked, 4);
}

TEST(AwaitMemory, GivesUpAtItsDeadlineAndSaysWhatItWaitedFor) {
  const Status late = gpu::AwaitMemory(milliseconds(5), [] { return ResourceExhausted("full"); });
  EXPECT_EQ(late.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(late.message().find("full; asked for 5 ms"), std::string::npos);
  int asked = 0;
  const Status lost = gpu::AwaitMemory(milliseconds(60000), [&] {
    ++asked;
    return Aborted("lost");
  });
  EXPECT_EQ(lost.code(), StatusCode::kAborted);
  EXPECT_EQ(asked, 1);
}

class Colocated : public EngineTest {
 protected:
  void SetUp() override {
    const auto device = gpu::OpenDevice(0);
    if (!device.ok()) GTEST_SKIP() << device.status().message();
  }

  Engine NewDeviceEngine(milliseconds patience) const {
    model::CudaRunnerOptions runner;
    runner.slots = 4, runner.max_rows = 36, runner.pages = 80;
    runner.patience = patience;
    auto made = model::MakeCudaRunner(shape_, runner);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    EngineOptions options{4, 32, 80};
    return Engine(shape_, options, std::move(made).value());
  }

  Results Generate(Engine& engine) const {
    Results results;
    for (const GenerationRequest& request : {Request(1, 20, 10), Request(2, 40, 12)}) {
      EXPECT_TRUE(engine.Submit(request).ok());
    }
    Drain(engine, results);
    return results;
  }

  std::vector<float> Gradient(model::TrainingPass& pass) const {
    model::TrainRows rows;
    const auto tokens = model::RandomTokens(9, 31, shape_.vocab);
    for (int i = 0; i < 30; ++i) {
      rows.token.push_back(tokens[static_cast<std::size_t>(i)]);
      rows.target.push_back(tokens[static_cast<std::size_t>(i) + 1]);
      rows.position.push_back(i);
      rows.temperature.push_back(1.0f);
    }
    std::vector<float> gradient(model::GradientSize(shape_), 0.0f);
    const auto policy =
        model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 3), shape_.vocab, true);
    EXPECT_TRUE(pass.BeginLeaf(policy, gradient).ok());
    EXPECT_TRUE(pass.LogProbs(rows, false).ok());
    EXPECT_TRUE(pass.Backward(std::vector<float>(30, 0.5f), {}).ok());
    EXPECT_TRUE(pass.EndLeaf().ok());
    return gradient;
  }
};

TEST_F(Colocated, EachGivesItsMemoryToTheOtherAndNoBitChanges) {
  model::CudaTrainingOptions learner;
  learner.patience = milliseconds(2000);
  auto pass = model::MakeCudaTrainingPass(shape_, learner);
  ASSERT_TRUE(pass.ok());
  const std::vector<float> expected = Gradient(*model::MakeCpuTrainingPass(shape_));
  Engine host = NewEngine({4, 32, 80});
  const Results tokens = Generate(host);
  Engine engine = NewDeviceEngine(milliseconds(2000));
  ASSERT_TRUE(engine.SetWeights(weights_, kVersion).ok());
  for (int turn = 0; turn < 3; ++turn) {
    for (const auto& [id, result] : Generate(engine)) ExpectSame(tokens.at(id), result);
#if defined(THRESHER_CUDA_SIM)
    const std::size_t generating = cuda_sim::UsedBytes();
#endif
    ASSERT_TRUE(engine.ReleaseMemory().ok());
    EXPECT_EQ(Gradient(**pass), expected);
#if defined(THRESHER_CUDA_SIM)
    // What each takes alone is more than what both leave to the other.
    const std::size_t training = cuda_sim::UsedBytes();
    (*pass)->Release();
    EXPECT_LT(4 * cuda_sim::UsedBytes(), std::min(generating, training));
#else
    (*pass)->Release();
#endif
  }
}

#if defined(THRESHER_CUDA_SIM)
TEST_F(Colocated, WhoFindsTheDeviceFullWaitsAndThenSaysSo) {
  model::CudaTrainingOptions learner;
  learner.patience = milliseconds(20);
  auto pass = model::MakeCudaTrainingPass(shape_, learner);
  ASSERT_TRUE(pass.ok());
  Engine engine = NewDeviceEngine(milliseconds(20));
  ASSERT_TRUE(engine.SetWeights(weights_, kVersion).ok());
  const Results first = Generate(engine);
  cuda_sim::LimitMemory(cuda_sim::UsedBytes() + 1000);
  std::vector<float> gradient(model::GradientSize(shape_), 0.0f);
  const auto policy =
      model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 3), shape_.vocab, true);
  const Status full = (*pass)->BeginLeaf(policy, gradient);
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(full.message().find("shares the device"), std::string::npos);
  cuda_sim::LimitMemory(0);
}
#endif

}  // namespace
}  // namespace thresher::actor
