// Pages, preemption, sharing, cancellation and counters, seen from outside the engine.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/actor/engine_testing.h"

namespace thresher::actor {
namespace {

TEST_F(EngineTest, CancelAllGivesThePagesBack) {
  Engine engine = NewEngine({8, 512, 20});
  for (std::uint64_t round = 0; round < 5; ++round) {
    for (std::uint64_t i = 1; i <= 4; ++i) {
      ASSERT_TRUE(engine.Submit(Request(10 * round + i, 100, 40)).ok());
    }
    for (int step = 0; step < 3; ++step) (void)StepOf(engine);
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
  EXPECT_TRUE(engine.SetWeights(other, {0, 6}).ok());
  EXPECT_EQ(engine.counters().pages_retained, 0u);
  ASSERT_TRUE(engine.Submit(request).ok());
  Drain(engine, after);
  EXPECT_EQ(engine.counters().prefix_hits, 0u);
  Engine fresh(shape_, {});
  EXPECT_TRUE(fresh.SetWeights(other, {0, 6}).ok());
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
  (void)StepOf(engine);
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

TEST_F(EngineTest, ACancelledSequenceIsReturnedAsFarAsItCame) {
  const GenerationRequest cut = Request(1, 10, 50), queued = Request(2, 10, 50),
                          other = Request(3, 10, 50);
  Engine engine = NewEngine({2, 512, 0});
  for (const auto& request : {cut, other, queued}) ASSERT_TRUE(engine.Submit(request).ok());
  for (int step = 0; step < 7; ++step) (void)StepOf(engine);
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

}  // namespace
}  // namespace thresher::actor
