#pragma once

#include <cstdint>

#include "common/base/ids.h"

namespace thresher {

// The order in which the epochs of a data set pass through its rows: for each epoch a bijection of
// [0, rows) that any process computes for any index alone. Nothing is stored, nothing travels, and
// a run that continues goes on where it was.
//
// A balanced Feistel network over the least even number of bits that holds `rows`, walked along its
// cycle until it lands inside; its round function is Philox4x32-10 of (run seed; stream, source,
// epoch, round, half). Sources: Luby & Rackoff 1988; Black & Rogaway 2002, "Ciphers with arbitrary
// finite domains".
class Permutation {
 public:
  static constexpr std::uint64_t kMostRows = std::uint64_t{1} << 44;  // of an item ordinal

  // rows: 1 to kMostRows; `source` tells data sets of one stream apart, at most
  // TrajectoryId::kMaxIsland. Checked.
  Permutation(std::uint64_t run_seed, Stream stream, std::uint16_t source, std::uint64_t rows);

  // The row at `index` of `epoch`; both in range (checked).
  std::uint64_t RowAt(std::uint64_t epoch, std::uint64_t index) const;
  // The index at which `epoch` has `row`.
  std::uint64_t IndexOf(std::uint64_t epoch, std::uint64_t row) const;

 private:
  std::uint32_t Mix(std::uint64_t epoch, std::uint32_t round, std::uint32_t half) const;

  std::uint64_t run_seed_;
  Stream stream_;
  std::uint16_t source_;
  std::uint64_t rows_;
  std::uint32_t half_bits_;
};

}  // namespace thresher
