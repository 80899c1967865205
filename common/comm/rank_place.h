#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace thresher::comm {

// What a rank tells of itself while it trains, for the others to read when one does not come. Pure.
struct RankPlace {
  std::string job;             // see learner::Place; a file of another job tells nothing
  std::uint64_t beat = 0;      // grows as long as the rank's process runs
  std::uint64_t sequence = 0;  // of its newest operation; 0: none yet
  std::string what;            // "exchange 'gradient'"
  bool over = false;           // that operation, one way or the other
  friend bool operator==(const RankPlace&, const RankPlace&) = default;
};
std::string EncodePlace(const RankPlace& place);
// Errors: kDataLoss.
Result<RankPlace> ParsePlace(std::string_view text);

// Another rank as it is seen.
struct PeerPlace {
  std::uint32_t rank = 0;
  std::optional<RankPlace> place;  // nothing: it has told nothing
  Duration silent{};               // since its beat was seen to grow
};
// A sentence for each peer that is not in the same operation, or has been silent for `limit`:
//   "rank 1 is behind: in barrier 'end' #11"
//   "rank 2 is in broadcast 'weights' #12 instead"          (the ranks disagree)
//   "rank 3 is behind: done with barrier 'end' #11; nothing heard of its process for 4.2 s: it is
//    stopped or dead"
std::vector<std::string> WhoIsWhere(const RankPlace& mine, std::span<const PeerPlace> peers,
                                    Duration limit);

}  // namespace thresher::comm
