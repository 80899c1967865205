#pragma once

#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "common/base/ids.h"
#include "common/base/shared_bytes.h"
#include "common/base/status.h"
#include "common/data/trajectory_store.h"

namespace thresher::broker {

// The bytes of accepted training trajectories, for serving batches: a cache of bounded size over
// `trajectories/`. What does not fit is read back from the files. Bytes are kept as they came, as
// slices of a received frame; the cache counts whole frames, for that is what it keeps in memory,
// and Settle copies slices out of those of which little is needed. One owner, not thread-safe.
class PayloadStore {
 public:
  PayloadStore(std::filesystem::path folder, std::size_t max_bytes)
      : folder_(std::move(folder)), max_bytes_(max_bytes) {}

  // Keeps the bytes; those kept longest make room.
  void Put(const TrajectoryId& id, SharedBytes bytes);
  // The bytes will not be asked for again soon (durable, or dropped).
  void Release(const TrajectoryId& id);
  // Errors: kNotFound (never stored), kDataLoss.
  Result<SharedBytes> Get(const TrajectoryId& id);
  // Afterwards at least half of what is kept in memory is needed. Now and then: each byte is
  // copied once at most.
  void Settle();

  // In memory on behalf of the cache: of every owner of cached bytes the whole.
  std::size_t cached_bytes() const { return cached_bytes_; }
  std::size_t max_bytes() const { return max_bytes_; }
  std::uint64_t reads_from_disk() const { return reads_from_disk_; }

 private:
  struct Cached {
    SharedBytes bytes;
    std::list<TrajectoryId>::iterator age;
  };
  struct Owner {
    std::size_t bytes = 0;
    std::size_t needed = 0;         // of these by cached slices
    std::vector<TrajectoryId> ids;  // ever cached of it
  };
  void Hold(const TrajectoryId& id, const SharedBytes& bytes);
  void LetGo(const SharedBytes& bytes);

  std::filesystem::path folder_;
  std::size_t max_bytes_;
  std::size_t cached_bytes_ = 0;
  std::uint64_t reads_from_disk_ = 0;
  std::list<TrajectoryId> oldest_first_;
  std::unordered_map<TrajectoryId, Cached> cache_;
  std::unordered_map<const void*, Owner> owners_;
  std::vector<const void*> changed_;               // owners since Settle; may be gone
  std::unique_ptr<TrajectoryStoreReader> reader_;  // reopened when it lacks a record
};

}  // namespace thresher::broker
