#include "actor/outbox.h"

#include <algorithm>
#include <utility>

namespace thresher::actor {

Outbox::Outbox(Poster post, RefusalHandler on_refused, Limits limits, PrefixHandler on_prefix)
    : post_(std::move(post)),
      on_refused_(std::move(on_refused)),
      on_prefix_(std::move(on_prefix)),
      limits_(limits) {}

void Outbox::Add(FencingToken fence, SharedBytes record, TimePoint now, std::uint32_t tokens) {
  record_bytes_ += record.size();
  records_.push_back({fence, std::move(record), now, tokens});
  ++unaccepted_;
  unaccepted_tokens_ += tokens;
  Send(now, /*everything=*/false);
}

void Outbox::AddPrefix(const TrajectoryId& id, FencingToken fence, std::uint32_t tokens,
                       SharedBytes record) {
  Prefix prefix{id, fence, tokens, std::move(record)};
  const auto shorter = std::ranges::find(prefixes_, id, &Prefix::id);
  if (shorter != prefixes_.end()) {
    *shorter = std::move(prefix);  // in its turn
  } else {
    prefixes_.push_back(std::move(prefix));
  }
}

void Outbox::DropPrefix(const TrajectoryId& id) {
  std::erase_if(prefixes_, [&](const Prefix& prefix) { return prefix.id == id; });
}

void Outbox::Send(TimePoint now, bool everything) {
  blocked_ = !SendWaiting(now);
  auto due = [&] {
    return records_.size() >= limits_.records || record_bytes_ > limits_.bytes ||
           (everything && !records_.empty());
  };
  while (!blocked_ && due()) blocked_ = !SendNew(now);
}

bool Outbox::SendWaiting(TimePoint now) {
  for (auto it = pending_.end(); credit_.bytes > 0 && it != pending_.begin();) {
    const auto upload = --it;
    if (upload->second.waits && upload->second.bytes > credit_.bytes) it = TakeApart(upload);
  }
  return SendWaiting(/*prefixes=*/false, now);
}

bool Outbox::SendWaiting(bool prefixes, TimePoint now) {
  for (auto& [number, pending] : pending_) {
    if (!pending.waits || pending.prefixes.empty() == prefixes) continue;
    if (!Allows(pending.bytes)) return false;
    PostUpload(pending, now);
  }
  return true;
}

void Outbox::SendPrefixes(TimePoint now) {
  if (blocked_ || !SendWaiting(/*prefixes=*/true, now)) return;
  while (!prefixes_.empty() && Allows(prefixes_.front().bytes.size())) {
    Pending pending;
    while (!prefixes_.empty() && pending.prefixes.size() < limits_.records) {
      Prefix& prefix = prefixes_.front();
      const std::size_t bytes = pending.bytes + prefix.bytes.size();
      const bool first = pending.prefixes.empty();
      if (!Allows(bytes) || (!first && bytes > limits_.bytes)) break;
      pending.bytes = bytes;
      pending.upload.fences.push_back(prefix.fence);
      pending.upload.records.push_back(std::exchange(prefix.bytes, {}));
      pending.prefixes.push_back(std::move(prefix));
      prefixes_.pop_front();
    }
    ++prefix_uploads_;
    pending.upload.upload = next_upload_++;
    PostUpload(pending_[pending.upload.upload] = std::move(pending), now);
  }
}

bool Outbox::SendNew(TimePoint now) {
  Pending pending;
  while (!records_.empty() && pending.upload.records.size() < limits_.records) {
    const std::size_t bytes = pending.bytes + records_.front().bytes.size();
    const bool first = pending.upload.records.empty();
    if (!Allows(bytes) || (!first && bytes > limits_.bytes)) break;
    pending.bytes = bytes;
    pending.upload.fences.push_back(records_.front().fence);
    pending.upload.records.push_back(std::move(records_.front().bytes));
    pending.tokens.push_back(records_.front().tokens);
    pending.again |= records_.front().again;
    records_.pop_front();
  }
  if (pending.upload.records.empty()) return false;
  record_bytes_ -= pending.bytes;
  pending.upload.upload = next_upload_++;
  PostUpload(pending_[pending.upload.upload] = std::move(pending), now);
  return true;
}

void Outbox::PostUpload(Pending& pending, TimePoint now) {
  pending.waits = false;
  pending.sent = now;
  unanswered_bytes_ += pending.bytes;
  post_(pending.upload);
}

Outbox::Uploads::iterator Outbox::TakeApart(Uploads::iterator upload) {
  Pending& pending = upload->second;
  for (std::size_t i = pending.prefixes.size(); i-- > 0;) {
    Prefix& prefix = pending.prefixes[i];
    const bool newer =
        std::ranges::any_of(prefixes_, [&](const Prefix& other) { return other.id == prefix.id; });
    if (newer) continue;
    prefix.bytes = std::move(pending.upload.records[i]);
    prefixes_.push_front(std::move(prefix));
  }
  if (!pending.prefixes.empty()) {
    --prefix_uploads_;
    return pending_.erase(upload);
  }
  for (std::size_t i = pending.upload.records.size(); i-- > 0;) {
    records_.push_front({pending.upload.fences[i], std::move(pending.upload.records[i]),
                         pending.sent, pending.tokens[i], pending.again || pending.answered});
  }
  record_bytes_ += pending.bytes;
  if (pending.answered) {
    unaccepted_ += pending.upload.records.size();
    for (std::uint32_t tokens : pending.tokens) unaccepted_tokens_ += tokens;
  }
  return pending_.erase(upload);
}

void Outbox::Tick(TimePoint now, bool flush) {
  Send(now, flush || (!records_.empty() && now - records_.front().since >= limits_.age));
  for (auto& [number, pending] : pending_) {
    if (pending.waits || now - pending.sent < limits_.retry) continue;
    pending.sent = now;
    pending.again = true;
    post_(pending.upload);
  }
  SendPrefixes(now);
}

void Outbox::OnCredit(const wire::Credit& credit, TimePoint now) {
  if (credit.number <= credit_.number) return;
  credit_ = credit;
  Send(now, /*everything=*/false);
}

std::size_t Outbox::OnAck(const wire::UploadAck& ack) {
  auto found = pending_.find(ack.upload);
  if (found == pending_.end()) return 0;
  Pending& pending = found->second;
  const std::size_t settled = pending.upload.records.size();
  if (ack.verdicts.empty() && !pending.waits) {
    pending.waits = true;
    unanswered_bytes_ -= pending.bytes;
  }
  if (ack.verdicts.size() != settled) return 0;
  Settle(pending, ack);
  if (!pending.waits) unanswered_bytes_ -= pending.bytes;
  const bool taken = pending.prefixes.empty() &&
                     std::ranges::any_of(ack.verdicts, [](wire::UploadVerdict verdict) {
                       return verdict == wire::UploadVerdict::kAccepted ||
                              verdict == wire::UploadVerdict::kDuplicate;
                     });
  if (taken && keep_) {
    kept_bytes_ += pending.bytes;
    kept_.insert(pending_.extract(found));
  } else {
    pending_.erase(found);
  }
  return settled;
}

void Outbox::Settle(const Pending& pending, const wire::UploadAck& ack) {
  if (!pending.prefixes.empty()) --prefix_uploads_;
  for (std::size_t i = 0; i < ack.verdicts.size(); ++i) {
    const bool taken = ack.verdicts[i] == wire::UploadVerdict::kAccepted ||
                       ack.verdicts[i] == wire::UploadVerdict::kDuplicate;
    if (!pending.prefixes.empty()) {
      if (on_prefix_) on_prefix_(pending.prefixes[i].id, pending.prefixes[i].tokens, taken);
    } else if (!taken && !pending.answered) {
      on_refused_(ack.verdicts[i], i < ack.reasons.size() ? ack.reasons[i] : "");
    }
  }
  if (!pending.prefixes.empty() || pending.answered) return;
  unaccepted_ -= ack.verdicts.size();
  for (std::size_t i = 0; i < pending.tokens.size(); ++i) {
    unaccepted_tokens_ -= pending.tokens[i];
    const bool copy = ack.verdicts[i] == wire::UploadVerdict::kDuplicate && !pending.again;
    if (copy) duplicate_tokens_ += pending.tokens[i];
  }
}

void Outbox::OnConsumed(const wire::Consumed& consumed) {
  for (std::uint64_t upload : consumed.uploads) {
    if (auto kept = kept_.find(upload); kept != kept_.end()) {
      kept_bytes_ -= kept->second.bytes;
      kept_.erase(kept);
    } else if (auto again = pending_.find(upload); again != pending_.end()) {
      if (again->second.waits && again->second.answered) pending_.erase(again);
    }
  }
}

void Outbox::OnEpoch(BrokerEpoch epoch, bool keep_until_consumed) {
  keep_ = keep_until_consumed;
  if (std::exchange(epoch_, epoch) == epoch) return;
  for (auto& [number, kept] : kept_) kept.waits = kept.answered = true;
  pending_.merge(kept_);
  kept_bytes_ = 0;
}

std::vector<std::uint64_t> Outbox::Kept() const {
  std::vector<std::uint64_t> uploads;
  for (const auto& [number, kept] : kept_) {
    if (uploads.size() == wire::Heartbeat::kMostKeptTold) break;
    uploads.push_back(number);
  }
  return uploads;
}

void Outbox::ResendAll(const wire::Credit& credit, TimePoint now) {
  credit_ = credit;
  unanswered_bytes_ = 0;
  for (auto& [number, pending] : pending_) {
    pending.again |= !pending.waits;
    pending.waits = true;
  }
  Send(now, /*everything=*/false);
}

std::uint64_t Outbox::UnsentTokens() const {
  std::uint64_t tokens = 0;
  for (const Record& record : records_) tokens += record.again ? 0 : record.tokens;
  for (const auto& [number, pending] : pending_) {
    if (!pending.waits || pending.again || pending.answered) continue;
    for (std::uint32_t of_record : pending.tokens) tokens += of_record;
  }
  return tokens;
}

std::set<FencingToken> Outbox::Fences() const {
  std::set<FencingToken> fences;
  for (const Record& record : records_) fences.insert(record.fence);
  for (const auto& [number, pending] : pending_) {
    fences.insert(pending.upload.fences.begin(), pending.upload.fences.end());
  }
  return fences;
}

wire::Credit Outbox::Obeyed() const {
  return {credit_.number, std::max<std::uint64_t>(credit_.bytes, unanswered_bytes_)};
}

}  // namespace thresher::actor
