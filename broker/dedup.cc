#include "broker/dedup.h"

namespace thresher::broker {

Dedup::Verdict Dedup::Judge(const TrajectoryId& id, const Hash128& content_hash) const {
  const First* first = first_.Find(id);
  if (first == nullptr) return Forgotten(id) ? Verdict::kDuplicate : Verdict::kNew;
  return first->content_hash == content_hash ? Verdict::kDuplicate : Verdict::kConflict;
}

void Dedup::Remember(const TrajectoryId& id, const Hash128& content_hash, std::uint32_t actor) {
  THRESHER_CHECK(!Forgotten(id), "accepted when forgotten: " + id.ToString());
  bool inserted = first_.Insert(id, {content_hash, actor}).second;
  THRESHER_CHECK(inserted, "accepted twice: " + id.ToString());
  ++accepted_;
}

void Dedup::Forget(Stream stream, std::uint16_t island, std::uint64_t first_item,
                   std::uint64_t items) {
  for (std::uint64_t i = 0; i < items; ++i) first_.EraseGroup({stream, island, first_item + i});
  forgotten_[{stream, island}].Insert(first_item, first_item + items);
}

std::optional<Dedup::First> Dedup::Find(const TrajectoryId& id) const {
  const First* first = first_.Find(id);
  return first == nullptr ? std::nullopt : std::optional(*first);
}

std::vector<TrajectoryId> Dedup::Remembered() const {
  std::vector<TrajectoryId> ids;
  first_.ForEach([&](const TrajectoryId& id, const First&) { ids.push_back(id); });
  return ids;
}

bool Dedup::Forgotten(const TrajectoryId& id) const {
  auto items = forgotten_.find({id.stream, id.island});
  return items != forgotten_.end() && items->second.Contains(id.item);
}

}  // namespace thresher::broker
