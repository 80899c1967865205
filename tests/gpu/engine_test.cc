// The engine on a device: the same tokens, log-probabilities and records as on the CPU, with graphs
// and without, ahead of its tokens or not.
#include "actor/engine/engine.h"

#include <gtest/gtest.h>

#include "tests/gpu/device_policy_testing.h"
#include "tests/unit/model/small_model.h"
#ifdef THRESHER_CUDA_SIM
#include "tests/support/cuda_sim/cuda_sim.h"
#endif

namespace thresher::actor {
namespace {

class DeviceEngine : public DevicePolicyTest {
 protected:
  static Results Run(Engine engine, const std::vector<GenerationRequest>& requests) {
    Results results;
    for (const GenerationRequest& request : requests) {
      const Status status = engine.Submit(request);
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
    Drain(engine, results);
    return results;
  }

  static void ExpectSameResults(const Results& a, const Results& b) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [id, result] : a) ExpectSame(result, b.at(id));
  }
};

TEST_F(DeviceEngine, GivesTheBitsOfTheCpu) {
  const EngineOptions options{8, 64, 200};
  const Results host = RunAll(options, Mixed());
  for (bool graphs : {true, false}) {
    SCOPED_TRACE(graphs);
    ExpectSameResults(host, Run(OnDevice(options, graphs), Mixed()));
  }
}

TEST_F(DeviceEngine, IsPreemptedAndSharesPrefixesLikeTheCpu) {
  const EngineOptions narrow{6, 24, 21};
  std::vector<GenerationRequest> requests = Mixed();
  for (GenerationRequest& request : requests) {
    request.sampling.max_new_tokens = std::min(request.sampling.max_new_tokens, 40u);
  }
  GenerationRequest twin = requests[2];
  twin.id.sample = 1;
  requests.push_back(twin);
  const Results host = RunAll({8, 64, 300}, requests);
  Engine engine = OnDevice(narrow);
  Results results;
  for (const GenerationRequest& request : requests) ASSERT_TRUE(engine.Submit(request).ok());
  Drain(engine, results);
  ExpectSameResults(host, results);
  EXPECT_GT(engine.counters().preemptions, 0u);
}

TEST_F(DeviceEngine, AppliesFiltersAndReportsTheLikeliestIds) {
  std::vector<GenerationRequest> requests = Mixed();
  requests[0].sampling.top_k = 5;
  requests[1].sampling.top_p = 0.8f;
  requests[1].top_logprobs = 3;
  requests[2].sampling.repetition_penalty = 1.3f;
  requests[3].sampling.logit_bias = {{2, 1.5f}, {7, -2.0f}};
  requests[4].sampling.allowed_tokens = {1, 4, 9, 11, 20};
  requests[5].sampling.min_p = 0.05f;
  requests[6].top_logprobs = 1000;
  const Results host = RunAll({8, 64, 200}, requests);
  const Results device = Run(OnDevice({8, 64, 200}), requests);
  ExpectSameResults(host, device);
  for (const auto& [id, result] : host) {
    EXPECT_EQ(result.kept_mass_logprobs, device.at(id).kept_mass_logprobs);
    EXPECT_EQ(result.top_logprobs, device.at(id).top_logprobs);
  }
}

TEST_F(DeviceEngine, TheLikeliestIdsKeepNobodyFromRunningAhead) {
  model::CudaRunnerOptions options;
  options.slots = 4, options.max_rows = 68, options.pages = 60;
  const auto runner = model::MakeCudaRunner(shape_, options).value();
  model::RowSampling sampling;
  sampling.top_n = 3;
  EXPECT_TRUE(runner->RunsAhead(sampling));
  sampling.top_k = 5;
  EXPECT_FALSE(runner->RunsAhead(sampling));

  std::vector<GenerationRequest> requests = Mixed();
  for (std::size_t i = 0; i < requests.size(); i += 2) requests[i].top_logprobs = 4;
  const Results host = RunAll({8, 64, 200}, requests);
  const Results device = Run(OnDevice({8, 64, 200}), requests);
  ExpectSameResults(host, device);
  for (const auto& [id, result] : host) {
    EXPECT_EQ(result.top_logprobs, device.at(id).top_logprobs);
  }
}

TEST_F(DeviceEngine, NothingIsComputedForASequenceThatAStopTokenHasEnded) {
  for (bool graphs : {true, false}) {
    SCOPED_TRACE(graphs);
    model::CudaRunnerOptions options;
    options.graphs = graphs;
    ExpectNothingBehindAStop(options);
  }
}

TEST_F(DeviceEngine, EveryFamilyAndWeightTypeGivesTheBitsOfTheCpu) {
  for (const char* family : {"llama", "qwen2", "qwen3"}) {
    for (auto type : {kernels::WeightType::kF32, kernels::WeightType::kBf16}) {
      SCOPED_TRACE(std::string(family) + " " + kernels::WeightTypeName(type));
      model::ModelConfig shape = model::SmallConfig(family, family[0] == 'l');
      shape.dtype = type;
      const auto weights =
          model::PackedModel::Make(shape, model::LivelyWeights(shape, 3), shape.vocab - 3, false);
      std::vector<GenerationRequest> requests = Mixed();
      requests.resize(4);
      const EngineOptions options{4, 40, 60};
      Engine host(shape, options);
      ASSERT_TRUE(host.SetWeights(weights, kVersion).ok());
      ExpectSameResults(Run(std::move(host), requests),
                        Run(OnDevice(shape, weights, options), requests));
    }
  }
}

TEST_F(DeviceEngine, TakesOneVersionAfterAnother) {
  const EngineOptions options{4, 64, 60};
  Engine device = OnDevice(options), host = NewEngine(options);
  for (std::uint32_t version = 6; version < 9; ++version) {
    const auto next = model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 10 + version),
                                               shape_.vocab, false);
    Results a, b;
    for (Engine* engine : {&device, &host}) {
      ASSERT_TRUE(engine->SetWeights(next, {0, version}).ok());
      ASSERT_TRUE(engine->Submit(Request(version, 20, 30)).ok());
      Drain(*engine, engine == &device ? a : b);
    }
    ExpectSameResults(a, b);
  }
}

TEST_F(DeviceEngine, ARecordingIsOfTheIdsThatAreValid) {
  const EngineOptions options{4, 64, 60};
  Engine device = OnDevice(options), host = NewEngine(options);
  std::uint32_t version = 6;
  // Both buffers of weights have had every number of ids.
  for (std::int32_t valid : {shape_.vocab, shape_.vocab, 9, 9, shape_.vocab, shape_.vocab}) {
    const auto next =
        model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 10), valid, false);
    Results a, b;
    for (Engine* engine : {&device, &host}) {
      ASSERT_TRUE(engine->SetWeights(next, {0, version}).ok());
      ASSERT_TRUE(engine->Submit(Request(version, 20, 30)).ok());
      Drain(*engine, engine == &device ? a : b);
    }
    ExpectSameResults(a, b);
    ++version;
  }
}

#ifdef THRESHER_CUDA_SIM
TEST_F(DeviceEngine, WithoutRoomForRecordingsStepsAreNotRecorded) {
  const EngineOptions options{8, 64, 200};
  Engine device = OnDevice(options);
  cuda_sim::LimitMemory(cuda_sim::UsedBytes());
  const Results results = Run(std::move(device), Mixed());
  cuda_sim::LimitMemory(0);
  ExpectSameResults(RunAll(options, Mixed()), results);
}

TEST_F(DeviceEngine, AStepHasAboutAsManyKernelsAsItsRecordingIsPlannedFor) {
  for (const char* family : {"llama", "qwen3"}) {
    SCOPED_TRACE(family);
    model::ModelConfig shape = model::SmallConfig(family, true);
    shape.layers = 6;
    const auto weights = model::PackedModel::Make(shape, model::LivelyWeights(shape, 3), 0, false);
    ExpectAPlannedNumberOfKernels(shape, OnDevice(shape, weights, {4, 64, 60}));
  }
}
#endif

TEST_F(DeviceEngine, LeavesTheHostNoCopyOfTheWeights) {
  Engine engine = OnDevice({4, 64, 60});
  auto weights = model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 10), 0, false);
  const std::weak_ptr<const model::PackedModel> seen = weights;
  ASSERT_TRUE(engine.SetWeights(std::exchange(weights, nullptr), {0, 6}).ok());
  EXPECT_TRUE(seen.expired());
}

TEST_F(DeviceEngine, ACancelledSequenceDisturbsNobody) {
  const std::vector<GenerationRequest> requests = Mixed();
  const Results host = RunAll({8, 64, 200}, requests);
  Engine engine = OnDevice({8, 64, 200});
  Results results;
  for (const GenerationRequest& request : requests) ASSERT_TRUE(engine.Submit(request).ok());
  for (int step = 0; step < 12; ++step) {
    for (GenerationResult& result : StepOf(engine)) results.emplace(result.id, result);
  }
  const auto cancelled = engine.Cancel(requests[4].id);
  ASSERT_TRUE(cancelled.has_value());
  EXPECT_EQ(cancelled->finish, FinishReason::kCancelled);
  Drain(engine, results);
  for (const auto& [id, result] : results) ExpectSame(host.at(id), result);
  EXPECT_EQ(results.size(), requests.size() - 1);
  // The engine is usable after everything has gone while steps were on their way.
  ASSERT_TRUE(engine.Submit(requests[0]).ok());
  (void)StepOf(engine);
  EXPECT_EQ(engine.CancelAll().size(), 1u);
  ASSERT_TRUE(engine.SetWeights(weights_, {0, 9}).ok());
}

TEST_F(DeviceEngine, AModelThatDoesNotFitIsRefusedWithItsNumbers) {
  model::ModelConfig shape = shape_;
  shape.context = 1 << 20;
  shape.layers = 400;
  model::CudaRunnerOptions runner;
  runner.memory_fraction = 1e-5;
  const auto made = model::MakeCudaRunner(shape, runner);
  ASSERT_EQ(made.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(made.status().message().find("free: "), std::string::npos);
}

}  // namespace
}  // namespace thresher::actor
