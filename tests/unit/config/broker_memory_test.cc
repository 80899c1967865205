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

TEST(BrokerMemory, WithoutAJournalItHoldsWhatNoCheckpointHas) {
  const std::vector<std::string> small = {
      "journal.mode=off", "checkpoint.every=3", "broker.lookahead_steps=2", "supervised.batch=10",
      "rl.groups=4",      "rl.group_size=5",    "rl.dynamic_sampling=true", "rl.max_rounds=2"};
  const Config config = With(small);
  // Twice three steps of the larger kind (one checkpoint is being written while the learner comes
  // to the next), three supervised ones under way, and two rounds of a step.
  EXPECT_EQ(KeptBytes(config), (6u * 20 + 3 * 10 + 2 * 20) * LargestTrajectoryBytes(config));
  std::vector<std::string> waiting = small;
  waiting.push_back("checkpoint.background=false");
  EXPECT_EQ(KeptBytes(With(waiting)), (3u * 20 + 3 * 10 + 2 * 20) * LargestTrajectoryBytes(config));
  const BrokerMemory memory = PlanBrokerMemory(config);
  EXPECT_EQ(memory.cache, KeptBytes(config));
  EXPECT_EQ(memory.credit + memory.cache + memory.frames, memory.budget);
  EXPECT_GE(memory.credit, 3 * LargestTrajectoryBytes(config));
  EXPECT_GE(memory.frames, 4ull * static_cast<std::uint64_t>(config.broker.max_message_bytes));
  const Config endless =
      With({"journal.mode=off", "checkpoint.every=100000000", "rl.groups=1024",
            "rl.group_size=1024", "model.context=65536", "learner.micro_batch_tokens=65536"});
  EXPECT_GT(LeastBrokerMemory(endless), std::uint64_t{1} << 62) << "nor does it wrap around";
}

}  // namespace
}  // namespace thresher
