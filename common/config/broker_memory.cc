#include "common/config/broker_memory.h"

#include <algorithm>

namespace thresher {
namespace {

constexpr std::uint64_t kUsualBudget = 256u << 20;
// Shares of the budget, in quarters: credit 1, cache 2, frames 1.
constexpr std::uint64_t kQuarters = 4;
// Of the largest message: one that is received, one decoded, one answered, one on its way out.
constexpr std::uint64_t kFrames = 4;

}  // namespace

std::uint64_t LargestTrajectoryBytes(const Config& c) {
  constexpr std::uint64_t kFixed = 16 << 10;        // ids, hashes, spans, outcome, frame
  constexpr std::uint64_t kTextBytesPerToken = 16;  // longest piece of text of one token
  constexpr std::uint64_t kTokenBytes = 4 + 4 + 4;  // id, log-probability, kept mass
  return kFixed + static_cast<std::uint64_t>(c.model.context) * (kTokenBytes + kTextBytesPerToken);
}

std::uint64_t KeptBytes(const Config& c) {
  auto count = [](int n) { return static_cast<std::uint64_t>(std::max(0, n)); };
  const std::uint64_t supervised = c.supervised.steps > 0 ? count(c.supervised.batch) : 0;
  const std::uint64_t rl = c.rl.steps > 0 ? count(c.rl.groups) * count(c.rl.group_size) : 0;
  const std::uint64_t rounds = c.rl.dynamic_sampling ? count(c.rl.max_rounds) : 1;
  // The learner waits for the answer to a checkpoint before it trains on; or, where one is written
  // in the background, before it makes the next.
  const std::uint64_t steps = count(c.checkpoint.every) * (c.checkpoint.background ? 2 : 1);
  const std::uint64_t samples = steps * std::max(supervised, rl) +
                                (count(c.broker.lookahead_steps) + 1) * supervised + rounds * rl;
  constexpr std::uint64_t kMost = std::uint64_t{1} << 62;  // sums of it are still whole
  const std::uint64_t largest = LargestTrajectoryBytes(c);
  return samples > kMost / largest ? kMost : samples * largest;
}

std::uint64_t LeastBrokerMemory(const Config& c) {
  const std::uint64_t largest = LargestTrajectoryBytes(c);
  const auto actors = static_cast<std::uint64_t>(c.actors.count) + 1;
  if (c.journal.off()) {
    const auto frames = kFrames * static_cast<std::uint64_t>(c.broker.max_message_bytes);
    return KeptBytes(c) + 2 * std::max(actors * largest, frames);
  }
  const auto group = static_cast<std::uint64_t>(c.rl.steps > 0 ? c.rl.group_size : 1);
  const auto message = static_cast<std::uint64_t>(c.broker.max_message_bytes);
  return std::max({kQuarters * actors * largest, kQuarters / 2 * group * largest,
                   kQuarters * kFrames * message});
}

BrokerMemory PlanBrokerMemory(const Config& c) {
  BrokerMemory memory;
  memory.budget = c.broker.memory_bytes > 0 ? c.broker.memory_bytes
                                            : std::max(kUsualBudget, LeastBrokerMemory(c));
  if (c.journal.off()) {
    memory.cache = KeptBytes(c);
    memory.credit = (memory.budget - memory.cache) / 2;
  } else {
    memory.credit = memory.budget / kQuarters;
    memory.cache = memory.budget / 2;
  }
  memory.frames = memory.budget - memory.credit - memory.cache;
  return memory;
}

}  // namespace thresher
