#include "broker/dedup.h"

#include <gtest/gtest.h>

#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

TEST(Dedup, TellsCopiesFromConflicts) {
  Dedup dedup;
  const TrajectoryId id = Id(Stream::kTrain, 3, 1);
  EXPECT_EQ(dedup.Judge(id, H("a")), Dedup::Verdict::kNew);
  dedup.Remember(id, H("a"), 7);
  EXPECT_EQ(dedup.Judge(id, H("a")), Dedup::Verdict::kDuplicate);
  EXPECT_EQ(dedup.Judge(id, H("b")), Dedup::Verdict::kConflict);
  EXPECT_EQ(dedup.Find(id)->actor, 7u);
  EXPECT_EQ(dedup.Judge(Id(Stream::kTrain, 3, 2), H("a")), Dedup::Verdict::kNew);
}

TEST(Dedup, AForgottenSampleIsADuplicateWhateverItHolds) {
  Dedup dedup;
  dedup.Remember(Id(Stream::kTrain, 3, 1), H("a"), 7);
  dedup.Forget(Stream::kTrain, 0, 2, 2);
  EXPECT_EQ(dedup.Judge(Id(Stream::kTrain, 3, 1), H("b")), Dedup::Verdict::kDuplicate);
  EXPECT_EQ(dedup.Judge(Id(Stream::kTrain, 2, 0), H("b")), Dedup::Verdict::kDuplicate)
      << "dropped then";
  EXPECT_FALSE(dedup.Find(Id(Stream::kTrain, 3, 1)));
  EXPECT_EQ(dedup.Judge(Id(Stream::kTrain, 4, 0), H("a")), Dedup::Verdict::kNew);
  EXPECT_EQ(dedup.Judge(Id(Stream::kSupervised, 3, 1), H("a")), Dedup::Verdict::kNew);
  EXPECT_EQ(dedup.accepted(), 1u);
}

TEST(Dedup, MonthsOfSamplesTakeNoMoreRoomThanOneStep) {
  Dedup dedup;
  for (std::uint64_t item = 0; item < 100000; ++item) {
    dedup.Remember(Id(Stream::kTrain, item), H("x"), 0);
    if (item % 100 == 99) dedup.Forget(Stream::kTrain, 0, item - 99, 100);
    ASSERT_LE(dedup.remembered(), 100u);
  }
  EXPECT_EQ(dedup.accepted(), 100000u);
}

}  // namespace
}  // namespace thresher::broker
