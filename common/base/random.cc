#include "common/base/random.h"

#include <Random123/philox.h>

namespace thresher {
namespace {

// 52 bits, not 53: with 53 the sum needs 54 bits of mantissa, and the largest draw rounds to 1.
double OpenUnit(std::uint64_t bits) { return (static_cast<double>(bits >> 12) + 0.5) * 0x1.0p-52; }

}  // namespace

RandomStream::RandomStream(std::uint64_t run_seed, const TrajectoryId& id, RandomPurpose purpose,
                           std::uint16_t lane) {
  THRESHER_CHECK(id.InRange(), "random stream of an id out of range");
  key_ = {static_cast<std::uint32_t>(run_seed), static_cast<std::uint32_t>(run_seed >> 32)};
  std::uint64_t tail = (id.item << 20) | id.sample;
  counter_ = {static_cast<std::uint32_t>(purpose) << 24,
              (static_cast<std::uint32_t>(lane) << 16) |
                  (static_cast<std::uint32_t>(id.stream) << 12) | id.island,
              static_cast<std::uint32_t>(tail), static_cast<std::uint32_t>(tail >> 32)};
}

std::array<std::uint32_t, 4> RandomStream::Block(std::uint32_t position) const {
  THRESHER_CHECK(position <= kMaxPosition, "random position beyond 2^24 - 1");
  r123::Philox4x32::ctr_type counter = {
      {counter_[0] | position, counter_[1], counter_[2], counter_[3]}};
  r123::Philox4x32::key_type key = {{key_[0], key_[1]}};
  auto out = r123::Philox4x32()(counter, key);
  return {out[0], out[1], out[2], out[3]};
}

double RandomStream::Uniform(std::uint32_t position) const {
  auto block = Block(position);
  return OpenUnit((static_cast<std::uint64_t>(block[0]) << 32) | block[1]);
}

std::uint32_t RandomSequence::NextU32() {
  if (used_ == 4) {
    block_ = stream_.Block(position_++);
    used_ = 0;
  }
  return block_[used_++];
}

std::uint64_t RandomSequence::NextU64() {
  std::uint64_t high = NextU32();
  return (high << 32) | NextU32();
}

std::uint64_t RandomSequence::Below(std::uint64_t bound) {
  THRESHER_CHECK(bound >= 1, "Below(0)");
  using Wide = unsigned __int128;
  std::uint64_t threshold = (0 - bound) % bound;
  while (true) {
    Wide product = static_cast<Wide>(NextU64()) * bound;
    if (static_cast<std::uint64_t>(product) >= threshold) {
      return static_cast<std::uint64_t>(product >> 64);
    }
  }
}

std::int64_t RandomSequence::Between(std::int64_t low, std::int64_t high) {
  THRESHER_CHECK(low <= high, "Between with an empty range");
  std::uint64_t width = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) + 1;
  if (width == 0) return static_cast<std::int64_t>(NextU64());
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(low) + Below(width));
}

double RandomSequence::NextUniform() { return OpenUnit(NextU64()); }

}  // namespace thresher
