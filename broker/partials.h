#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "broker/sample_map.h"
#include "common/base/hash.h"
#include "common/base/ids.h"
#include "common/base/shared_bytes.h"
#include "common/data/record_log.h"

namespace thresher::broker {

// What is kept of unfinished samples: of each the longest prefix that came, and where it lies in
// `partials/`. A shorter one that is written stays on the disk until a longer one is. A prefix is a
// shortcut, never a fact of the run: the ledger knows nothing of it, and without it the sample is
// generated from its prompt. Whoever drew it, with the same numerics it has the same bits, so it is
// taken from anybody; what other numerics made takes the place of a longer one, for it comes from
// somebody who could not go on with that. Bytes are held until they are written, then their place
// alone: about 200 bytes a sample. Plain data, one owner.
class Partials {
 public:
  struct Prefix {
    std::uint32_t tokens = 0;  // generated
    Hash128 numerics{};        // Trajectory::run_identity
  };
  struct Kept : Prefix {
    std::size_t bytes = 0;
    SharedBytes unwritten{};   // empty: it lies at `place`
    LogPosition place{};       // of it, or of a shorter one; segment 0: of none
    std::uint64_t number = 0;  // of the write that is to tell its place
  };
  // A write that is done.
  struct Written {
    TrajectoryId id;
    std::uint64_t number = 0;
    LogPosition place;
  };

  // Whether it is longer than what is kept, or of other numerics.
  bool Wants(const TrajectoryId& id, const Prefix& prefix) const;
  // To be written, as the number that is returned.
  std::uint64_t Put(const TrajectoryId& id, const Prefix& prefix, SharedBytes bytes);
  // Written by an earlier process, in the order of the log: that it was taken says that it was
  // wanted, or that it is the same one again.
  void Adopt(const TrajectoryId& id, const Prefix& prefix, std::size_t bytes, LogPosition place);
  // One that was dropped since is ignored; one that was replaced stays until the later one is
  // written.
  void NoteWritten(std::span<const Written> written);
  // The sample is accepted or dropped, or its prefix cannot be read.
  void Drop(const TrajectoryId& id);
  // Null: none.
  const Kept* Find(const TrajectoryId& id) const { return kept_.Find(id); }

  std::size_t size() const { return kept_.size(); }
  std::uint64_t bytes() const { return bytes_; }    // of all, wherever they lie
  std::uint64_t tokens() const { return tokens_; }  // of all
  // The oldest segment that somebody needs; nothing: none is written.
  std::optional<std::uint32_t> OldestSegment() const;
  // Whose prefix lies there, ascending, at most so many.
  std::vector<TrajectoryId> In(std::uint32_t segment, std::size_t most) const;

 private:
  void Place(const TrajectoryId& id, Kept& kept, LogPosition place);
  void Displace(const TrajectoryId& id, const Kept& kept);
  void Count(Kept& kept, const Prefix& prefix, std::size_t bytes);

  SampleMap<Kept> kept_;
  std::map<std::uint32_t, std::set<TrajectoryId>> segments_;  // who lies where
  std::uint64_t bytes_ = 0, tokens_ = 0;
  std::uint64_t next_number_ = 1;
};

}  // namespace thresher::broker
