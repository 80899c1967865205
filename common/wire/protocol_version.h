#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "common/wire/frame.h"

namespace thresher::wire {

// What programs of different protocol versions can still say to each other. Whatever else a version
// changes, these bytes stay, little-endian:
//   every frame      0  magic "THR1"   4  protocol version u16
//   version refusal  6  255   7  0   8  oldest and newest u16 that its sender speaks
//                   12  zero u32   16  XXH3-64 of the bytes before
// A refusal answers a frame of a version that the receiver does not speak.
struct ProtocolVersions {
  std::uint16_t oldest = 0, newest = 0;
  std::string ToString() const;  // "1", "1 to 3"
  friend bool operator==(const ProtocolVersions&, const ProtocolVersions&) = default;
};
inline constexpr ProtocolVersions kSpokenVersions{kProtocolVersion, kProtocolVersion};

// The version of bytes that begin as a frame does; nothing of others.
std::optional<std::uint16_t> VersionOf(std::span<const std::byte> bytes);
// Whether DecodeFrame reads frames of this version.
bool Speaks(std::uint16_t version);

std::string EncodeVersionRefusal(const ProtocolVersions& spoken);
// What the sender speaks; nothing when the bytes are no refusal.
std::optional<ProtocolVersions> DecodeVersionRefusal(std::span<const std::byte> bytes);

}  // namespace thresher::wire
