#include "broker/payload_store.h"

#include <map>
#include <utility>

namespace thresher::broker {

void PayloadStore::Hold(const TrajectoryId& id, const SharedBytes& bytes) {
  auto [entry, added] = owners_.try_emplace(bytes.owner());
  Owner& owner = entry->second;
  if (added) {
    owner.bytes = bytes.owner_bytes();
    cached_bytes_ += owner.bytes;
  }
  if (changed_.empty() || changed_.back() != bytes.owner()) changed_.push_back(bytes.owner());
  owner.needed += bytes.size();
  owner.ids.push_back(id);
}

void PayloadStore::LetGo(const SharedBytes& bytes) {
  auto found = owners_.find(bytes.owner());
  found->second.needed -= bytes.size();
  if (found->second.needed == 0) {
    cached_bytes_ -= found->second.bytes;
    owners_.erase(found);
  } else if (changed_.empty() || changed_.back() != bytes.owner()) {
    changed_.push_back(bytes.owner());
  }
}

void PayloadStore::Drop(Known& known) {
  if (known.cached.empty()) return;
  LetGo(known.cached);
  known.cached = {};
}

void PayloadStore::Keep(const TrajectoryId& id, Known& known, SharedBytes bytes) {
  if (known.spent) return;
  const std::size_t more = owners_.contains(bytes.owner()) ? 0 : bytes.owner_bytes();
  while (cached_bytes_ + more > max_bytes_ && !spent_.empty()) {
    Known* oldest = known_.Find(spent_.front());
    spent_.pop_front();
    if (oldest != nullptr && !IsOriginal(*oldest)) Drop(*oldest);
  }
  if (cached_bytes_ + more > max_bytes_ && !IsOriginal(known)) return;
  Hold(id, bytes);
  known.cached = std::move(bytes);
}

void PayloadStore::Put(const TrajectoryId& id, SharedBytes bytes) {
  Release(id);
  if (bytes.empty()) return;
  Known& known = known_[id];
  known.bytes = bytes.size();
  Keep(id, known, std::move(bytes));
}

void PayloadStore::Adopt(const std::vector<TrajectoryStoreReader::Entry>& places) {
  for (const TrajectoryStoreReader::Entry& place : places) known_[place.id].place = place;
}

void PayloadStore::NoteStored(const std::vector<TrajectoryStoreReader::Entry>& entries) {
  for (const TrajectoryStoreReader::Entry& entry : entries) {
    if (Known* known = known_.Find(entry.id)) known->place = entry;
  }
}

void PayloadStore::Spend(const TrajectoryId& id) {
  Known* known = known_.Find(id);
  if (known == nullptr || std::exchange(known->spent, true)) return;
  spent_.push_back(id);
}

void PayloadStore::Release(const TrajectoryId& id) {
  Known* known = known_.Find(id);
  if (known == nullptr) return;
  Drop(*known);
  known_.Erase(id);
  while (!spent_.empty() && !known_.Contains(spent_.front())) spent_.pop_front();
}

void PayloadStore::Settle() {
  for (const void* name : std::exchange(changed_, {})) {
    auto found = owners_.find(name);
    if (found == owners_.end() || 2 * found->second.needed >= found->second.bytes) continue;
    for (const TrajectoryId& id : std::exchange(found->second.ids, {})) {
      Known* known = known_.Find(id);
      if (known == nullptr || known->cached.empty()) continue;
      SharedBytes& cached = known->cached;
      if (cached.owner() != name) continue;
      const SharedBytes whole = std::exchange(cached, cached.Copy());
      Hold(id, cached);
      LetGo(whole);
    }
  }
  changed_.clear();  // copies are as large as they need to be
}

Result<const TrajectoryStoreReader*> PayloadStore::Reader() {
  if (reader_ == nullptr) {
    THRESHER_ASSIGN_OR_RETURN(reader_, TrajectoryStoreReader::Open(folder_));
  }
  return reader_.get();
}

Result<TrajectoryStoreReader::Entry> PayloadStore::PlaceOf(const TrajectoryId& id) {
  if (const Known* known = known_.Find(id)) {
    if (known->stored()) return known->place;
    return NotFound(id.ToString() + " is not written yet");
  }
  THRESHER_ASSIGN_OR_RETURN(const TrajectoryStoreReader* reader, Reader());
  Result<TrajectoryStoreReader::Entry> place = reader->Find(id);
  if (place.status().code() != StatusCode::kNotFound) return place;
  reader_.reset();  // it was opened before this one was stored, and has been released since
  THRESHER_ASSIGN_OR_RETURN(reader, Reader());
  return reader->Find(id);
}

Result<std::vector<SharedBytes>> PayloadStore::Read(
    const std::vector<TrajectoryStoreReader::Entry>& places) {
  THRESHER_ASSIGN_OR_RETURN(std::vector<std::string> read, ReadTrajectories(folder_, places));
  reads_from_disk_ += read.size();
  std::vector<SharedBytes> bytes;
  for (std::size_t i = 0; i < read.size(); ++i) {
    bytes.emplace_back(std::move(read[i]));
    Known& known = known_[places[i].id];
    known.bytes = bytes.back().size();
    known.place = places[i];
    Keep(places[i].id, known, bytes.back());
  }
  return bytes;
}

Result<std::vector<SharedBytes>> PayloadStore::Get(std::span<const TrajectoryId> ids) {
  std::vector<SharedBytes> bytes(ids.size());
  std::vector<TrajectoryStoreReader::Entry> places;
  std::vector<std::size_t> missing;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Known* known = known_.Find(ids[i]);
    if (known != nullptr && !known->cached.empty()) {
      bytes[i] = known->cached;
      continue;
    }
    THRESHER_ASSIGN_OR_RETURN(places.emplace_back(), PlaceOf(ids[i]));
    missing.push_back(i);
  }
  if (missing.empty()) return bytes;
  THRESHER_ASSIGN_OR_RETURN(const std::vector<SharedBytes> read, Read(places));
  for (std::size_t i = 0; i < missing.size(); ++i) bytes[missing[i]] = read[i];
  return bytes;
}

// A block at a time: a leaf may be larger than memory.
Result<std::vector<std::size_t>> PayloadStore::Sizes(std::span<const TrajectoryId> ids) {
  std::map<LogPosition, std::vector<TrajectoryStoreReader::Entry>> unknown;
  for (const TrajectoryId& id : ids) {
    const Known* known = known_.Find(id);
    if (known != nullptr && known->bytes > 0) continue;
    THRESHER_ASSIGN_OR_RETURN(const TrajectoryStoreReader::Entry place, PlaceOf(id));
    unknown[place.position].push_back(place);
  }
  for (const auto& [position, places] : unknown) {
    THRESHER_RETURN_IF_ERROR(Read(places).status());
  }
  std::vector<std::size_t> sizes;
  for (const TrajectoryId& id : ids) sizes.push_back(known_.Find(id)->bytes);
  return sizes;
}

}  // namespace thresher::broker
