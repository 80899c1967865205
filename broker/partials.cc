#include "broker/partials.h"

#include <utility>

namespace thresher::broker {

bool Partials::Wants(const TrajectoryId& id, const Prefix& prefix) const {
  const Kept* kept = Find(id);
  if (kept == nullptr) return prefix.tokens > 0;
  return prefix.tokens > kept->tokens || prefix.numerics != kept->numerics;
}

void Partials::Place(const TrajectoryId& id, Kept& kept, LogPosition place) {
  Displace(id, kept);
  kept.place = place;
  segments_[place.segment].insert(id);
}

void Partials::Displace(const TrajectoryId& id, const Kept& kept) {
  auto segment = segments_.find(kept.place.segment);
  if (segment == segments_.end()) return;
  segment->second.erase(id);
  if (segment->second.empty()) segments_.erase(segment);
}

void Partials::Count(Kept& kept, const Prefix& prefix, std::size_t bytes) {
  bytes_ = bytes_ - kept.bytes + bytes;
  tokens_ = tokens_ - kept.tokens + prefix.tokens;
  kept.bytes = bytes;
  static_cast<Prefix&>(kept) = prefix;
}

std::uint64_t Partials::Put(const TrajectoryId& id, const Prefix& prefix, SharedBytes bytes) {
  Kept& kept = kept_[id];
  Count(kept, prefix, bytes.size());
  kept.unwritten = std::move(bytes);
  return kept.number = next_number_++;
}

void Partials::Adopt(const TrajectoryId& id, const Prefix& prefix, std::size_t bytes,
                     LogPosition place) {
  Kept& kept = kept_[id];
  Count(kept, prefix, bytes);
  Place(id, kept, place);
}

void Partials::NoteWritten(std::span<const Written> written) {
  for (const Written& write : written) {
    Kept* kept = kept_.Find(write.id);
    if (kept == nullptr || write.number > kept->number) continue;
    if (write.number == kept->number) kept->unwritten = {};
    Place(write.id, *kept, write.place);
  }
}

void Partials::Drop(const TrajectoryId& id) {
  const std::optional<Kept> kept = kept_.Take(id);
  if (!kept) return;
  Displace(id, *kept);
  bytes_ -= kept->bytes;
  tokens_ -= kept->tokens;
}

std::optional<std::uint32_t> Partials::OldestSegment() const {
  if (segments_.empty()) return std::nullopt;
  return segments_.begin()->first;
}

std::vector<TrajectoryId> Partials::In(std::uint32_t segment, std::size_t most) const {
  std::vector<TrajectoryId> ids;
  auto found = segments_.find(segment);
  if (found == segments_.end()) return ids;
  for (const TrajectoryId& id : found->second) {
    if (ids.size() == most) break;
    ids.push_back(id);
  }
  return ids;
}

}  // namespace thresher::broker
