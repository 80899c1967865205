#include "actor/engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/unit/model/small_model.h"

namespace thresher::actor {
namespace {

using Results = std::map<TrajectoryId, GenerationResult>;

constexpr std::uint64_t kSeed = 77;
constexpr PolicyVersion kVersion{0, 5};

class EngineTest : public ::testing::Test {
 protected:
  EngineTest()
      : shape_(model::SmallConfig("llama", true)),
        weights_(model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 3), shape_.vocab,
                                          false)) {}

  Engine NewEngine(EngineOptions options = {}) const {
    Engine engine(shape_, options);
    engine.SetWeights(weights_, kVersion);
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
    requests[7].stop_token = 20;
    return requests;
  }

  // Steps until nothing is left, or fails after `limit` steps.
  static void Drain(Engine& engine, Results& results, std::vector<TrajectoryId>* order = nullptr,
                    int limit = 5000) {
    for (int step = 0; engine.load() > 0; ++step) {
      ASSERT_LT(step, limit) << "the engine makes no progress";
      for (GenerationResult& result : engine.Step()) {
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

TEST_F(EngineTest, CompanyChunksAndPagesChangeNoBit) {
  const std::vector<GenerationRequest> requests = Mixed();
  Results alone;
  for (const auto& request : requests) alone.emplace(request.id, Alone(request));
  const EngineOptions variants[] = {
      {128, 512, 0},  // all at once
      {3, 512, 0},    // admitted as others leave
      {8, 1, 0},      // a prompt token a step
      {8, 7, 40},     // odd chunks, few pages
      {2, 64, 20},    // one full context at a time
  };
  for (const EngineOptions& options : variants) {
    std::vector<GenerationRequest> order = requests;
    for (int turn = 0; turn < 2; ++turn) {
      const Results got = RunAll(options, order);
      ASSERT_EQ(got.size(), requests.size());
      for (const auto& [id, result] : got) ExpectSame(result, alone.at(id));
      std::reverse(order.begin(), order.end());
    }
  }
}

TEST_F(EngineTest, LateArrivalsChangeNoBit) {
  const std::vector<GenerationRequest> requests = Mixed();
  Engine engine = NewEngine({4, 16, 0});
  Results got;
  std::size_t next = 0;
  for (int step = 0; next < requests.size(); ++step) {
    if (step % 9 == 0) ASSERT_TRUE(engine.Submit(requests[next++]).ok());
    for (GenerationResult& result : engine.Step()) got.emplace(result.id, result);
  }
  Drain(engine, got);
  ASSERT_EQ(got.size(), requests.size());
  for (const auto& request : requests) ExpectSame(got.at(request.id), Alone(request));
}

TEST_F(EngineTest, LogprobsAndTokensAreThoseOfTheWholeSequenceAtOnce) {
  // The learner's view: one forward pass over the finished sequence; and the stated uniform
  // numbers.
  for (const auto& [id, result] : RunAll({3, 20, 0}, Mixed())) {
    const int rows = static_cast<int>(result.tokens.size()) - 1;
    const auto pages = model::PageTable(0, 1, rows);
    model::KvCache cache(shape_, static_cast<std::int32_t>(pages.size()));
    model::RowBatch batch;
    model::Append(result.tokens, 0, rows, pages, batch);
    const auto hidden = model::HiddenOf(*weights_, batch, cache);
    const std::size_t first = result.prompt_tokens - 1;
    const std::size_t count = result.logprobs.size();
    const std::span<const float> policy_rows =
        std::span(hidden).subspan(first * static_cast<std::size_t>(shape_.width));
    const auto mixed = Mixed();
    const auto request =
        std::find_if(mixed.begin(), mixed.end(), [&](const auto& r) { return r.id == result.id; });
    const std::vector<float> temperature(count, request->sampling.temperature);
    const RandomStream random(kSeed, id, RandomPurpose::kSample);
    std::vector<double> uniform;
    for (std::size_t i = 0; i < count; ++i) {
      uniform.push_back(random.Uniform(static_cast<std::uint32_t>(result.prompt_tokens + i)));
    }
    std::vector<std::int32_t> token(count);
    std::vector<float> logprob(count);
    const model::WorkspacePtr workspace = model::NewWorkspace();
    model::Sample(*weights_, policy_rows, temperature, uniform, *workspace, token, logprob);
    EXPECT_TRUE(
        std::equal(token.begin(), token.end(),
                   result.tokens.begin() + static_cast<std::ptrdiff_t>(result.prompt_tokens)))
        << id.ToString();
    EXPECT_EQ(logprob, result.logprobs) << id.ToString();
    EXPECT_EQ(model::LogProb(*weights_, policy_rows, token, temperature, *workspace).logprob,
              result.logprobs);
  }
}

TEST_F(EngineTest, TheStopTokenEndsTheSequenceAndIsPartOfIt) {
  GenerationRequest request = Request(9, 6, 120);
  const GenerationResult free = Alone(request);
  ASSERT_EQ(free.finish, FinishReason::kLength);
  ASSERT_EQ(free.logprobs.size(), 120u);
  const auto begin = free.tokens.begin() + 6;
  request.stop_token = *(begin + 30);
  const auto first = std::find(begin, free.tokens.end(), request.stop_token);
  const GenerationResult stopped = Alone(request);
  EXPECT_EQ(stopped.finish, FinishReason::kStop);
  EXPECT_EQ(stopped.tokens, (std::vector<std::int32_t>(free.tokens.begin(), first + 1)));
  EXPECT_EQ(stopped.logprobs.size(), static_cast<std::size_t>(first - begin) + 1);
}

TEST_F(EngineTest, AStopTokenInThePromptStopsNothing) {
  // The prompt takes three steps: after the first, its end has been seen and nothing sampled.
  GenerationRequest request = Request(9, 10, 12);
  request.stop_token = request.prompt.back();
  const Results results = RunAll({1, 4, 0}, {request});
  EXPECT_GE(results.at(request.id).logprobs.size(), 1u);
}

TEST_F(EngineTest, AStopTokenAtTheLastPlaceCountsAsAStop) {
  GenerationRequest request = Request(9, 6, 1);
  request.stop_token = Alone(request).tokens.back();
  const GenerationResult result = Alone(request);
  EXPECT_EQ(result.finish, FinishReason::kStop);
  EXPECT_EQ(result.logprobs.size(), 1u);
}

TEST_F(EngineTest, RecordsWhatWroteEveryTokenAndPosition) {
  const GenerationResult result = Alone(Request(9, 6, 10));
  EXPECT_EQ(result.versions, (std::vector<VersionSpan>{{6, 16, kVersion}}));
  // The last token was never processed.
  EXPECT_EQ(result.kv_history, (std::vector<KvSpan>{{0, 15, kVersion, false}}));
}

TEST_F(EngineTest, IdentitySeedAndWeightsDecideTheTokens) {
  const GenerationRequest request = Request(9, 6, 60);
  const GenerationResult base = Alone(request);
  GenerationRequest other = request;
  other.id.sample = 1;
  EXPECT_NE(Alone(other).tokens, base.tokens);
  other = request;
  other.run_seed = kSeed + 1;
  EXPECT_NE(Alone(other).tokens, base.tokens);
  Engine engine(shape_, {});
  engine.SetWeights(
      model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 4), shape_.vocab, false),
      {0, 6});
  ASSERT_TRUE(engine.Submit(request).ok());
  Results results;
  Drain(engine, results);
  EXPECT_NE(results.at(request.id).tokens, base.tokens);
  EXPECT_EQ(results.at(request.id).versions[0].version, (PolicyVersion{0, 6}));
}

TEST_F(EngineTest, RefusesWhatItCannotGenerate) {
  Engine empty(shape_, {});
  EXPECT_EQ(empty.Submit(Request(1, 3, 3)).code(), StatusCode::kFailedPrecondition);
  Engine engine = NewEngine({8, 64, 10});
  EXPECT_EQ(engine.Submit(Request(1, 0, 3)).code(), StatusCode::kInvalidArgument);
  for (std::int32_t token : {-1, shape_.vocab}) {
    GenerationRequest request = Request(1, 3, 3);
    request.prompt[1] = token;
    EXPECT_EQ(engine.Submit(request).code(), StatusCode::kInvalidArgument) << token;
  }
  EXPECT_EQ(engine.Submit(Request(1, 3, 0)).code(), StatusCode::kOutOfRange);
  EXPECT_EQ(engine.Submit(Request(1, 300, 21)).code(), StatusCode::kOutOfRange);  // context 320
  EXPECT_EQ(engine.Submit(Request(1, 150, 11)).code(), StatusCode::kOutOfRange);  // 10 pages: 160
  GenerationRequest endless = Request(1, 3, 3);
  endless.sampling.max_new_tokens = UINT32_MAX;
  EXPECT_EQ(engine.Submit(endless).code(), StatusCode::kOutOfRange);
  EXPECT_EQ(engine.load(), 0u);
  EXPECT_TRUE(engine.Submit(Request(1, 150, 10)).ok());
}

TEST_F(EngineTest, FillsTheContextToItsEnd) {
  const GenerationResult result = Alone(Request(2, 300, 20));
  EXPECT_EQ(result.tokens.size(), 320u);
  EXPECT_EQ(result.finish, FinishReason::kLength);
}

TEST_F(EngineTest, AStepWithNothingToDoReturnsAtOnce) {
  Engine engine = NewEngine();
  EXPECT_TRUE(engine.Step().empty());
  EXPECT_EQ(engine.counters().steps, 0u);
  EXPECT_TRUE(engine.CancelAll().empty());
}

TEST_F(EngineTest, CancelAllGivesThePagesBack) {
  Engine engine = NewEngine({8, 512, 20});
  for (std::uint64_t round = 0; round < 5; ++round) {
    for (std::uint64_t i = 1; i <= 4; ++i) {
      ASSERT_TRUE(engine.Submit(Request(10 * round + i, 100, 40)).ok());
    }
    for (int step = 0; step < 3; ++step) (void)engine.Step();
    std::vector<TrajectoryId> ids = engine.CancelAll();
    std::sort(ids.begin(), ids.end());
    ASSERT_EQ(ids.size(), 4u);  // two run, two wait
    for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(ids[i].item, 10 * round + i + 1);
    EXPECT_EQ(engine.load(), 0u);
  }
  // A sequence that needs every page, on a cache full of what was left behind.
  ASSERT_TRUE(engine.Submit(Request(3, 250, 70)).ok());
  Results results;
  Drain(engine, results);
  ASSERT_EQ(results.size(), 1u);
  ExpectSame(results.begin()->second, Alone(Request(3, 250, 70)));
}

TEST_F(EngineTest, ALongSequenceIsNotOvertakenWhenPagesAreShort) {
  Engine engine = NewEngine({8, 512, 20});
  ASSERT_TRUE(engine.Submit(Request(1, 5, 20)).ok());
  ASSERT_TRUE(engine.Submit(Request(2, 20, 300)).ok());  // needs all pages
  ASSERT_TRUE(engine.Submit(Request(3, 5, 2)).ok());     // would fit beside the first
  Results results;
  std::vector<TrajectoryId> order;
  Drain(engine, results, &order);
  ASSERT_EQ(order.size(), 3u);
  EXPECT_EQ(order[0].item, 1u);
  EXPECT_EQ(order[1].item, 2u);
  EXPECT_EQ(order[2].item, 3u);
}

TEST_F(EngineTest, PressureOnPagesNeverDeadlocks) {
  Engine engine = NewEngine({6, 24, 21});
  RandomSequence random(1, {}, RandomPurpose::kBootstrap);
  for (std::uint64_t item = 1; item <= 60; ++item) {
    const int prompt = static_cast<int>(random.Between(1, 120));
    const auto tokens = static_cast<std::uint32_t>(random.Between(1, 40));
    ASSERT_TRUE(engine.Submit(Request(item, prompt, tokens)).ok());
  }
  Results results;
  Drain(engine, results);
  EXPECT_EQ(results.size(), 60u);
  EXPECT_EQ(engine.counters().finished, 60u);
}

TEST_F(EngineTest, CountsTokens) {
  Engine engine = NewEngine();
  ASSERT_TRUE(engine.Submit(Request(1, 10, 5)).ok());
  ASSERT_TRUE(engine.Submit(Request(2, 3, 7)).ok());
  Results results;
  Drain(engine, results);
  EXPECT_EQ(engine.counters().prefill_tokens, 13u);
  EXPECT_EQ(engine.counters().decode_tokens, 12u);
  EXPECT_EQ(engine.counters().steps, 7u);  // the prompt's step samples the first token
}

using EngineDeathTest = EngineTest;

TEST_F(EngineDeathTest, SwappingWeightsUnderARunningSequenceIsABug) {
  Engine engine = NewEngine();
  ASSERT_TRUE(engine.Submit(Request(1, 10, 5)).ok());
  EXPECT_DEATH(engine.SetWeights(weights_, {0, 6}), "swapped while sequences run");
}

}  // namespace
}  // namespace thresher::actor
