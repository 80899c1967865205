#include "broker/payload_store.h"

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

void PayloadStore::Put(const TrajectoryId& id, SharedBytes bytes) {
  Release(id);
  if (bytes.empty()) return;
  Hold(id, bytes);
  oldest_first_.push_back(id);
  cache_[id] = {std::move(bytes), std::prev(oldest_first_.end())};
  while (cached_bytes_ > max_bytes_ && !oldest_first_.empty()) {
    TrajectoryId oldest = oldest_first_.front();
    Release(oldest);
  }
}

void PayloadStore::Release(const TrajectoryId& id) {
  auto found = cache_.find(id);
  if (found == cache_.end()) return;
  LetGo(found->second.bytes);
  oldest_first_.erase(found->second.age);
  cache_.erase(found);
}

void PayloadStore::Settle() {
  for (const void* name : std::exchange(changed_, {})) {
    auto found = owners_.find(name);
    if (found == owners_.end() || 2 * found->second.needed >= found->second.bytes) continue;
    for (const TrajectoryId& id : std::exchange(found->second.ids, {})) {
      auto cached = cache_.find(id);
      if (cached == cache_.end() || cached->second.bytes.owner() != name) continue;
      const SharedBytes whole = std::exchange(cached->second.bytes, cached->second.bytes.Copy());
      Hold(id, cached->second.bytes);
      LetGo(whole);
    }
  }
  changed_.clear();  // copies are as large as they need to be
}

Result<SharedBytes> PayloadStore::Get(const TrajectoryId& id) {
  auto found = cache_.find(id);
  if (found != cache_.end()) return found->second.bytes;
  ++reads_from_disk_;
  if (reader_ == nullptr || !reader_->Find(id).ok()) {
    THRESHER_ASSIGN_OR_RETURN(reader_, TrajectoryStoreReader::Open(folder_));
  }
  THRESHER_ASSIGN_OR_RETURN(TrajectoryStoreReader::Entry entry, reader_->Find(id));
  THRESHER_ASSIGN_OR_RETURN(std::string bytes, reader_->Read(entry));
  SharedBytes shared(std::move(bytes));
  Put(id, shared);
  return shared;
}

}  // namespace thresher::broker
