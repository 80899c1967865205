#include "common/wire/protocol_version.h"

#include <cstring>
#include <string_view>

#include "common/base/hash.h"
#include "common/data/byte_order.h"

namespace thresher::wire {
namespace {

constexpr std::string_view kMagic = "THR1";
constexpr std::uint8_t kRefusalKind = 255;
constexpr std::size_t kCoveredBytes = 16;
constexpr std::size_t kRefusalBytes = kCoveredBytes + 8;

}  // namespace

std::string ProtocolVersions::ToString() const {
  std::string text = std::to_string(oldest);
  return oldest == newest ? text : text + " to " + std::to_string(newest);
}

std::optional<std::uint16_t> VersionOf(std::span<const std::byte> bytes) {
  const auto* data = reinterpret_cast<const char*>(bytes.data());
  if (bytes.size() < kMagic.size() + 2) return std::nullopt;
  if (std::string_view(data, kMagic.size()) != kMagic) return std::nullopt;
  return LoadLittle<std::uint16_t>(data + kMagic.size());
}

bool Speaks(std::uint16_t version) {
  return version >= kSpokenVersions.oldest && version <= kSpokenVersions.newest;
}

std::string EncodeVersionRefusal(const ProtocolVersions& spoken) {
  std::string bytes(kMagic);
  AppendLittle<std::uint16_t>(bytes, spoken.newest);
  AppendLittle<std::uint8_t>(bytes, kRefusalKind);
  AppendLittle<std::uint8_t>(bytes, 0);
  AppendLittle<std::uint16_t>(bytes, spoken.oldest);
  AppendLittle<std::uint16_t>(bytes, spoken.newest);
  AppendLittle<std::uint32_t>(bytes, 0);
  AppendLittle<std::uint64_t>(bytes, HashBytes64(AsBytes(bytes)));
  return bytes;
}

std::optional<ProtocolVersions> DecodeVersionRefusal(std::span<const std::byte> bytes) {
  const auto* data = reinterpret_cast<const char*>(bytes.data());
  if (bytes.size() != kRefusalBytes || !VersionOf(bytes)) return std::nullopt;
  if (static_cast<std::uint8_t>(data[6]) != kRefusalKind || data[7] != 0) return std::nullopt;
  if (HashBytes64(bytes.first(kCoveredBytes)) != LoadLittle<std::uint64_t>(data + kCoveredBytes)) {
    return std::nullopt;
  }
  return ProtocolVersions{LoadLittle<std::uint16_t>(data + 8),
                          LoadLittle<std::uint16_t>(data + 10)};
}

}  // namespace thresher::wire
