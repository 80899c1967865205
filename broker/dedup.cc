#include "broker/dedup.h"

namespace thresher::broker {

Dedup::Verdict Dedup::Judge(const TrajectoryId& id, const Hash128& content_hash) const {
  auto found = first_.find(id);
  if (found == first_.end()) return Verdict::kNew;
  return found->second.content_hash == content_hash ? Verdict::kDuplicate : Verdict::kConflict;
}

void Dedup::Remember(const TrajectoryId& id, const Hash128& content_hash, std::uint32_t actor) {
  bool inserted = first_.try_emplace(id, First{content_hash, actor}).second;
  THRESHER_CHECK(inserted, "accepted twice: " + id.ToString());
}

std::optional<Dedup::First> Dedup::Find(const TrajectoryId& id) const {
  auto found = first_.find(id);
  if (found == first_.end()) return std::nullopt;
  return found->second;
}

}  // namespace thresher::broker
