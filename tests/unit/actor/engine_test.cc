#include "actor/engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/unit/actor/engine_testing.h"

namespace thresher::actor {
namespace {

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
    if (step % 9 == 0) {
      ASSERT_TRUE(engine.Submit(requests[next++]).ok());
    }
    for (GenerationResult& result : StepOf(engine)) got.emplace(result.id, result);
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
  EXPECT_TRUE(engine.SetWeights(
      model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 4), shape_.vocab, false),
      {0, 6}).ok());
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
  const auto refused = [&](auto change) {
    GenerationRequest request = Request(1, 3, 3);
    change(request);
    return engine.Submit(request).code() == StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](auto&) {}));
  (void)engine.CancelAll();
  EXPECT_TRUE(refused([](auto& r) { r.sampling.temperature = -1; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.temperature = NAN; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.top_p = 0; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.top_p = 1.5f; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.min_p = -0.1f; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.repetition_penalty = 0; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.logit_bias = {{99, 1.0f}}; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.logit_bias = {{5, NAN}}; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.logit_bias = {{5, 1.0f}, {4, 1.0f}}; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.allowed_tokens = {4, 4}; }));
  EXPECT_TRUE(refused([](auto& r) { r.sampling.allowed_tokens = {37}; }));
  EXPECT_TRUE(refused([](auto& r) { r.stop_tokens = {-1}; }));
  EXPECT_TRUE(refused([](auto& r) { r.stop_strings = {"x"}; }));
  EXPECT_TRUE(refused([](auto& r) {
    r.stop_strings = {""};
    r.decode = [](std::int32_t) { return ""; };
  }));
  EXPECT_TRUE(refused([](auto& r) { r.top_logprobs = -1; }));
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
  EXPECT_TRUE(StepOf(engine).empty());
  EXPECT_EQ(engine.counters().steps, 0u);
  EXPECT_TRUE(engine.CancelAll().empty());
}

using EngineDeathTest = EngineTest;

TEST_F(EngineDeathTest, SwappingWeightsUnderARunningSequenceIsABug) {
  Engine engine = NewEngine();
  ASSERT_TRUE(engine.Submit(Request(1, 10, 5)).ok());
  EXPECT_DEATH((void)engine.SetWeights(weights_, {0, 6}), "swapped while sequences run");
}

}  // namespace
}  // namespace thresher::actor
