#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace thresher {

// Where all randomness comes from that is not a trajectory's (random.h): names of processes, of
// temporaries, of connections, and secrets.
class EntropySource {
 public:
  virtual ~EntropySource() = default;
  virtual std::uint64_t Next() = 0;
};

// 64 bits of the system's entropy source, or of what this thread has put in its place. The system's
// failing is a failed check.
std::uint64_t Entropy64();
// The same, byte by byte; of a substitute little-endian, the last number cut off.
void FillEntropy(std::span<std::byte> bytes);

// From now on this thread's entropy comes from `source` (borrowed; null: the system's). Returns
// what it was before. Secrets made meanwhile are none.
EntropySource* SubstituteEntropy(EntropySource* source);

}  // namespace thresher
