#pragma once

#include <cmath>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/random.h"
#include "common/comm/communicator.h"
#include "common/comm/nccl_hello.h"

namespace thresher::comm::testing {

using Group = std::vector<std::unique_ptr<Communicator>>;

template <typename AnyGroup, typename Body>
void OnAllRanks(AnyGroup& group, Body body) {
  std::vector<std::jthread> threads;
  for (auto& comm : group) threads.emplace_back([&comm, &body] { body(*comm); });
}

// Values whose sum depends on the order: magnitudes from 2^-20 to 2^20, both signs.
inline std::vector<float> HardValues(std::uint32_t rank, std::size_t count) {
  TrajectoryId id;
  id.sample = rank;
  RandomSequence random(7, id, RandomPurpose::kBootstrap);
  std::vector<float> values(count);
  for (float& v : values) {
    v = std::ldexp(static_cast<float>(random.NextUniform() - 0.5),
                   static_cast<int>(random.Between(-20, 20)));
  }
  return values;
}

// (0+1)+(2+3), ... on one rank.
inline std::vector<float> PairwiseSum(std::vector<std::vector<float>> parts) {
  for (std::size_t step = 1; step < parts.size(); step *= 2) {
    for (std::size_t i = 0; i < parts.size(); i += 2 * step) {
      for (std::size_t k = 0; k < parts[i].size(); ++k) parts[i][k] += parts[i + step][k];
    }
  }
  return parts[0];
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// A place where the ranks of one process leave their hellos.
class MeetingPlace {
 public:
  explicit MeetingPlace(std::uint32_t size) : hellos_(size) {}
  GatherStrings Gather(LearnerRank rank) {
    return [this, rank](const std::string& mine) -> Result<std::vector<std::string>> {
      std::unique_lock lock(mutex_);
      hellos_[rank.value] = mine;
      ++present_;
      changed_.notify_all();
      changed_.wait(lock, [this] { return present_ == hellos_.size(); });
      return hellos_;
    };
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> hellos_;
  std::size_t present_ = 0;
};

}  // namespace thresher::comm::testing
