#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/wire/messages.h"

namespace thresher::actor {

// Pulls one published version chunk by chunk with a bounded window and checks every chunk and the
// whole. Pure: messages go out through `post`, time comes in. A lost answer is asked for again
// after `retry`. One owner, not thread-safe.
class WeightReceiver {
 public:
  using Poster = std::function<void(const wire::Message&)>;
  WeightReceiver(Poster post, std::uint32_t window, Duration retry = std::chrono::seconds(2));

  // Begins to pull `manifest` unless it is being pulled already; a newer one replaces an older.
  // Error: kInvalidArgument (its chunks do not add up to its bytes); nothing changes then.
  Status Begin(const wire::WeightsManifest& manifest, TimePoint now);
  // Pulls that version no longer: nobody has it.
  void Abandon(PolicyVersion version);
  bool busy() const { return manifest_.has_value(); }
  const std::optional<wire::WeightsManifest>& manifest() const { return manifest_; }
  // A chunk of another version or out of range is ignored; a damaged one is asked for again.
  void OnChunk(const wire::Chunk& chunk, TimePoint now);
  // Asks again for what is overdue, or for everything outstanding after a reconnect.
  void Tick(TimePoint now);
  void Restart(TimePoint now);
  // The whole blob once it is complete and its hash matches; then idle again. A blob whose hash
  // does not match is dropped and pulled anew.
  std::optional<std::string> TakeComplete(TimePoint now);
  std::uint64_t damaged_chunks() const { return damaged_chunks_; }

 private:
  enum class ChunkState : std::uint8_t { kMissing, kAsked, kHere };
  void AskMore(TimePoint now);
  std::size_t ChunkSize(std::uint32_t index) const;

  Poster post_;
  std::uint32_t window_;
  Duration retry_;
  std::optional<wire::WeightsManifest> manifest_;
  std::string blob_;
  std::vector<ChunkState> chunks_;
  std::uint32_t asked_ = 0;
  std::uint32_t here_ = 0;
  TimePoint last_progress_{};
  std::uint64_t damaged_chunks_ = 0;
};

}  // namespace thresher::actor
