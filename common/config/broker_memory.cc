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

std::uint64_t LeastBrokerMemory(const Config& c) {
  const std::uint64_t largest = LargestTrajectoryBytes(c);
  const auto actors = static_cast<std::uint64_t>(c.actors.count) + 1;
  const auto group = static_cast<std::uint64_t>(c.rl.steps > 0 ? c.rl.group_size : 1);
  const auto message = static_cast<std::uint64_t>(c.broker.max_message_bytes);
  return std::max({kQuarters * actors * largest, kQuarters / 2 * group * largest,
                   kQuarters * kFrames * message});
}

BrokerMemory PlanBrokerMemory(const Config& c) {
  BrokerMemory memory;
  memory.budget = c.broker.memory_bytes > 0 ? c.broker.memory_bytes
                                            : std::max(kUsualBudget, LeastBrokerMemory(c));
  memory.credit = memory.budget / kQuarters;
  memory.cache = memory.budget / 2;
  memory.frames = memory.budget - memory.credit - memory.cache;
  return memory;
}

}  // namespace thresher
