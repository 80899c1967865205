#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/shared_bytes.h"
#include "common/base/status.h"
#include "common/wire/messages.h"

namespace thresher::broker {

// Whether a manifest can be pulled at all: sizes, counts and limits agree.
// Error: kInvalidArgument naming the field, its value and what is allowed.
Status CheckManifest(const wire::WeightsManifest& manifest, std::size_t max_message_bytes);

// One transfer of published weights, pulled chunk by chunk with a window. Every chunk is checked on
// arrival, the whole at the end. A chunk that does not come is asked for again. Plain data; time is
// passed in. Holds in memory what has come.
class WeightPull {
 public:
  // `manifest` passed CheckManifest.
  WeightPull(wire::WeightsManifest manifest, std::uint32_t window, Duration retry_after);

  // Chunks to ask for now; each counts as asked for at `now`.
  std::vector<wire::ChunkGet> Wanted(TimePoint now);
  // Stores a chunk. Errors: kInvalidArgument (other version, index or size), kDataLoss (its hash);
  // after either it is asked for again. A chunk received before is ignored.
  Status Take(const wire::Chunk& chunk);
  bool complete() const { return received_ == manifest_.chunk_hashes.size(); }
  // The whole blob, when complete (checked). Error: kDataLoss when its hash is not the manifest's.
  Result<std::string> Blob() const;
  const wire::WeightsManifest& manifest() const { return manifest_; }

 private:
  wire::WeightsManifest manifest_;
  std::uint32_t window_;
  Duration retry_after_;
  std::vector<SharedBytes> chunks_;  // empty: not there yet
  std::size_t received_ = 0;
  std::uint32_t next_ = 0;                        // first chunk never asked for
  std::map<std::uint32_t, TimePoint> in_flight_;  // asked for, and when
};

}  // namespace thresher::broker
