#include "actor/outbox.h"

#include <utility>

namespace thresher::actor {

Outbox::Outbox(Poster post, RefusalHandler on_refused, Limits limits)
    : post_(std::move(post)), on_refused_(std::move(on_refused)), limits_(limits) {}

void Outbox::Add(FencingToken fence, SharedBytes record, TimePoint now) {
  if (!open_.records.empty() && open_bytes_ + record.size() > limits_.bytes) SendOpen(now);
  if (open_.records.empty()) open_since_ = now;
  open_bytes_ += record.size();
  open_.fences.push_back(fence);
  open_.records.push_back(std::move(record));
  ++unaccepted_;
  if (open_.records.size() >= limits_.records) SendOpen(now);
}

void Outbox::SendOpen(TimePoint now) {
  if (open_.records.empty()) return;
  const std::uint64_t number = next_upload_++;
  open_.upload = number;
  post_(open_);
  pending_[number] = {std::exchange(open_, {}), now};
  open_bytes_ = 0;
}

void Outbox::Tick(TimePoint now, bool flush) {
  if (flush || (!open_.records.empty() && now - open_since_ >= limits_.age)) SendOpen(now);
  for (auto& [number, pending] : pending_) {
    if (now - pending.sent < limits_.retry) continue;
    pending.sent = now;
    post_(pending.upload);
  }
}

std::size_t Outbox::OnAck(const wire::UploadAck& ack) {
  auto found = pending_.find(ack.upload);
  if (found == pending_.end()) return 0;
  if (ack.verdicts.size() != found->second.upload.records.size()) return 0;
  for (std::size_t i = 0; i < ack.verdicts.size(); ++i) {
    if (ack.verdicts[i] == wire::UploadVerdict::kAccepted ||
        ack.verdicts[i] == wire::UploadVerdict::kDuplicate) {
      continue;
    }
    on_refused_(ack.verdicts[i], i < ack.reasons.size() ? ack.reasons[i] : "");
  }
  std::size_t settled = found->second.upload.records.size();
  unaccepted_ -= settled;
  pending_.erase(found);
  return settled;
}

void Outbox::ResendAll(TimePoint now) {
  for (auto& [number, pending] : pending_) {
    pending.sent = now;
    post_(pending.upload);
  }
}

}  // namespace thresher::actor
