#include "broker/payload_store.h"

namespace thresher::broker {

void PayloadStore::Put(const TrajectoryId& id, Bytes bytes) {
  Release(id);
  oldest_first_.push_back(id);
  cached_bytes_ += bytes->size();
  cache_[id] = {std::move(bytes), std::prev(oldest_first_.end())};
  while (cached_bytes_ > max_bytes_ && !oldest_first_.empty()) {
    TrajectoryId oldest = oldest_first_.front();
    Release(oldest);
  }
}

void PayloadStore::Release(const TrajectoryId& id) {
  auto found = cache_.find(id);
  if (found == cache_.end()) return;
  cached_bytes_ -= found->second.bytes->size();
  oldest_first_.erase(found->second.age);
  cache_.erase(found);
}

Result<PayloadStore::Bytes> PayloadStore::Get(const TrajectoryId& id) {
  auto found = cache_.find(id);
  if (found != cache_.end()) return found->second.bytes;
  ++reads_from_disk_;
  if (reader_ == nullptr || !reader_->Find(id).ok()) {
    THRESHER_ASSIGN_OR_RETURN(reader_, TrajectoryStoreReader::Open(folder_));
  }
  THRESHER_ASSIGN_OR_RETURN(TrajectoryStoreReader::Entry entry, reader_->Find(id));
  THRESHER_ASSIGN_OR_RETURN(std::string bytes, reader_->Read(entry));
  auto shared = std::make_shared<const std::string>(std::move(bytes));
  Put(id, shared);
  return shared;
}

}  // namespace thresher::broker
