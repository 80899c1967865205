#include "common/data/permutation.h"

#include <bit>
#include <string>

#include "common/base/check.h"
#include "common/base/random.h"

namespace thresher {
namespace {

// Four make a Feistel network look random to whoever sees few pairs; a small data set shows all of
// its pairs.
constexpr std::uint32_t kRounds = 10;

}  // namespace

Permutation::Permutation(std::uint64_t run_seed, Stream stream, std::uint16_t source,
                         std::uint64_t rows)
    : run_seed_(run_seed), stream_(stream), source_(source), rows_(rows) {
  THRESHER_CHECK(rows >= 1 && rows <= kMostRows, "rows: " + std::to_string(rows));
  const auto bits = static_cast<std::uint32_t>(std::bit_width(rows - 1));
  half_bits_ = (bits + 1) / 2;
}

std::uint32_t Permutation::Mix(std::uint64_t epoch, std::uint32_t round, std::uint32_t half) const {
  const TrajectoryId id{stream_, source_, epoch, round};
  return RandomStream(run_seed_, id, RandomPurpose::kPermute).Block(half)[0] &
         ((1u << half_bits_) - 1);
}

std::uint64_t Permutation::RowAt(std::uint64_t epoch, std::uint64_t index) const {
  THRESHER_CHECK(index < rows_, "index " + std::to_string(index));
  if (half_bits_ == 0) return index;
  std::uint64_t value = index;
  do {
    auto left = static_cast<std::uint32_t>(value >> half_bits_);
    auto right = static_cast<std::uint32_t>(value & ((1u << half_bits_) - 1));
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      const std::uint32_t next = left ^ Mix(epoch, round, right);
      left = right;
      right = next;
    }
    value = std::uint64_t{left} << half_bits_ | right;
  } while (value >= rows_);
  return value;
}

std::uint64_t Permutation::IndexOf(std::uint64_t epoch, std::uint64_t row) const {
  THRESHER_CHECK(row < rows_, "row " + std::to_string(row));
  if (half_bits_ == 0) return row;
  std::uint64_t value = row;
  do {
    auto left = static_cast<std::uint32_t>(value >> half_bits_);
    auto right = static_cast<std::uint32_t>(value & ((1u << half_bits_) - 1));
    for (std::uint32_t round = kRounds; round-- > 0;) {
      const std::uint32_t before = right ^ Mix(epoch, round, left);
      right = left;
      left = before;
    }
    value = std::uint64_t{left} << half_bits_ | right;
  } while (value >= rows_);
  return value;
}

}  // namespace thresher
