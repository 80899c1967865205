#include "broker/dedup.h"

namespace thresher::broker {

Dedup::Verdict Dedup::Judge(const TrajectoryId& id, const Hash128& content_hash) const {
  auto found = first_.find(id);
  if (found == first_.end()) return Forgotten(id) ? Verdict::kDuplicate : Verdict::kNew;
  return found->second.content_hash == content_hash ? Verdict::kDuplicate : Verdict::kConflict;
}

void Dedup::Remember(const TrajectoryId& id, const Hash128& content_hash, std::uint32_t actor) {
  THRESHER_CHECK(!Forgotten(id), "accepted when forgotten: " + id.ToString());
  bool inserted = first_.try_emplace(id, First{content_hash, actor}).second;
  THRESHER_CHECK(inserted, "accepted twice: " + id.ToString());
  ++accepted_;
}

void Dedup::Forget(Stream stream, std::uint16_t island, std::uint64_t first_item,
                   std::uint64_t items, std::uint32_t samples) {
  for (std::uint64_t item = first_item; item < first_item + items; ++item) {
    for (std::uint32_t sample = 0; sample < samples; ++sample) {
      first_.erase({stream, island, item, sample});
    }
  }
  forgotten_[{stream, island}].Insert(first_item, first_item + items);
}

std::optional<Dedup::First> Dedup::Find(const TrajectoryId& id) const {
  auto found = first_.find(id);
  if (found == first_.end()) return std::nullopt;
  return found->second;
}

std::vector<TrajectoryId> Dedup::Remembered() const {
  std::vector<TrajectoryId> ids;
  for (const auto& [id, first] : first_) ids.push_back(id);
  return ids;
}

bool Dedup::Forgotten(const TrajectoryId& id) const {
  auto items = forgotten_.find({id.stream, id.island});
  return items != forgotten_.end() && items->second.Contains(id.item);
}

}  // namespace thresher::broker
