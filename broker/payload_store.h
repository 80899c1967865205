#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "broker/sample_map.h"
#include "common/base/ids.h"
#include "common/base/shared_bytes.h"
#include "common/base/status.h"
#include "common/data/trajectory_store.h"

namespace thresher::broker {

// The bytes of accepted training trajectories, for serving batches: a cache of bounded size over
// `trajectories/`. Batches are asked for in the order of their issue, so what came first stays:
// where there is no room what was trained already leaves, and then what comes is not kept but read
// back from the files. Bytes are kept as they came, as slices of a received frame; the cache counts
// whole frames, for that is what it keeps in memory, and Settle copies slices out of those of which
// little is needed. One owner, not thread-safe.
class PayloadStore {
 public:
  // Whether what is put may lie in no file: until it does it is kept, whatever there is room for.
  // Whoever puts it bounds it.
  enum class Holds { kCopies, kOriginals };

  PayloadStore(std::filesystem::path folder, std::size_t max_bytes, Holds holds = Holds::kCopies)
      : folder_(std::move(folder)), max_bytes_(max_bytes), holds_(holds) {}

  // Accepted now; not in the files yet.
  void Put(const TrajectoryId& id, SharedBytes bytes);
  // Put, or read from the files, and not released.
  bool Has(const TrajectoryId& id) const { return known_.Contains(id); }
  // Stored by an earlier process, and may be asked for.
  void Adopt(const std::vector<TrajectoryStoreReader::Entry>& places);
  // Written since, of what was put or not.
  void NoteStored(const std::vector<TrajectoryStoreReader::Entry>& entries);
  // Trained: it will be asked for again only when a learner falls back.
  void Spend(const TrajectoryId& id);
  // Hardly ever will it be asked for again (durable, or dropped).
  void Release(const TrajectoryId& id);
  // The bytes of each, in this order. Errors: kNotFound (never put, or not written yet and not in
  // the cache), kDataLoss.
  Result<std::vector<SharedBytes>> Get(std::span<const TrajectoryId> ids);
  // Their sizes; needs the files only for what an earlier process stored. Errors as Get.
  Result<std::vector<std::size_t>> Sizes(std::span<const TrajectoryId> ids);
  // Afterwards at least half of what is kept in memory is needed. Now and then: each byte is
  // copied once at most.
  void Settle();

  // In memory on behalf of the cache: of every owner of cached bytes the whole.
  std::size_t cached_bytes() const { return cached_bytes_; }
  std::size_t max_bytes() const { return max_bytes_; }
  // Trajectories.
  std::uint64_t reads_from_disk() const { return reads_from_disk_; }

 private:
  // Of a trajectory that is not released.
  struct Known {
    std::size_t bytes = 0;                 // 0: adopted, and not read yet
    SharedBytes cached{};                  // empty: not
    TrajectoryStoreReader::Entry place{};  // segment 0: not written yet
    bool spent = false;
    bool stored() const { return place.position.segment > 0; }
  };
  struct Owner {
    std::size_t bytes = 0;
    std::size_t needed = 0;         // of these by cached slices
    std::vector<TrajectoryId> ids;  // ever cached of it
  };
  void Hold(const TrajectoryId& id, const SharedBytes& bytes);
  void LetGo(const SharedBytes& bytes);
  // Into the cache, if there is room or can be made.
  void Keep(const TrajectoryId& id, Known& known, SharedBytes bytes);
  void Drop(Known& known);
  Result<TrajectoryStoreReader::Entry> PlaceOf(const TrajectoryId& id);
  // From the files; keeps what there is room for.
  Result<std::vector<SharedBytes>> Read(const std::vector<TrajectoryStoreReader::Entry>& places);
  // Must `known` stay in memory?
  bool IsOriginal(const Known& known) const {
    return holds_ == Holds::kOriginals && !known.stored();
  }
  // Finds what was released.
  Result<const TrajectoryStoreReader*> Reader();

  std::filesystem::path folder_;
  std::size_t max_bytes_;
  Holds holds_;
  std::size_t cached_bytes_ = 0;
  std::uint64_t reads_from_disk_ = 0;
  SampleMap<Known> known_;
  std::deque<TrajectoryId> spent_;  // oldest first; may be known no more
  std::unordered_map<const void*, Owner> owners_;
  std::vector<const void*> changed_;  // owners since Settle; may be gone
  std::unique_ptr<TrajectoryStoreReader> reader_;
};

}  // namespace thresher::broker
