#include "actor/engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

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
    requests[7].stop_tokens = {20};
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
    if (step % 9 == 0) {
      ASSERT_TRUE(engine.Submit(requests[next++]).ok());
    }
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
  request.stop_tokens = {*(begin + 30)};
  const auto first = std::find(begin, free.tokens.end(), request.stop_tokens[0]);
  const GenerationResult stopped = Alone(request);
  EXPECT_EQ(stopped.finish, FinishReason::kStop);
  EXPECT_EQ(stopped.tokens, (std::vector<std::int32_t>(free.tokens.begin(), first + 1)));
  EXPECT_EQ(stopped.logprobs.size(), static_cast<std::size_t>(first - begin) + 1);
}

TEST_F(EngineTest, AStopTokenInThePromptStopsNothing) {
  // The prompt takes three steps: after the first, its end has been seen and nothing sampled.
  GenerationRequest request = Request(9, 10, 12);
  request.stop_tokens = {request.prompt.back()};
  const Results results = RunAll({1, 4, 0}, {request});
  EXPECT_GE(results.at(request.id).logprobs.size(), 1u);
}

TEST_F(EngineTest, AStopTokenAtTheLastPlaceCountsAsAStop) {
  GenerationRequest request = Request(9, 6, 1);
  request.stop_tokens = {Alone(request).tokens.back()};
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
  ASSERT_TRUE(engine.Submit(Request(1, 200, 40)).ok());  // 15 pages at its end
  ASSERT_TRUE(engine.Submit(Request(2, 150, 10)).ok());  // 10 pages
  ASSERT_TRUE(engine.Submit(Request(3, 5, 2)).ok());     // would fit beside the first
  Results results;
  std::vector<TrajectoryId> order;
  Drain(engine, results, &order);
  ASSERT_EQ(order.size(), 3u);
  EXPECT_EQ(order[0].item, 1u);
}

TEST_F(EngineTest, PreemptionChangesNoBit) {
  std::vector<GenerationRequest> requests;
  for (std::uint64_t item = 1; item <= 6; ++item) {
    requests.push_back(Request(item, 10 + 7 * static_cast<int>(item), 90));
  }
  Engine engine = NewEngine({6, 40, 15});
  for (const auto& request : requests) ASSERT_TRUE(engine.Submit(request).ok());
  Results results;
  Drain(engine, results);
  EXPECT_GE(engine.counters().preemptions, 3u);
  EXPECT_GT(engine.counters().recomputed_tokens, 0u);
  for (const auto& request : requests) ExpectSame(results.at(request.id), Alone(request));
}

TEST_F(EngineTest, AGroupSharesItsPromptAndEverySampleIsAsAlone) {
  for (int prompt : {1, 7, 16, 33, 120}) {
    std::vector<GenerationRequest> group;
    for (std::uint32_t sample = 0; sample < 8; ++sample) {
      GenerationRequest request = Request(5, prompt, 20);
      request.id.sample = sample;
      group.push_back(request);
    }
    Engine engine = NewEngine({5, 50, 0});  // the others come when the first ones have ended
    for (const auto& request : group) ASSERT_TRUE(engine.Submit(request).ok());
    Results results;
    Drain(engine, results);
    const auto size = static_cast<std::uint64_t>(prompt);
    EXPECT_EQ(engine.counters().prefill_tokens, size + 7) << prompt;
    EXPECT_EQ(engine.counters().shared_tokens, 7 * (size - 1));
    for (const auto& request : group) ExpectSame(results.at(request.id), Alone(request));
  }
}

TEST_F(EngineTest, PrefixesOfOtherWeightsAreForgotten) {
  const GenerationRequest request = Request(5, 60, 20);
  Engine engine = NewEngine();
  Results before, after;
  ASSERT_TRUE(engine.Submit(request).ok());
  Drain(engine, before);
  EXPECT_GT(engine.counters().pages_retained, 0u);
  const auto other =
      model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 4), shape_.vocab, false);
  engine.SetWeights(other, {0, 6});
  EXPECT_EQ(engine.counters().pages_retained, 0u);
  ASSERT_TRUE(engine.Submit(request).ok());
  Drain(engine, after);
  EXPECT_EQ(engine.counters().prefix_hits, 0u);
  Engine fresh(shape_, {});
  fresh.SetWeights(other, {0, 6});
  Results expected;
  ASSERT_TRUE(fresh.Submit(request).ok());
  Drain(fresh, expected);
  ExpectSame(after.at(request.id), expected.at(request.id));
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

TEST_F(EngineTest, CountersShowWhatIsGoingOn) {
  Engine engine = NewEngine({2, 512, 40});
  for (std::uint64_t item = 1; item <= 3; ++item) {
    ASSERT_TRUE(engine.Submit(Request(item, 20, 5)).ok());
  }
  EXPECT_EQ(engine.counters().waiting, 3u);
  (void)engine.Step();
  EngineCounters now = engine.counters();
  EXPECT_EQ(now.running, 2u);
  EXPECT_EQ(now.waiting, 1u);
  EXPECT_EQ(now.pages_used, 4u);
  EXPECT_EQ(now.pages_free, 36u);
  Results results;
  Drain(engine, results);
  now = engine.counters();
  EXPECT_EQ(now.running + now.waiting + now.pages_used, 0u);
  EXPECT_EQ(now.pages_retained + now.pages_free, 40u);
  EXPECT_EQ(now.finished, 3u);
}

TEST_F(EngineTest, StreamsWhatItSamples) {
  const std::vector<GenerationRequest> requests = Mixed();
  Engine engine = NewEngine({3, 20, 0});
  for (const auto& request : requests) ASSERT_TRUE(engine.Submit(request).ok());
  std::map<TrajectoryId, std::vector<std::int32_t>> tokens;
  std::map<TrajectoryId, std::vector<float>> logprobs;
  Results results;
  while (engine.load() > 0) {
    const std::vector<GenerationResult> finished = engine.Step();
    for (const FreshToken& fresh : engine.fresh_tokens()) {
      const auto prompt = std::find_if(requests.begin(), requests.end(), [&](const auto& r) {
                            return r.id == fresh.id;
                          })->prompt.size();
      EXPECT_EQ(fresh.position, prompt + tokens[fresh.id].size());
      tokens[fresh.id].push_back(fresh.token);
      logprobs[fresh.id].push_back(fresh.logprob);
    }
    for (const auto& result : finished) results.emplace(result.id, result);
  }
  ASSERT_EQ(results.size(), requests.size());
  for (const auto& [id, result] : results) {
    EXPECT_EQ(logprobs[id], result.logprobs);
    EXPECT_TRUE(
        std::equal(tokens[id].begin(), tokens[id].end(),
                   result.tokens.begin() + static_cast<std::ptrdiff_t>(result.prompt_tokens)));
  }
}

TEST_F(EngineTest, ACancelledSequenceIsReturnedAsFarAsItCame) {
  const GenerationRequest cut = Request(1, 10, 50), queued = Request(2, 10, 50),
                          other = Request(3, 10, 50);
  Engine engine = NewEngine({2, 512, 0});
  for (const auto& request : {cut, other, queued}) ASSERT_TRUE(engine.Submit(request).ok());
  for (int step = 0; step < 7; ++step) (void)engine.Step();
  const auto partial = engine.Cancel(cut.id);
  ASSERT_TRUE(partial.has_value());
  EXPECT_EQ(partial->finish, FinishReason::kCancelled);
  const GenerationResult whole = Alone(cut);
  ASSERT_EQ(partial->logprobs.size(), 7u);
  EXPECT_TRUE(
      std::equal(partial->logprobs.begin(), partial->logprobs.end(), whole.logprobs.begin()));
  EXPECT_EQ(partial->kv_history, (std::vector<KvSpan>{{0, 16, kVersion, false}}));
  EXPECT_FALSE(engine.Cancel(cut.id).has_value());
  EXPECT_EQ(engine.Cancel(queued.id)->logprobs.size(), 0u);
  Results results;
  Drain(engine, results);
  ASSERT_EQ(results.size(), 1u);
  ExpectSame(results.at(other.id), Alone(other));
  EXPECT_EQ(engine.counters().cancelled, 2u);
  EXPECT_EQ(engine.counters().pages_used, 0u);
}

TEST_F(EngineTest, AStopStringEndsTheSequenceWithTheTokenThatCompletesIt) {
  GenerationRequest request = Request(9, 6, 120);
  const GenerationResult free = Alone(request);
  // Token t is written as two letters.
  const auto text = [](std::int32_t token) {
    return std::string{static_cast<char>('a' + token / 26), static_cast<char>('a' + token % 26)};
  };
  std::string whole;
  for (std::size_t i = 6; i < free.tokens.size(); ++i) whole += text(free.tokens[i]);
  request.stop_strings = {"never written", whole.substr(61, 4)};  // from within a token
  request.decode = text;
  const std::size_t end = (whole.find(request.stop_strings[1]) + 4 + 1) / 2;
  const GenerationResult stopped = Alone(request);
  EXPECT_EQ(stopped.finish, FinishReason::kStop);
  EXPECT_EQ(stopped.stop_string, 1);
  EXPECT_EQ(stopped.logprobs.size(), end);
  EXPECT_TRUE(std::equal(stopped.tokens.begin(), stopped.tokens.end(), free.tokens.begin()));
}

TEST_F(EngineTest, EveryRequestHasItsOwnSamplingParameters) {
  std::vector<GenerationRequest> requests = Mixed();
  requests[0].sampling.top_k = 1;
  requests[1].sampling.allowed_tokens = {3, 5, 8};
  requests[2].sampling.repetition_penalty = 1.5f;
  requests[3].sampling.logit_bias = {{7, 1000.0f}};
  requests[4].sampling.top_p = 0.5f;
  requests[5].top_logprobs = 4;
  requests[6].sampling.min_p = 0.3f;
  const Results results = RunAll({4, 30, 60}, requests);
  for (const auto& request : requests) {
    const GenerationResult& result = results.at(request.id);
    const GenerationResult alone = Alone(request);
    ExpectSame(result, alone);
    EXPECT_EQ(result.kept_mass_logprobs, alone.kept_mass_logprobs);
    EXPECT_EQ(result.top_logprobs, alone.top_logprobs);
    EXPECT_EQ(result.kept_mass_logprobs.size(),
              request.sampling.Filtered() ? result.logprobs.size() : 0u);
    EXPECT_EQ(result.top_logprobs.size(), request.top_logprobs > 0 ? result.logprobs.size() : 0u);
  }
  GenerationRequest greedy = requests[0];
  greedy.sampling.top_k = 0;
  greedy.sampling.temperature = 0;
  EXPECT_EQ(results.at(greedy.id).tokens, Alone(greedy).tokens);
  const GenerationResult& masked = results.at(requests[1].id);
  for (std::size_t i = masked.prompt_tokens; i < masked.tokens.size(); ++i) {
    const std::int32_t token = masked.tokens[i];
    EXPECT_TRUE(token == 3 || token == 5 || token == 8);
    EXPECT_LT(masked.kept_mass_logprobs[i - masked.prompt_tokens], 0.0f);
  }
  EXPECT_EQ(results.at(requests[3].id).tokens.back(), 7);
  const GenerationResult& curious = results.at(requests[5].id);
  for (std::size_t i = 0; i < curious.logprobs.size(); ++i) {
    ASSERT_EQ(curious.top_logprobs[i].size(), 4u);
    EXPECT_GE(curious.top_logprobs[i][0].logprob, curious.logprobs[i]);
  }
}

TEST_F(EngineTest, ThePenaltyIsForThePromptAndWhatWasSampled) {
  GenerationRequest request = Request(4, 10, 30);
  const GenerationResult free = Alone(request);
  request.sampling.repetition_penalty = 1.3f;
  request.sampling.temperature = 0;
  const GenerationResult result = Alone(request);
  EXPECT_NE(result.tokens, free.tokens);
  // Greedy by the definition, from the plain logits of the whole sequence.
  const int rows = static_cast<int>(result.tokens.size()) - 1;
  const auto pages = model::PageTable(0, 1, rows);
  model::KvCache cache(shape_, static_cast<std::int32_t>(pages.size()));
  model::RowBatch batch;
  model::Append(result.tokens, 0, rows, pages, batch);
  std::vector<float> logits = model::Logits(*weights_, model::HiddenOf(*weights_, batch, cache));
  const auto vocab = static_cast<std::size_t>(shape_.vocab);
  for (std::size_t i = result.prompt_tokens; i < result.tokens.size(); ++i) {
    const std::set<std::int32_t> seen(result.tokens.begin(),
                                      result.tokens.begin() + static_cast<std::ptrdiff_t>(i));
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>((i - 1) * vocab);
    for (std::int32_t token : seen) {
      float& score = row[token];
      score = score < 0 ? score * 1.3f : score / 1.3f;
    }
    const auto greatest = std::max_element(row, row + static_cast<std::ptrdiff_t>(vocab));
    EXPECT_EQ(result.tokens[i], greatest - row) << i;
  }
}

TEST_F(EngineTest, ASequenceWithoutFiniteLogitsFailsAlone) {
  // One token's embedding is not finite: whoever has it in the prompt cannot be sampled.
  std::vector<float> flat = model::LivelyWeights(shape_, 3);
  constexpr std::int32_t kPoison = 11;
  for (const auto& info : model::ParameterList(shape_)) {
    if (info.name != "model.embed_tokens.weight") continue;
    flat[info.offset + static_cast<std::size_t>(kPoison * shape_.width)] = INFINITY;
  }
  const auto poisoned = model::PackedModel::Make(shape_, flat, kPoison, false);  // id not drawn
  Engine engine(shape_, {4, 512, 0});
  engine.SetWeights(poisoned, kVersion);
  GenerationRequest bad = Request(1, 5, 9), good = Request(2, 5, 9);
  for (GenerationRequest* request : {&bad, &good}) {
    for (std::int32_t& token : request->prompt) token %= kPoison;
  }
  bad.prompt[2] = kPoison;
  ASSERT_TRUE(engine.Submit(bad).ok());
  ASSERT_TRUE(engine.Submit(good).ok());
  Results results;
  Drain(engine, results);
  EXPECT_EQ(results.at(bad.id).finish, FinishReason::kError);
  EXPECT_EQ(results.at(bad.id).logprobs.size(), 0u);
  EXPECT_NE(results.at(bad.id).error.find("position 5"), std::string::npos);
  EXPECT_EQ(results.at(good.id).finish, FinishReason::kLength);
}

using EngineDeathTest = EngineTest;

TEST_F(EngineDeathTest, SwappingWeightsUnderARunningSequenceIsABug) {
  Engine engine = NewEngine();
  ASSERT_TRUE(engine.Submit(Request(1, 10, 5)).ok());
  EXPECT_DEATH(engine.SetWeights(weights_, {0, 6}), "swapped while sequences run");
}

}  // namespace
}  // namespace thresher::actor
