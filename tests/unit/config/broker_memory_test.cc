#include "common/config/broker_memory.h"

#include <gtest/gtest.h>

namespace thresher {
namespace {

Config With(const std::vector<std::string>& overrides) {
  return ParseConfig("", "test", overrides);
}

TEST(BrokerMemory, IsSpentInFull) {
  const BrokerMemory memory = PlanBrokerMemory(With({"broker.memory_bytes=400000003"}));
  EXPECT_EQ(memory.budget, 400000003u);
  EXPECT_EQ(memory.credit + memory.cache + memory.frames, memory.budget);
  EXPECT_EQ(memory.cache, 200000001u);
}

TEST(BrokerMemory, TheDerivedOneIsEnough) {
  EXPECT_EQ(PlanBrokerMemory(With({})).budget, 256u << 20);
  const Config large = With({"model.context=131072", "learner.micro_batch_tokens=131072",
                             "actors.count=64", "rl.group_size=64"});
  const BrokerMemory memory = PlanBrokerMemory(large);
  EXPECT_GT(memory.budget, 256u << 20);
  EXPECT_GE(memory.credit, 65 * LargestTrajectoryBytes(large));
  EXPECT_GE(memory.cache, 64 * LargestTrajectoryBytes(large));
  EXPECT_GE(memory.frames, 4ull * static_cast<std::uint64_t>(large.broker.max_message_bytes));
  EXPECT_EQ(memory.budget, LeastBrokerMemory(large));
}

}  // namespace
}  // namespace thresher
