#include "broker/ledger.h"

#include <numeric>

namespace thresher::broker {

const char* PlaceName(Place place) {
  switch (place) {
    case Place::kIssued:
      return "issued";
    case Place::kAccepted:
      return "accepted";
    case Place::kBatched:
      return "batched";
  }
  return "unknown";
}

std::uint64_t StreamCounts::DroppedTotal() const {
  return std::accumulate(dropped.begin(), dropped.end(), std::uint64_t{0});
}

std::uint64_t StreamCounts::HeldTotal() const {
  return std::accumulate(held.begin(), held.end(), std::uint64_t{0});
}

void Ledger::Issue(Stream stream, std::uint16_t island, std::uint64_t samples) {
  StreamCounts& counts = counts_[{stream, island}];
  counts.issued += samples;
  counts.held[static_cast<int>(Place::kIssued)] += samples;
}

Status Ledger::Leave(const Key& key, Place place, std::uint64_t samples) {
  std::uint64_t& held = counts_[key].held[static_cast<int>(place)];
  if (held < samples) {
    return FailedPrecondition(std::string("ledger: ") + StreamName(key.first) + "/" +
                              std::to_string(key.second) + ": " + std::to_string(samples) +
                              " samples leave '" + PlaceName(place) + "' that holds " +
                              std::to_string(held));
  }
  held -= samples;
  return Status::Ok();
}

Status Ledger::Accept(Stream stream, std::uint16_t island, std::uint64_t samples) {
  THRESHER_RETURN_IF_ERROR(Leave({stream, island}, Place::kIssued, samples));
  counts_[{stream, island}].held[static_cast<int>(Place::kAccepted)] += samples;
  return Status::Ok();
}

Status Ledger::Batch(Stream stream, std::uint16_t island, std::uint64_t samples) {
  THRESHER_RETURN_IF_ERROR(Leave({stream, island}, Place::kAccepted, samples));
  counts_[{stream, island}].held[static_cast<int>(Place::kBatched)] += samples;
  return Status::Ok();
}

Status Ledger::Train(Stream stream, std::uint16_t island, std::uint64_t samples) {
  THRESHER_RETURN_IF_ERROR(Leave({stream, island}, Place::kBatched, samples));
  counts_[{stream, island}].trained += samples;
  return Status::Ok();
}

Status Ledger::Evaluate(Stream stream, std::uint16_t island, std::uint64_t samples) {
  THRESHER_RETURN_IF_ERROR(Leave({stream, island}, Place::kAccepted, samples));
  counts_[{stream, island}].evaluated += samples;
  return Status::Ok();
}

Status Ledger::Drop(Stream stream, std::uint16_t island, Place from, wire::DropReason reason,
                    std::uint64_t samples) {
  THRESHER_RETURN_IF_ERROR(Leave({stream, island}, from, samples));
  counts_[{stream, island}].dropped[static_cast<int>(reason)] += samples;
  return Status::Ok();
}

Status Ledger::Check(const std::map<Key, HeldCounts>& counted) const {
  for (const auto& [key, held] : counted) {
    if (!counts_.contains(key)) {
      return InternalError(std::string("ledger: samples of ") + StreamName(key.first) + "/" +
                           std::to_string(key.second) + " exist that were never issued");
    }
  }
  for (const auto& [key, counts] : counts_) {
    auto found = counted.find(key);
    const HeldCounts actual = found == counted.end() ? HeldCounts{} : found->second;
    std::uint64_t right = counts.trained + counts.evaluated + counts.DroppedTotal() +
                          std::accumulate(actual.begin(), actual.end(), std::uint64_t{0});
    if (counts.issued == right && counts.held == actual) continue;
    std::string report = std::string("ledger: ") + StreamName(key.first) + "/" +
                         std::to_string(key.second) + " does not balance: " + Equation(counts);
    for (int place = 0; place < kPlaceCount; ++place) {
      report += std::string("; ") + PlaceName(static_cast<Place>(place)) + " booked " +
                std::to_string(counts.held[place]) + ", found " + std::to_string(actual[place]);
    }
    return InternalError(report);
  }
  return Status::Ok();
}

StreamCounts Ledger::Total() const {
  StreamCounts total;
  for (const auto& [key, counts] : counts_) {
    total.issued += counts.issued;
    total.trained += counts.trained;
    total.evaluated += counts.evaluated;
    for (int i = 0; i < wire::kDropReasonCount; ++i) total.dropped[i] += counts.dropped[i];
    for (int i = 0; i < kPlaceCount; ++i) total.held[i] += counts.held[i];
  }
  return total;
}

std::string Ledger::Equation(const StreamCounts& counts) {
  std::string reasons;
  for (int i = 0; i < wire::kDropReasonCount; ++i) {
    if (counts.dropped[i] == 0) continue;
    reasons += (reasons.empty() ? " (" : ", ") +
               std::string(wire::DropReasonName(static_cast<wire::DropReason>(i))) + " " +
               std::to_string(counts.dropped[i]);
  }
  if (!reasons.empty()) reasons += ")";
  return "issued " + std::to_string(counts.issued) + " = trained " +
         std::to_string(counts.trained) + " + evaluated " + std::to_string(counts.evaluated) +
         " + dropped " + std::to_string(counts.DroppedTotal()) + reasons + " + held " +
         std::to_string(counts.HeldTotal());
}

}  // namespace thresher::broker
