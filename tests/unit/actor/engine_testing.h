#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "actor/engine/engine.h"
#include "tests/unit/model/small_model.h"

namespace thresher::actor {

using Results = std::map<TrajectoryId, GenerationResult>;

inline constexpr std::uint64_t kSeed = 77;
inline constexpr PolicyVersion kVersion{0, 5};

// Engine::Step of an engine that does not fail.
inline std::vector<GenerationResult> StepOf(Engine& engine) {
  auto finished = engine.Step();
  EXPECT_TRUE(finished.ok()) << finished.status().ToString();
  return std::move(finished).value();
}

class EngineTest : public ::testing::Test {
 protected:
  EngineTest()
      : shape_(model::SmallConfig("llama", true)),
        weights_(model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 3), shape_.vocab,
                                          false)) {}

  Engine NewEngine(EngineOptions options = {}) const {
    Engine engine(shape_, options);
    EXPECT_TRUE(engine.SetWeights(weights_, kVersion).ok());
    return engine;
  }

  GenerationRequest Request(std::uint64_t item, int prompt, std::uint32_t new_tokens) const {
    GenerationRequest request;
    request.id.item = item;
    request.prompt = model::RandomTokens(item, prompt, shape_.vocab);
    request.sampling.max_new_tokens = new_tokens;
    request.run_seed = kSeed;
    return request;
  }

  // Prompts shorter and longer than every chunk, answers that cross pages and attention splits.
  std::vector<GenerationRequest> Mixed() const {
    std::vector<GenerationRequest> requests = {
        Request(1, 1, 40),  Request(2, 16, 17),  Request(3, 90, 60), Request(4, 5, 1),
        Request(5, 33, 70), Request(6, 200, 30), Request(7, 2, 15),  Request(8, 2, 16)};
    requests[1].sampling.temperature = 0.6f;
    requests[4].sampling.temperature = 1.7f;
    requests[6].sampling.temperature = 0.0f;
    requests[7].stop_tokens = {20};
    return requests;
  }

  // Steps until nothing is left, or fails after `limit` steps.
  static void Drain(Engine& engine, Results& results, std::vector<TrajectoryId>* order = nullptr,
                    int limit = 5000) {
    for (int step = 0; engine.load() > 0; ++step) {
      ASSERT_LT(step, limit) << "the engine makes no progress";
      for (GenerationResult& result : StepOf(engine)) {
        if (order != nullptr) order->push_back(result.id);
        const TrajectoryId id = result.id;
        ASSERT_TRUE(results.emplace(id, std::move(result)).second) << "finished twice";
      }
    }
  }

  Results RunAll(EngineOptions options, const std::vector<GenerationRequest>& requests) const {
    Engine engine = NewEngine(options);
    Results results;
    for (const GenerationRequest& request : requests) {
      Status status = engine.Submit(request);
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
    Drain(engine, results);
    return results;
  }

  GenerationResult Alone(const GenerationRequest& request) const {
    return RunAll({1, 4096, 0}, {request}).at(request.id);
  }

  static void ExpectSame(const GenerationResult& a, const GenerationResult& b) {
    EXPECT_EQ(a.tokens, b.tokens) << a.id.ToString();
    EXPECT_EQ(a.logprobs, b.logprobs) << a.id.ToString();
    EXPECT_EQ(a.finish, b.finish);
    EXPECT_EQ(a.prompt_tokens, b.prompt_tokens);
    EXPECT_EQ(a.versions, b.versions);
    EXPECT_EQ(a.kv_history, b.kv_history);
  }

  model::ModelConfig shape_;
  std::shared_ptr<const model::PackedModel> weights_;
};

}  // namespace thresher::actor
