// The kernel set cuda-bf16-sm90-v1 in engine and learner: a sequence's bits depend on nothing
// beside it, and what the learner computes for it is what the engine recorded.
#include <gtest/gtest.h>

#include <cmath>

#include "actor/engine/engine.h"
#include "common/gpu/device.h"
#include "common/model/cuda/cuda_runner.h"
#include "common/model/cuda/cuda_training_pass.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cuda/gemm_bf16.h"
#include "tests/gpu/device_policy_testing.h"
#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::actor {
namespace {

using kernels::testing::SameBits;

class Bf16Model : public DevicePolicyTest {
 protected:
  Bf16Model() {
    shape_ = model::SmallConfig("qwen2", true);
    shape_.dtype = kernels::WeightType::kBf16;
    weights_ = Pack(3, false);
  }
  void SetUp() override {
    DevicePolicyTest::SetUp();
    if (IsSkipped()) return;
    if (gpu::OpenDevice(0)->major != 9) GTEST_SKIP() << "compute capability is not 9.0";
  }

  std::shared_ptr<const model::PackedModel> Pack(std::uint64_t seed, bool with_backward) const {
    return model::PackedModel::Make(shape_, model::LivelyWeights(shape_, seed), shape_.vocab,
                                    with_backward);
  }

  static model::CudaRunnerOptions RunnerOptions(bool graphs = true) {
    model::CudaRunnerOptions runner;
    runner.set = model::DeviceKernelSet::kBf16;
    runner.graphs = graphs;
    runner.self_test_batches = {1, 7};
    return runner;
  }

  Results Run(const EngineOptions& options, const std::vector<GenerationRequest>& requests,
              bool graphs = true) const {
    Engine engine = OnDevice(shape_, weights_, options, RunnerOptions(graphs));
    Results results;
    for (const GenerationRequest& request : requests) EXPECT_TRUE(engine.Submit(request).ok());
    Drain(engine, results);
    return results;
  }

  static std::unique_ptr<model::TrainingPass> NewPass(const model::ModelConfig& shape) {
    model::CudaTrainingOptions options;
    options.set = model::DeviceKernelSet::kBf16;
    options.self_test_batches = {1, 7};
    auto made = model::MakeCudaTrainingPass(shape, options);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    return std::move(made).value();
  }

  void ExpectOnePolicy(const std::vector<GenerationRequest>& requests);

  // The rows of a result's tokens.
  static model::TrainRows RowsOf(const GenerationResult& result, float temperature) {
    model::TrainRows rows;
    for (std::size_t i = 0; i + 1 < result.tokens.size(); ++i) {
      rows.token.push_back(result.tokens[i]);
      rows.target.push_back(result.tokens[i + 1]);
      rows.position.push_back(static_cast<std::int32_t>(i));
      rows.temperature.push_back(temperature);
    }
    return rows;
  }

  std::vector<GenerationRequest> Few() const {
    std::vector<GenerationRequest> requests = Mixed();
    requests.resize(5);
    for (auto& request : requests) {
      request.sampling.max_new_tokens = std::min(request.sampling.max_new_tokens, 12u);
    }
    return requests;
  }
};

TEST_F(Bf16Model, NamesOfTheSetAgree) {
  EXPECT_STREQ(model::DeviceKernelSetName(model::DeviceKernelSet::kBf16),
               kernels::cuda::kBf16KernelSet);
}

TEST_F(Bf16Model, ASequencesBitsDependOnNothingBesideIt) {
  const std::vector<GenerationRequest> requests = Few();
  const Results together = Run({5, 64, 60}, requests);
  ASSERT_EQ(together.size(), requests.size());
  const Results narrow = Run({3, 17, 24}, requests, false);
  for (const GenerationRequest& request : requests) {
    ExpectSame(together.at(request.id), narrow.at(request.id));
  }
  ExpectSame(together.at(requests[2].id), Run({1, 200, 0}, {requests[2]}).at(requests[2].id));
}

TEST_F(Bf16Model, NothingIsComputedForASequenceThatAStopTokenHasEnded) {
  for (bool graphs : {true, false}) {
    SCOPED_TRACE(graphs);
    ExpectNothingBehindAStop(RunnerOptions(graphs));
  }
}

#ifdef THRESHER_CUDA_SIM
TEST_F(Bf16Model, AStepHasAboutAsManyKernelsAsItsRecordingIsPlannedFor) {
  shape_.layers = 6;
  weights_ = Pack(3, false);
  ExpectAPlannedNumberOfKernels(shape_, OnDevice(shape_, weights_, {4, 64, 60}, RunnerOptions()));
}
#endif

TEST_F(Bf16Model, FiltersWorkOnTheSameLogits) {
  std::vector<GenerationRequest> requests = Few();
  requests.resize(2);
  const Results plain = Run({2, 64, 60}, requests);
  for (GenerationRequest& request : requests) request.sampling.top_k = 1;
  requests[1].top_logprobs = 3;
  const Results greedy = Run({2, 64, 60}, requests);
  for (const auto& [id, result] : greedy) {
    ASSERT_EQ(result.finish, FinishReason::kLength);
    EXPECT_EQ(result.kept_mass_logprobs[0], result.logprobs[0]);
  }
  EXPECT_EQ(greedy.at(requests[1].id).top_logprobs[0][0].token,
            greedy.at(requests[1].id).tokens[greedy.at(requests[1].id).prompt_tokens]);
}

// What the learner computes is what was recorded, for these requests.
void Bf16Model::ExpectOnePolicy(const std::vector<GenerationRequest>& requests) {
  const Results results = Run({5, 64, 60}, requests);
  const auto pass = NewPass(shape_);
  const auto policy = Pack(3, true);
  std::vector<float> gradient(model::GradientSize(shape_), 0.0f);
  ASSERT_TRUE(pass->BeginLeaf(policy, gradient).ok());
  for (const GenerationRequest& request : requests) {
    const GenerationResult& result = results.at(request.id);
    const float temperature = request.sampling.temperature;
    const auto got = pass->LogProbs(RowsOf(result, temperature), false);
    ASSERT_TRUE(got.ok()) << got.status().ToString();
    const std::vector<float> generated(
        got->logprob.begin() + static_cast<std::ptrdiff_t>(result.prompt_tokens) - 1,
        got->logprob.end());
    EXPECT_TRUE(SameBits(generated, result.logprobs)) << request.id.ToString();
    ASSERT_TRUE(pass->Backward(std::vector<float>(got->logprob.size(), 0.1f), {}).ok());
  }
  ASSERT_TRUE(pass->EndLeaf().ok());
}

TEST_F(Bf16Model, TheLearnersLogProbabilitiesAreTheRecordedOnes) { ExpectOnePolicy(Few()); }

// Heads as wide as a tile of the matrix unit's, and wider than attention on it serves: prompts in
// chunks, and decode steps on both sides of a split's end.
TEST_F(Bf16Model, TheyAreForHeadsOfOtherWidths) {
  for (int head_dim : {64, 136}) {
    SCOPED_TRACE(head_dim);
    shape_ = model::SmallConfig("qwen3", false);
    shape_.dtype = kernels::WeightType::kBf16;
    shape_.heads = 3, shape_.kv_heads = 1, shape_.head_dim = head_dim;
    weights_ = Pack(3, false);
    std::vector<GenerationRequest> requests = Few();
    requests.resize(2);
    requests[0].prompt = model::RandomTokens(8, 124, shape_.vocab);
    requests[0].sampling.max_new_tokens = 8;
    ExpectOnePolicy(requests);
  }
}

// The gradient in bf16 products points where that of fp32 does: each operand's rounding is within
// 2^-8 of it, and those of some ten products and attentions on the way turn a tensor by a few times
// that: by less than 2^-4.
TEST_F(Bf16Model, TheGradientIsThatOfFp32UpToTheRoundingOfItsOperands) {
  model::TrainRows rows;
  for (int length : {40, 70, 9}) {
    const auto tokens =
        model::RandomTokens(static_cast<std::uint64_t>(length), length + 1, shape_.vocab);
    for (int i = 0; i < length; ++i) {
      rows.token.push_back(tokens[static_cast<std::size_t>(i)]);
      rows.target.push_back(tokens[static_cast<std::size_t>(i) + 1]);
      rows.position.push_back(i);
      rows.temperature.push_back(1.0f);
    }
  }
  const auto policy = Pack(3, true);
  const auto dlogprob = kernels::testing::Random(static_cast<std::int64_t>(rows.size()), 5);
  const auto dentropy = kernels::testing::Random(static_cast<std::int64_t>(rows.size()), 6);
  std::vector<std::vector<float>> gradients;
  std::vector<std::unique_ptr<model::TrainingPass>> passes;
  passes.push_back(model::MakeCpuTrainingPass(shape_));
  passes.push_back(NewPass(shape_));
  passes.push_back(NewPass(shape_));
  for (std::size_t i = 0; i < passes.size(); ++i) {
    auto& gradient = gradients.emplace_back(model::GradientSize(shape_), 0.0f);
    ASSERT_TRUE(passes[i]->BeginLeaf(policy, gradient).ok());
    ASSERT_TRUE(passes[i]->LogProbs(rows, i == 2).ok());
    ASSERT_TRUE(passes[i]->Backward(dlogprob, dentropy).ok());
    ASSERT_TRUE(passes[i]->EndLeaf().ok());
    model::FoldTiedGradient(shape_, gradient);
  }
  EXPECT_TRUE(SameBits(gradients[1], gradients[2])) << "activations computed again";
  for (const model::ParameterInfo& info : model::ParameterList(shape_)) {
    if (info.name.find("k_proj.bias") != std::string::npos) continue;  // next to nothing
    double aa = 0, bb = 0, ab = 0;
    for (std::size_t i = info.offset; i < info.offset + info.count; ++i) {
      const double a = gradients[0][i], b = gradients[1][i];
      aa += a * a, bb += b * b, ab += a * b;
    }
    EXPECT_GT(ab / std::sqrt(aa * bb), 1 - 0x1p-9) << info.name;  // the cosine of 2^-4
    EXPECT_NEAR(std::sqrt(bb / aa), 1.0, 0.03) << info.name;
  }
}

TEST_F(Bf16Model, WeightsOfAnotherTypeAreRefused) {
  model::ModelConfig shape = shape_;
  shape.dtype = kernels::WeightType::kF32;
  model::CudaRunnerOptions runner;
  runner.set = model::DeviceKernelSet::kBf16;
  const auto made = model::MakeCudaRunner(shape, runner);
  ASSERT_EQ(made.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(made.status().message().find("bfloat16"), std::string::npos);
}

}  // namespace
}  // namespace thresher::actor
