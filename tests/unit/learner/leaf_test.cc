#include "learner/leaf.h"

#include <gtest/gtest.h>

namespace thresher::learner {
namespace {

using Bytes = std::vector<std::uint8_t>;

TEST(PrepareSequence, ShiftsEveryTokenToTheRowThatPredictsIt) {
  Trajectory t;
  t.id.item = 4;
  t.actor = ActorId(9);
  t.tokens = {10, 11, 12, 13, 14};
  t.segments = {{0, 2, Role::kPrompt, false}, {2, 5, Role::kPolicy, true}};
  t.logprobs = {-1, -2, -3};
  t.sampling.temperature = 0.7f;
  const TrainSequence s = PrepareSequence(t, 1.5f);
  EXPECT_EQ(s.tokens, t.tokens);
  EXPECT_EQ(s.in_loss, (Bytes{0, 1, 1, 1}));  // row 1 predicts token 2, the first of the policy
  EXPECT_EQ(s.has_behaviour, (Bytes{0, 1, 1, 1}));
  EXPECT_EQ(s.behaviour_logprob, (std::vector<float>{0, -1, -2, -3}));
  EXPECT_EQ(s.temperature, 0.7f);
  EXPECT_EQ(s.advantage, 1.5f);
  EXPECT_EQ(s.actor, 9u);
  EXPECT_EQ(s.id, t.id);
}

TEST(PrepareSequence, LogprobsFollowThePolicyThroughItsTurns) {
  // prompt | policy | tool | policy outside the loss | policy
  Trajectory t;
  t.tokens = {1, 2, 3, 4, 5, 6, 7, 8};
  t.segments = {{0, 1, Role::kPrompt, false},
                {1, 3, Role::kPolicy, true},
                {3, 5, Role::kTool, false},
                {5, 6, Role::kPolicy, false},
                {6, 8, Role::kPolicy, true}};
  t.logprobs = {-1, -2, -3, -4, -5};
  const TrainSequence s = PrepareSequence(t, 0);
  EXPECT_EQ(s.in_loss, (Bytes{1, 1, 0, 0, 0, 1, 1}));
  EXPECT_EQ(s.has_behaviour, (Bytes{1, 1, 0, 0, 1, 1, 1}));
  EXPECT_EQ(s.behaviour_logprob, (std::vector<float>{-1, -2, 0, 0, -3, -4, -5}));
}

TEST(PrepareSequence, ATraceWithoutLogprobsIsTrainedOnButHasNoBehaviour) {
  Trajectory t;
  t.tokens = {1, 2, 3, 4};
  t.segments = {{0, 2, Role::kPrompt, false}, {2, 4, Role::kPolicy, true}};
  const TrainSequence s = PrepareSequence(t, 0);
  EXPECT_EQ(s.in_loss, (Bytes{0, 1, 1}));
  EXPECT_EQ(s.has_behaviour, (Bytes{0, 0, 0}));
}

TEST(PrepareSequence, APolicyTokenThatNothingPredictsTakesItsLogprobAlong) {
  // Without a prompt the first token has a logprob and no row: the others must not slip.
  Trajectory t;
  t.tokens = {1, 2, 3};
  t.segments = {{0, 3, Role::kPolicy, true}};
  t.logprobs = {-1, -2, -3};
  const TrainSequence s = PrepareSequence(t, 0);
  EXPECT_EQ(s.behaviour_logprob, (std::vector<float>{-2, -3}));
  EXPECT_EQ(s.in_loss, (Bytes{1, 1}));
}

TEST(PrepareSequenceDeathTest, OneTokenIsNothingToTrainOn) {
  Trajectory t;
  t.tokens = {1};
  t.segments = {{0, 1, Role::kPolicy, true}};
  EXPECT_DEATH((void)PrepareSequence(t, 0), "too short");
}

std::vector<TrainSequence> OfRows(const std::vector<std::size_t>& rows) {
  std::vector<TrainSequence> out;
  for (std::size_t n : rows) out.emplace_back().in_loss.assign(n, 1);
  return out;
}

TEST(CutMicroBatches, TilesTheSequencesInOrderWithinTheBudget) {
  const std::vector<std::size_t> rows = {3, 4, 3, 9, 1, 1, 10, 12, 2};
  for (std::size_t budget : {1u, 3u, 7u, 10u, 11u, 1000u}) {
    std::size_t next = 0;
    for (const MicroBatch& part : CutMicroBatches(OfRows(rows), budget)) {
      EXPECT_EQ(part.begin, next);
      ASSERT_GT(part.end, part.begin);
      std::size_t sum = 0;
      for (std::size_t s = part.begin; s < part.end; ++s) sum += rows[s];
      EXPECT_EQ(part.rows, sum);
      EXPECT_TRUE(sum <= budget || part.end == part.begin + 1) << budget;
      next = part.end;
    }
    EXPECT_EQ(next, rows.size());
  }
}

TEST(CutMicroBatches, FillsEachPartAsFarAsItGoes) {
  const auto parts = CutMicroBatches(OfRows({3, 4, 3, 9, 1}), 10);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].rows, 10u);
  EXPECT_EQ(parts[1].rows, 10u);
  EXPECT_TRUE(CutMicroBatches({}, 10).empty());
}

TEST(LeafStats, AddUpAndKeepTheExtremes) {
  LeafStats a, b, sum;
  a.loss = 1, a.clipped_low = 2, a.loss_tokens = 3, a.ratio_min = 0.5, a.ratio_max = 1.5;
  a.mismatched_tokens = 2, a.mismatches_by_actor = {{1, 2}};
  b.loss = 10, b.clipped_low = 20, b.loss_tokens = 30, b.ratio_min = 0.7, b.ratio_max = 3;
  b.mismatched_tokens = 5, b.mismatches_by_actor = {{1, 1}, {4, 4}};
  sum.Add(a);
  sum.Add(b);
  sum.Add(LeafStats());  // an empty leaf changes nothing
  EXPECT_EQ(sum.loss, 11);
  EXPECT_EQ(sum.clipped_low, 22);
  EXPECT_EQ(sum.loss_tokens, 33u);
  EXPECT_EQ(sum.ratio_min, 0.5);
  EXPECT_EQ(sum.ratio_max, 3);
  EXPECT_EQ(sum.mismatched_tokens, 7u);
  EXPECT_EQ(sum.mismatches_by_actor, (std::map<std::uint32_t, std::uint64_t>{{1, 3}, {4, 4}}));
}

}  // namespace
}  // namespace thresher::learner
