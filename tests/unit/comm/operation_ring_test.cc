#include "common/comm/operation_ring.h"

#include <gtest/gtest.h>

namespace thresher::comm {
namespace {

using namespace std::chrono_literals;

OperationRing::Entry Operation(std::uint64_t sequence, std::vector<std::uint32_t> peers) {
  OperationRing::Entry entry;
  entry.sequence = sequence;
  entry.what = "exchange 'gradients'";
  entry.sent_bytes = 8;
  entry.received_bytes = 4;
  entry.peers = std::move(peers);
  return entry;
}

TEST(OperationRingTest, LinesTellHowFarEachOperationCame) {
  ManualClock clock;
  clock.Advance(1s);
  OperationRing ring;
  ring.Post(Operation(1, {0, 2}), clock.Now());
  clock.Advance(1ms);
  ring.Start(clock.Now());
  clock.Advance(2ms);
  ring.End(true, clock.Now());
  ring.Post(Operation(2, {}), clock.Now());
  ring.End(false, clock.Now());
  ring.Post(Operation(3, {1}), clock.Now());
  clock.Advance(500ms);
  EXPECT_EQ(ring.Lines(clock.Now()),
            (std::vector<std::string>{
                "#1 exchange 'gradients' 8 B out, 4 B in, ranks 0, 2: done, started after 1.0 ms, "
                "3.0 ms",
                "#2 exchange 'gradients' 8 B out, 4 B in, ranks none: failed, 0.0 ms",
                "#3 exchange 'gradients' 8 B out, 4 B in, ranks 1: posted, 500.0 ms so far"}));
}

TEST(OperationRingTest, TheOldestIsForgotten) {
  OperationRing ring(3);
  for (std::uint64_t i = 1; i <= 5; ++i) {
    ring.Post(Operation(i, {}), TimePoint{} + 1s);
    ring.End(true, TimePoint{} + 2s);
  }
  ASSERT_EQ(ring.entries().size(), 3u);
  EXPECT_EQ(ring.entries().front().sequence, 3u);
  EXPECT_EQ(ring.entries().back().sequence, 5u);
}

TEST(OperationRingDeathTest, AnEndWithoutABeginningIsABug) {
  OperationRing ring;
  EXPECT_DEATH(ring.End(true, TimePoint{}), "check failed");
}

}  // namespace
}  // namespace thresher::comm
