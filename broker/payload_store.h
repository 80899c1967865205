#pragma once

#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/data/trajectory_store.h"

namespace thresher::broker {

// The bytes of accepted training trajectories, for serving batches: a cache of bounded size over
// `trajectories/`. What does not fit is read back from the files. One owner, not thread-safe.
class PayloadStore {
 public:
  using Bytes = std::shared_ptr<const std::string>;

  PayloadStore(std::filesystem::path folder, std::size_t max_bytes)
      : folder_(std::move(folder)), max_bytes_(max_bytes) {}

  // Keeps the bytes; those kept longest make room.
  void Put(const TrajectoryId& id, Bytes bytes);
  // The bytes will not be asked for again soon (durable, or dropped).
  void Release(const TrajectoryId& id);
  // Errors: kNotFound (never stored), kDataLoss.
  Result<Bytes> Get(const TrajectoryId& id);

  std::size_t cached_bytes() const { return cached_bytes_; }
  std::size_t max_bytes() const { return max_bytes_; }
  std::uint64_t reads_from_disk() const { return reads_from_disk_; }

 private:
  struct Cached {
    Bytes bytes;
    std::list<TrajectoryId>::iterator age;
  };

  std::filesystem::path folder_;
  std::size_t max_bytes_;
  std::size_t cached_bytes_ = 0;
  std::uint64_t reads_from_disk_ = 0;
  std::list<TrajectoryId> oldest_first_;
  std::unordered_map<TrajectoryId, Cached> cache_;
  std::unique_ptr<TrajectoryStoreReader> reader_;  // reopened when it lacks a record
};

}  // namespace thresher::broker
