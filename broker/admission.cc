#include "broker/admission.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace thresher::broker {
namespace {

// Of a credit that is not used meanwhile: it is told again with every heartbeat.
constexpr std::uint32_t kTurnTold = 3;
// Of a share, to begin with: of many that come at once the first would be told all there is.
constexpr std::uint64_t kFirstPart = 8;
// Heartbeats: an actor hears of a smaller credit with one and obeys with the next, unless it
// computes for long.
constexpr std::uint32_t kPatience = 5;

}  // namespace

std::uint64_t Admission::Share() const {
  return std::max(limits_.least_bytes, limits_.budget_bytes / (accounts_.size() - suspended_ + 1));
}

void Admission::Join(ActorId actor) {
  Leave(actor);
  accounts_[actor];
}

void Admission::Leave(ActorId actor) {
  auto found = accounts_.find(actor);
  if (found == accounts_.end()) return;
  TakeBack(actor, found->second);
  suspended_ -= found->second.suspended;
  std::erase(users_, actor);
  StopWaiting(found->second);
  accounts_.erase(found);
}

void Admission::TakeBack(ActorId actor, Account& account) {
  for (const auto& [number, upload] : account.uploads) left_.push_back({actor, number, upload});
  left_behind_ += account.in_use;
  reserved_ += account.in_use;
  Reserve(account, 0);
  told_ -= account.told;
  account.told = account.in_use = 0;
  account.uploads.clear();
}

void Admission::Suspend(ActorId actor) {
  auto found = accounts_.find(actor);
  if (found == accounts_.end() || found->second.suspended) return;
  Account& account = found->second;
  TakeBack(actor, account);
  account.number = ++numbers_;
  account.suspended = true;
  ++suspended_;
  std::erase(users_, actor);
  StopWaiting(account);
}

void Admission::Resume(ActorId actor) {
  auto found = accounts_.find(actor);
  if (found == accounts_.end() || !found->second.suspended) return;
  found->second.suspended = false;
  --suspended_;
}

void Admission::Reserve(Account& account, std::uint64_t bytes) {
  reserved_ += bytes;
  reserved_ -= account.reserved;
  account.reserved = bytes;
}

bool Admission::TurnIsOver(const Account& account) const {
  if (accounts_.size() * limits_.least_bytes <= limits_.budget_bytes) return false;
  // What was told less and is not yet obeyed comes back without anybody's turn being over.
  const std::uint64_t coming = Free() + (reserved_ - left_behind_ - told_);
  return account.told > 0 && account.told_times >= kTurnTold &&
         waiting_.size() * limits_.least_bytes > coming;
}

bool Admission::HasTurn(const Account& account) const {
  const std::uint64_t turns = Turns();
  if (account.ticket == 0) return turns > waiting_.size();
  auto waiting = waiting_.begin();
  for (std::uint64_t i = 0; i < turns && waiting != waiting_.end(); ++i, ++waiting) {
    if (waiting->first == account.ticket) return true;
  }
  return false;
}

std::vector<ActorId> Admission::InTurn() const {
  std::vector<ActorId> actors;
  for (const auto& [ticket, actor] : waiting_) {
    if (actors.size() >= Turns()) break;
    actors.push_back(actor);
  }
  return actors;
}

void Admission::StopWaiting(Account& account) { waiting_.erase(std::exchange(account.ticket, 0)); }

wire::Credit Admission::Tell(ActorId actor) {
  auto found = accounts_.find(actor);
  THRESHER_CHECK(found != accounts_.end(), "credit for an actor that has not joined");
  Account& account = found->second;
  if (account.suspended) return {account.number, 0};
  ++account.told_times;
  std::uint64_t bytes = 0;
  if (!TurnIsOver(account) && (account.told > 0 || HasTurn(account))) {
    const std::uint64_t share =
        account.told > 0 ? Share() : std::max(limits_.least_bytes, Share() / kFirstPart);
    bytes = std::min(share, Free() + account.reserved);
  }
  if (bytes > 0) {
    StopWaiting(account);
  } else if (account.ticket == 0) {
    account.ticket = ++tickets_;
    waiting_.emplace(account.ticket, actor);
  }
  if (bytes != account.told || account.number == 0) {
    if (account.told == 0) account.told_times = 0;
    told_ += bytes;
    told_ -= account.told;
    account.told = bytes;
    account.number = ++numbers_;
    account.unheeded = 0;
    Reserve(account, std::max(account.reserved, bytes));
  }
  return {account.number, account.told};
}

void Admission::NoteObeyed(ActorId actor, const wire::Credit& obeyed) {
  auto found = accounts_.find(actor);
  if (found == accounts_.end()) return;
  Account& account = found->second;
  const bool newest = account.number == obeyed.number;
  if (newest) Resume(actor);
  const bool heeded = newest && obeyed.bytes <= account.told;
  account.unheeded = heeded ? 0 : account.unheeded + 1;
  if (!newest && account.unheeded < kPatience) return;
  const std::uint64_t under_way = account.unheeded < kPatience ? obeyed.bytes : 0;
  const std::uint64_t held = std::max({account.told, under_way, account.in_use});
  Reserve(account, std::min(account.reserved, held));
}

Admission::Verdict Admission::Take(ActorId actor, std::uint64_t upload, std::uint64_t bytes) {
  auto found = accounts_.find(actor);
  if (found == accounts_.end()) return Verdict::kRefused;
  Account& account = found->second;
  if (account.uploads.contains(upload)) return Verdict::kRepeated;
  if (bytes > account.reserved - account.in_use) {
    ++account.refused;
    return Verdict::kRefused;
  }
  if (account.uploads.empty()) users_.push_back(actor);
  account.uploads[upload] = {bytes, Phase::kWaiting};
  account.in_use += bytes;
  in_use_ += bytes;
  return Verdict::kTaken;
}

Admission::Upload* Admission::Waiting(ActorId actor, std::uint64_t upload) {
  for (Left& left : left_) {
    const bool waits = left.upload.phase == Phase::kWaiting;
    if (waits && left.actor == actor && left.number == upload) return &left.upload;
  }
  auto found = accounts_.find(actor);
  if (found == accounts_.end()) return nullptr;
  auto taken = found->second.uploads.find(upload);
  const bool waits = taken != found->second.uploads.end() && taken->second.phase == Phase::kWaiting;
  return waits ? &taken->second : nullptr;
}

void Admission::NoteHandled(ActorId actor, std::uint64_t upload) {
  if (Upload* waiting = Waiting(actor, upload)) waiting->phase = Phase::kRecorded;
}

void Admission::NoteDropped(ActorId actor, std::uint64_t upload) {
  Upload* waiting = Waiting(actor, upload);
  if (waiting == nullptr) return;
  const std::uint64_t bytes = waiting->bytes;
  in_use_ -= bytes;
  const auto left = std::ranges::find_if(left_, [&](Left& l) { return &l.upload == waiting; });
  if (left != left_.end()) {
    left_behind_ -= bytes;
    reserved_ -= bytes;
    left_.erase(left);
    return;
  }
  Account& account = accounts_.at(actor);
  account.in_use -= bytes;
  account.uploads.erase(upload);
  if (account.uploads.empty()) std::erase(users_, actor);
}

void Admission::Seal() {
  for (ActorId actor : users_) {
    for (auto& [number, upload] : accounts_.at(actor).uploads) {
      if (upload.phase == Phase::kRecorded) upload.phase = Phase::kSealed;
    }
  }
  for (Left& left : left_) {
    if (left.upload.phase == Phase::kRecorded) left.upload.phase = Phase::kSealed;
  }
}

void Admission::HandOn() {
  std::erase_if(users_, [&](ActorId user) {
    Account& account = accounts_.at(user);
    const std::uint64_t before = account.in_use;
    std::erase_if(account.uploads, [&](const auto& entry) {
      if (entry.second.phase != Phase::kSealed) return false;
      account.in_use -= entry.second.bytes;
      return true;
    });
    in_use_ -= before - account.in_use;
    if (account.in_use < before) account.told_times = std::max(account.told_times, kTurnTold);
    return account.uploads.empty();
  });
  std::erase_if(left_, [&](const Left& left) {
    if (left.upload.phase != Phase::kSealed) return false;
    left_behind_ -= left.upload.bytes;
    reserved_ -= left.upload.bytes;
    in_use_ -= left.upload.bytes;
    return true;
  });
}

std::uint64_t IssueRoom(std::uint64_t queued, std::uint32_t step_groups,
                        std::uint32_t max_staleness, std::uint32_t next_step,
                        std::uint32_t version) {
  THRESHER_CHECK(version <= next_step, "a version of a step that is not committed");
  const std::uint64_t behind = next_step - version;
  if (behind > max_staleness) return 0;
  const std::uint64_t allowed = step_groups * (std::uint64_t{max_staleness} + 1 - behind);
  return allowed > queued ? allowed - queued : 0;
}

}  // namespace thresher::broker
