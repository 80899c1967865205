#include "tests/support/sim/credit_watch.h"

#include "tests/support/sim/frames.h"

namespace thresher::sim {
namespace {

// Of what is promised: see issue and README, "under budget + 10 %".
constexpr std::uint64_t kTolerance = 10;  // a part in

std::uint64_t InUseOfAccounts(const broker::Admission& admission) {
  std::uint64_t bytes = 0;
  for (const auto& [actor, account] : admission.accounts()) bytes += account.in_use;
  return bytes;
}

}  // namespace

void CreditWatch::OnBrokerStarts() {
  actors_.clear();
  open_.clear();
}

void CreditWatch::Problem(const broker::BrokerContext& broker, const std::string& text) {
  const std::chrono::duration<double> now = broker.Now().time_since_epoch();
  problems_ += std::to_string(now.count()) + " s: credit: " + text + "\n";
}

// What is given: to each what it may have, and no more than there is.
void CreditWatch::CheckBooks(const broker::BrokerContext& broker) {
  const broker::Admission& admission = broker.admission;
  std::uint64_t reserved = 0, in_use = 0;
  for (const auto& [actor, account] : admission.accounts()) {
    reserved += account.reserved;
    in_use += account.in_use;
    if (account.in_use <= account.reserved && account.told <= account.reserved) continue;
    Problem(broker, "actor " + std::to_string(actor.value) + " uses " +
                        std::to_string(account.in_use) + " and was told " +
                        std::to_string(account.told) + " of " + std::to_string(account.reserved));
  }
  const std::uint64_t left_behind = admission.in_use_bytes() - in_use;
  const std::uint64_t budget = admission.limits().budget_bytes;
  if (in_use > admission.in_use_bytes() || reserved + left_behind != admission.reserved_bytes() ||
      admission.reserved_bytes() > budget) {
    Problem(broker, std::to_string(admission.reserved_bytes()) + " of " + std::to_string(budget) +
                        " bytes given, " + std::to_string(reserved) + " to actors, " +
                        std::to_string(in_use) + " in use of " +
                        std::to_string(admission.in_use_bytes()));
  }
}

void CreditWatch::CheckMemory(const broker::BrokerContext& broker, std::uint64_t held) {
  const BrokerMemory& memory = broker.memory;
  const std::uint64_t cached = broker.payloads.cached_bytes();
  const std::uint64_t least = held - std::min<std::uint64_t>(held, cached);
  if (cached <= memory.cache && least + cached <= memory.budget + memory.budget / kTolerance &&
      least <= memory.credit + memory.credit / kTolerance + memory.frames) {
    return;
  }
  Problem(broker, std::to_string(held) + " bytes of uploads held, " + std::to_string(cached) +
                      " cached, with a budget of " + std::to_string(memory.budget));
}

// Whoever left is not known by number any more: what it left behind is one sum.
void CreditWatch::LookAtOpen(const broker::BrokerContext& broker) {
  const broker::Admission& admission = broker.admission;
  const std::uint64_t left_behind = admission.in_use_bytes() - InUseOfAccounts(admission);
  for (auto& [key, upload] : open_) {
    auto account = admission.accounts().find(actors_.at(key.first).first);
    const bool known =
        account != admission.accounts().end() && account->second.uploads.contains(key.second);
    if (!known && left_behind < upload.bytes) upload.uncounted = true;
  }
}

void CreditWatch::OnReceived(const std::string& peer, const std::string& bytes,
                             const broker::BrokerContext& broker, std::uint64_t held) {
  CheckBooks(broker);
  CheckMemory(broker, held);
  LookAtOpen(broker);
  if (Carries<wire::Hello>(bytes)) {
    const auto hello = Read<wire::Hello>(bytes);
    if (!hello || hello->role != wire::PeerRole::kActor) return;
    actors_[peer] = {ActorId(hello->index), SenderOf(bytes).value()};
    std::erase_if(open_, [&](const auto& entry) { return entry.first.first == peer; });
  } else if (Carries<wire::Upload>(bytes)) {
    // One of an earlier process of this name is nobody's, and gets no answer.
    auto actor = actors_.find(peer);
    if (actor == actors_.end() || actor->second.second != SenderOf(bytes)) return;
    auto upload = Read<wire::Upload>(bytes);
    Upload& entry = open_[{peer, upload->upload}];
    entry = {};
    for (const SharedBytes& record : upload->records) entry.bytes += record.size();
  }
}

void CreditWatch::OnSent(const std::string& peer, const std::string& bytes,
                         const broker::BrokerContext& broker) {
  CheckBooks(broker);
  auto ack = Read<wire::UploadAck>(bytes);
  if (!ack) return;
  auto upload = open_.find({peer, ack->upload});
  if (upload == open_.end()) return;
  ++followed_;
  // Without verdicts: it was beyond the credit and is not kept.
  if (!ack->verdicts.empty() && upload->second.uncounted) {
    Problem(broker, "upload " + std::to_string(ack->upload) + " of " + peer + ", " +
                        std::to_string(upload->second.bytes) +
                        " bytes, was kept for a while that no credit was counted for");
  }
  open_.erase(upload);
}

void CreditWatch::OnBrokerEnds(const broker::BrokerContext& broker) {
  CheckBooks(broker);
  if (broker.admission.in_use_bytes() == 0) return;
  Problem(broker, "nothing is held any more and " +
                      std::to_string(broker.admission.in_use_bytes()) + " bytes are counted");
}

}  // namespace thresher::sim
