#include "common/base/hash.h"

#include <xxhash.h>

#include <array>
#include <cstring>
#include <utility>

namespace thresher {
namespace {
Hash128 FromXxh(XXH128_hash_t hash) { return {hash.high64, hash.low64}; }
XXH3_state_t* State(void* state) { return static_cast<XXH3_state_t*>(state); }

constexpr std::array<std::uint32_t, 256> MakeCrc32cTable() {
  constexpr std::uint32_t kReversedPolynomial = 0x82f63b78u;
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kReversedPolynomial : 0);
    table[byte] = crc;
  }
  return table;
}
}  // namespace

std::uint64_t HashBytes64(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}
Hash128 HashBytes128(std::span<const std::byte> bytes) {
  return FromXxh(XXH3_128bits(bytes.data(), bytes.size()));
}
Hash128 HashText128(std::string_view text) {
  return FromXxh(XXH3_128bits(text.data(), text.size()));
}

std::uint32_t Crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> kTable = MakeCrc32cTable();
  std::uint32_t crc = ~0u;
  for (char byte : bytes)
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

Hasher128::~Hasher128() {
  if (state_ != nullptr) XXH3_freeState(State(state_));
}
Hasher128::Hasher128(Hasher128&& other) noexcept { *this = std::move(other); }
Hasher128& Hasher128::operator=(Hasher128&& other) noexcept {
  if (this == &other) return *this;
  std::swap(state_, other.state_);
  pending_size_ = other.pending_size_;
  std::memcpy(pending_.data(), other.pending_.data(), pending_size_);
  return *this;
}

void Hasher128::Flush() const {
  if (state_ == nullptr) {
    state_ = XXH3_createState();
    THRESHER_CHECK(state_ != nullptr, "XXH3_createState: out of memory");
    XXH3_128bits_reset(State(state_));
  }
  XXH3_128bits_update(State(state_), pending_.data(), pending_size_);
  pending_size_ = 0;
}

void Hasher128::Update(std::span<const std::byte> bytes) {
  if (bytes.size() > pending_.size() - pending_size_) Flush();
  if (bytes.size() > pending_.size()) {
    XXH3_128bits_update(State(state_), bytes.data(), bytes.size());
    return;
  }
  if (!bytes.empty()) std::memcpy(pending_.data() + pending_size_, bytes.data(), bytes.size());
  pending_size_ += bytes.size();
}
void Hasher128::Update(std::string_view text) { Update(std::as_bytes(std::span(text))); }
void Hasher128::UpdateU64(std::uint64_t value) {
  std::array<std::byte, 8> bytes;
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i));
  Update(bytes);
}
void Hasher128::UpdateHash(const Hash128& hash) {
  UpdateU64(hash.high);
  UpdateU64(hash.low);
}
Hash128 Hasher128::Finish() const {
  if (state_ == nullptr) return HashBytes128(std::span(pending_).first(pending_size_));
  Flush();
  return FromXxh(XXH3_128bits_digest(State(state_)));
}

}  // namespace thresher
