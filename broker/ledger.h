#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/wire/records.h"

namespace thresher::broker {

// Where a sample is while it is neither trained, evaluated nor dropped.
enum class Place : std::uint8_t {
  kIssued = 0,    // waiting for a lease, being generated, or on its way here
  kAccepted = 1,  // journalled; waiting for the rest of its batch or round
  kBatched = 2,   // in a composed batch whose step is not committed
};
inline constexpr int kPlaceCount = 3;
const char* PlaceName(Place place);

using HeldCounts = std::array<std::uint64_t, kPlaceCount>;

// The numbers of one stream of one island, in samples.
struct StreamCounts {
  std::uint64_t issued = 0;
  std::uint64_t trained = 0;
  std::uint64_t evaluated = 0;
  std::array<std::uint64_t, wire::kDropReasonCount> dropped{};
  HeldCounts held{};

  std::uint64_t DroppedTotal() const;
  std::uint64_t HeldTotal() const;
  friend bool operator==(const StreamCounts&, const StreamCounts&) = default;
};

// The double-entry book of all work (P5): at every moment, for each stream and island,
//   issued = trained + evaluated + dropped(by reason) + held(by place).
// Every sample is moved from exactly one place to exactly one other; a move out of an empty place
// is an error and changes nothing. Plain data: no thread, socket or clock. Not thread-safe.
class Ledger {
 public:
  using Key = std::pair<Stream, std::uint16_t>;  // stream, island

  void Issue(Stream stream, std::uint16_t island, std::uint64_t samples);
  // Errors of all moves: kFailedPrecondition naming stream, island, place and both numbers.
  Status Accept(Stream stream, std::uint16_t island, std::uint64_t samples);
  Status Batch(Stream stream, std::uint16_t island, std::uint64_t samples);
  Status Train(Stream stream, std::uint16_t island, std::uint64_t samples);
  Status Evaluate(Stream stream, std::uint16_t island, std::uint64_t samples);
  Status Drop(Stream stream, std::uint16_t island, Place from, wire::DropReason reason,
              std::uint64_t samples);

  // The equation, and equality of the held numbers with `counted`: what a walk over the samples
  // themselves found (GroupAssembler::CountHeld). Error: kInternal with a report of both sides.
  Status Check(const std::map<Key, HeldCounts>& counted) const;

  const std::map<Key, StreamCounts>& counts() const { return counts_; }
  // Over all streams and islands.
  StreamCounts Total() const;
  // "issued 51200 = trained 50880 + evaluated 0 + dropped 320 (zero_variance 320) + held 0".
  static std::string Equation(const StreamCounts& counts);

  friend bool operator==(const Ledger&, const Ledger&) = default;
  template <typename Io>
  void Fields(Io& io) {
    io(counts_);
  }

 private:
  Status Leave(const Key& key, Place place, std::uint64_t samples);

  std::map<Key, StreamCounts> counts_;
};

}  // namespace thresher::broker
