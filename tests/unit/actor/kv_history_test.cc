#include "actor/engine/kv_history.h"

#include <gtest/gtest.h>

namespace thresher::actor {
namespace {

constexpr PolicyVersion kOld{0, 1}, kNew{0, 2};
using Spans = std::vector<KvSpan>;

TEST(KvHistory, ConsecutiveWritesOfAVersionAreOneSpan) {
  KvHistory history;
  history.Wrote(0, 10, kOld);
  history.Wrote(10, 11, kOld);
  history.Wrote(11, 11, kOld);
  EXPECT_EQ(history.spans(), (Spans{{0, 11, kOld, false}}));
  history.Wrote(11, 14, kNew);  // weights swapped, the cache kept
  EXPECT_EQ(history.spans(), (Spans{{0, 11, kOld, false}, {11, 14, kNew, false}}));
}

TEST(KvHistory, ARecomputationByTheSameVersionIsInvisible) {
  KvHistory history;
  history.Wrote(0, 20, kOld);
  history.Wrote(0, 7, kOld);
  history.Wrote(7, 25, kOld);
  EXPECT_EQ(history.spans(), (Spans{{0, 25, kOld, false}}));
}

TEST(KvHistory, ARecomputationByAnotherVersionIsRecorded) {
  KvHistory history;
  history.Wrote(0, 20, kOld);
  history.Wrote(0, 12, kNew);  // preempted, swapped, computed again in two chunks
  history.Wrote(12, 21, kNew);
  EXPECT_EQ(history.spans(),
            (Spans{{0, 20, kOld, false}, {0, 20, kNew, true}, {20, 21, kNew, false}}));
  history.Wrote(0, 21, kNew);  // once more under the same weights
  EXPECT_EQ(history.spans().size(), 3u);
}

TEST(KvHistory, OnlyPositionsOfOtherVersionsAreRecomputed) {
  KvHistory history;
  history.Wrote(0, 10, kOld);
  history.Wrote(10, 20, kNew);
  history.Wrote(0, 20, kNew);
  EXPECT_EQ(history.spans(),
            (Spans{{0, 10, kOld, false}, {10, 20, kNew, false}, {0, 10, kNew, true}}));
}

TEST(KvHistoryDeathTest, AGapIsABug) {
  KvHistory history;
  history.Wrote(0, 10, kOld);
  EXPECT_DEATH(history.Wrote(11, 12, kOld), "gap");
}

TEST(AppendSampled, TokensOfAVersionAreOneSpan) {
  std::vector<VersionSpan> spans;
  for (std::uint32_t p : {5, 6}) AppendSampled(p, kOld, spans);
  AppendSampled(7, kNew, spans);
  EXPECT_EQ(spans, (std::vector<VersionSpan>{{5, 7, kOld}, {7, 8, kNew}}));
}

}  // namespace
}  // namespace thresher::actor
