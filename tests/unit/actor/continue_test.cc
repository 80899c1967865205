// Sequences that somebody else began: their records are those of uninterrupted ones.
#include <gtest/gtest.h>

#include "tests/unit/actor/engine_testing.h"

namespace thresher::actor {
namespace {

GeneratedPrefix PrefixOf(const GenerationResult& so_far) {
  return {{so_far.tokens.begin() + static_cast<std::ptrdiff_t>(so_far.prompt_tokens),
           so_far.tokens.end()},
          so_far.logprobs,
          so_far.kept_mass_logprobs,
          so_far.versions,
          so_far.kv_history};
}

void ExpectEqual(const GenerationResult& a, const GenerationResult& b) {
  EXPECT_EQ(a.tokens, b.tokens) << a.id.ToString();
  EXPECT_EQ(a.prompt_tokens, b.prompt_tokens);
  EXPECT_EQ(a.logprobs, b.logprobs) << a.id.ToString();
  EXPECT_EQ(a.kept_mass_logprobs, b.kept_mass_logprobs);
  EXPECT_EQ(a.versions, b.versions);
  EXPECT_EQ(a.kv_history, b.kv_history);
  EXPECT_EQ(a.finish, b.finish);
  EXPECT_EQ(a.stop_string, b.stop_string);
}

class ContinueTest : public EngineTest {
 protected:
  // As in Mixed, and what has a memory of the tokens before: a penalty, stop strings.
  std::vector<GenerationRequest> Requests() const {
    std::vector<GenerationRequest> requests = Mixed();
    requests[0].sampling.repetition_penalty = 1.8f;
    requests[2].sampling.top_k = 7;
    requests[4].sampling.top_p = 0.8f;
    requests[5].sampling.min_p = 0.02f;
    requests[5].sampling.repetition_penalty = 1.3f;
    requests[4].stop_strings = {"ab", "abcd"};
    requests[4].decode = [](std::int32_t token) {
      return std::string(1, static_cast<char>('a' + token % 5));
    };
    return requests;
  }
  static Results Finish(Engine& engine, Results results = {}) {
    while (engine.load() > 0) {
      for (GenerationResult& result : StepOf(engine)) results[result.id] = std::move(result);
    }
    return results;
  }
};

TEST_F(ContinueTest, ASequenceBrokenOffAnywhereGoesOnElsewhereAsIfItHadNotBeen) {
  Engine undisturbed = NewEngine();
  for (const GenerationRequest& request : Requests()) ASSERT_TRUE(undisturbed.Submit(request).ok());
  const Results expected = Finish(undisturbed);
  for (int steps : {1, 2, 3, 7, 16, 17, 30, 50, 69}) {
    Engine first = NewEngine({.max_batch = 8, .prefill_chunk = 64});
    for (const GenerationRequest& request : Requests()) ASSERT_TRUE(first.Submit(request).ok());
    Results results;
    for (int i = 0; i < steps; ++i) {
      for (GenerationResult& result : StepOf(first)) results[result.id] = std::move(result);
    }
    Engine second = NewEngine({.max_batch = 3, .prefill_chunk = 9});
    std::uint64_t recomputed = 0;
    for (GenerationRequest request : Requests()) {
      if (results.contains(request.id)) continue;
      if (const auto so_far = first.SoFar(request.id)) {
        EXPECT_EQ(so_far->finish, FinishReason::kCancelled);
        request.prefix = PrefixOf(*so_far);
        recomputed += so_far->tokens.size() - 1;
      }
      const Status submitted = second.Submit(request);
      ASSERT_TRUE(submitted.ok()) << submitted.ToString();
    }
    results = Finish(second, std::move(results));
    EXPECT_LE(second.counters().recomputed_tokens, recomputed);
    ASSERT_EQ(results.size(), expected.size());
    for (const auto& [id, result] : expected) {
      SCOPED_TRACE("after " + std::to_string(steps) + " steps");
      ExpectEqual(results.at(id), result);
    }
  }
}

TEST_F(ContinueTest, ASequenceIsContinuedAgainAndAgain) {
  const GenerationRequest request = Requests()[0];
  Engine undisturbed = NewEngine();
  ASSERT_TRUE(undisturbed.Submit(request).ok());
  const Results expected = Finish(undisturbed);
  GeneratedPrefix prefix;
  Results results;
  while (results.empty()) {
    Engine engine = NewEngine();
    GenerationRequest next = request;
    next.prefix = prefix;
    ASSERT_TRUE(engine.Submit(next).ok());
    for (int i = 0; i < 3 && results.empty(); ++i) {
      for (GenerationResult& result : StepOf(engine)) results[result.id] = std::move(result);
    }
    if (const auto so_far = engine.SoFar(request.id)) prefix = PrefixOf(*so_far);
  }
  ExpectEqual(results.at(request.id), expected.at(request.id));
}

TEST_F(ContinueTest, OtherWeightsGoOnInSpansOfTheirOwn) {
  const GenerationRequest request = Request(3, 20, 40);
  Engine first = NewEngine();
  ASSERT_TRUE(first.Submit(request).ok());
  for (int i = 0; i < 10; ++i) StepOf(first);
  GenerationRequest continued = request;
  continued.prefix = PrefixOf(first.SoFar(request.id).value());
  const auto sampled = static_cast<std::uint32_t>(continued.prefix.tokens.size());
  Engine second(shape_, EngineOptions{});
  const PolicyVersion newer{0, 6};
  ASSERT_TRUE(second.SetWeights(weights_, newer).ok());
  ASSERT_TRUE(second.Submit(continued).ok());
  const GenerationResult result = Finish(second).at(request.id);
  EXPECT_EQ(result.versions,
            (std::vector<VersionSpan>{{20, 20 + sampled, kVersion}, {20 + sampled, 60, newer}}));
  EXPECT_EQ(result.kv_history, (std::vector<KvSpan>{{0, 19 + sampled, kVersion, false},
                                                    {0, 19 + sampled, newer, true},
                                                    {19 + sampled, 59, newer, false}}));
}

TEST_F(ContinueTest, WhatCannotBeContinuedIsRefused) {
  Engine engine = NewEngine();
  const GenerationRequest request = Requests()[2];
  ASSERT_TRUE(engine.Submit(request).ok());
  for (int i = 0; i < 12; ++i) StepOf(engine);
  const GeneratedPrefix good = PrefixOf(engine.SoFar(request.id).value());
  auto refused = [&](auto&& change) {
    GenerationRequest other = request;
    other.prefix = good;
    change(other);
    Engine another = NewEngine();
    return another.Submit(other).code() == StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](GenerationRequest&) {}));
  EXPECT_TRUE(refused([](GenerationRequest& r) { r.prefix.logprobs.pop_back(); }));
  EXPECT_TRUE(refused([](GenerationRequest& r) { r.prefix.kept_mass_logprobs.pop_back(); }));
  EXPECT_TRUE(refused([](GenerationRequest& r) { r.prefix.versions.clear(); }));
  EXPECT_TRUE(refused([](GenerationRequest& r) { r.prefix.kv_history.front().begin = 1; }));
  EXPECT_TRUE(refused([](GenerationRequest& r) { ++r.prefix.kv_history.front().end; }));
  EXPECT_TRUE(refused([](GenerationRequest& r) { r.prefix.tokens[0] = -1; }));
  EXPECT_TRUE(refused([](GenerationRequest& r) { r.prefix.tokens.clear(); }));
  EXPECT_TRUE(refused([](GenerationRequest& r) { r.stop_tokens = {r.prefix.tokens.back()}; }));
  EXPECT_TRUE(refused([](GenerationRequest& r) { r.top_logprobs = 2; }));
  EXPECT_TRUE(refused([](GenerationRequest& r) {
    r.sampling.max_new_tokens = static_cast<std::uint32_t>(r.prefix.tokens.size());
  }));
  EXPECT_TRUE(refused([](GenerationRequest& r) {
    r.stop_strings = {"a"};
    r.decode = [](std::int32_t) { return std::string("a"); };
  }));
}

TEST_F(ContinueTest, ThereIsNothingOfASequenceThatHasNoToken) {
  Engine engine = NewEngine();
  const GenerationRequest request = Request(3, 90, 40);
  EXPECT_FALSE(engine.SoFar(request.id).has_value());
  ASSERT_TRUE(engine.Submit(request).ok());
  EXPECT_FALSE(engine.SoFar(request.id).has_value());
}

}  // namespace
}  // namespace thresher::actor
