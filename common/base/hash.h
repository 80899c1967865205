#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/base/ids.h"

namespace thresher {

// XXH3 of a byte range. The only place that includes xxhash.h.
std::uint64_t HashBytes64(std::span<const std::byte> bytes);
Hash128 HashBytes128(std::span<const std::byte> bytes);
Hash128 HashText128(std::string_view text);
// CRC-32C (Castagnoli), for formats of others that want it; ours use XXH3. A table, byte by byte.
// Source: RFC 3720, B.4.
std::uint32_t Crc32c(std::string_view bytes);

// Incremental XXH3-128; the same result as hashing the concatenation at once. Move-only. Short
// pieces are collected: XXH3's own state costs more than they do, and is made when it is needed.
class Hasher128 {
 public:
  Hasher128() = default;
  ~Hasher128();
  Hasher128(Hasher128&&) noexcept;
  Hasher128& operator=(Hasher128&&) noexcept;

  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text);
  // Little-endian bytes of an integer.
  void UpdateU64(std::uint64_t value);
  void UpdateHash(const Hash128& hash);
  Hash128 Finish() const;

 private:
  void Flush() const;

  // Of what came in, the first part is in the state and the last one here.
  mutable void* state_ = nullptr;
  mutable std::size_t pending_size_ = 0;
  std::array<std::byte, 2048> pending_;
};

}  // namespace thresher
