// How sequences end and how their tokens are sampled and reported.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "tests/unit/actor/engine_testing.h"

namespace thresher::actor {
namespace {

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
  EXPECT_TRUE(engine.SetWeights(poisoned, kVersion).ok());
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

TEST_F(EngineTest, StreamsWhatItSamples) {
  const std::vector<GenerationRequest> requests = Mixed();
  Engine engine = NewEngine({3, 20, 0});
  for (const auto& request : requests) ASSERT_TRUE(engine.Submit(request).ok());
  std::map<TrajectoryId, std::vector<std::int32_t>> tokens;
  std::map<TrajectoryId, std::vector<float>> logprobs;
  Results results;
  while (engine.load() > 0) {
    const std::vector<GenerationResult> finished = StepOf(engine);
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

}  // namespace
}  // namespace thresher::actor
