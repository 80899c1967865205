#include "common/base/ids.h"

#include <charconv>
#include <cstdio>

#include "common/base/entropy.h"

namespace thresher {
namespace {

constexpr const char* kStreamNames[kStreamCount] = {"train", "supervised", "eval", "branch",
                                                    "user"};

// Takes one '/'-separated unsigned part off `rest`.
Result<std::uint64_t> TakeNumber(std::string_view whole, std::string_view& rest, const char* part,
                                 std::uint64_t max) {
  std::size_t slash = rest.find('/');
  std::string_view digits = rest.substr(0, slash);
  rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
  std::uint64_t value = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size() ||
      value > max) {
    return InvalidArgument("trajectory id '" + std::string(whole) + "': " + part + " is '" +
                           std::string(digits) + "'; allowed: 0 to " + std::to_string(max));
  }
  return value;
}

}  // namespace

const char* StreamName(Stream stream) {
  int index = static_cast<int>(stream);
  THRESHER_CHECK(index < kStreamCount, "unknown stream " + std::to_string(index));
  return kStreamNames[index];
}

Result<Stream> ParseStream(std::string_view name) {
  for (int i = 0; i < kStreamCount; ++i) {
    if (name == kStreamNames[i]) return static_cast<Stream>(i);
  }
  return InvalidArgument("stream is '" + std::string(name) +
                         "'; allowed: train, supervised, eval, branch, user");
}

bool TrajectoryId::InRange() const {
  return static_cast<int>(stream) < kStreamCount && island <= kMaxIsland && item <= kMaxItem &&
         sample <= kMaxSample;
}

std::string TrajectoryId::ToString() const {
  return std::string(StreamName(stream)) + "/" + std::to_string(island) + "/" +
         std::to_string(item) + "/" + std::to_string(sample);
}

Result<TrajectoryId> TrajectoryId::Parse(std::string_view text) {
  std::string_view rest = text;
  std::size_t slash = rest.find('/');
  if (slash == std::string_view::npos) {
    return InvalidArgument("trajectory id '" + std::string(text) +
                           "'; allowed: stream/island/item/sample, such as train/0/12/3");
  }
  TrajectoryId id;
  THRESHER_ASSIGN_OR_RETURN(id.stream, ParseStream(rest.substr(0, slash)));
  rest = rest.substr(slash + 1);
  THRESHER_ASSIGN_OR_RETURN(std::uint64_t island, TakeNumber(text, rest, "island", kMaxIsland));
  THRESHER_ASSIGN_OR_RETURN(id.item, TakeNumber(text, rest, "item", kMaxItem));
  THRESHER_ASSIGN_OR_RETURN(std::uint64_t sample, TakeNumber(text, rest, "sample", kMaxSample));
  id.island = static_cast<std::uint16_t>(island);
  id.sample = static_cast<std::uint32_t>(sample);
  if (!rest.empty() || text.back() == '/') {
    return InvalidArgument("trajectory id '" + std::string(text) + "' has trailing text after '" +
                           id.ToString() + "'");
  }
  return id;
}

std::string PolicyVersion::ToString() const {
  return std::to_string(lineage) + "." + std::to_string(step);
}

std::string Hash128::ToString() const {
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(high),
                static_cast<unsigned long long>(low));
  return text;
}

Result<Hash128> Hash128::Parse(std::string_view text) {
  Hash128 hash;
  auto half = [&](std::size_t begin, std::uint64_t& out) {
    auto [end, error] = std::from_chars(text.data() + begin, text.data() + begin + 16, out, 16);
    return error == std::errc() && end == text.data() + begin + 16;
  };
  if (text.size() != 32 || !half(0, hash.high) || !half(16, hash.low)) {
    return InvalidArgument("hash is '" + std::string(text) + "'; allowed: 32 hexadecimal digits");
  }
  return hash;
}

Incarnation NewIncarnation() {
  std::uint64_t value = 0;
  while (value == 0) value = Entropy64();
  return Incarnation(value);
}

}  // namespace thresher

std::size_t std::hash<thresher::TrajectoryId>::operator()(
    const thresher::TrajectoryId& id) const noexcept {
  // Injective packing followed by a 64-bit finaliser (SplitMix64).
  std::uint64_t x = (static_cast<std::uint64_t>(id.stream) << 60) ^
                    (static_cast<std::uint64_t>(id.island) << 48) ^ (id.item << 20) ^ id.sample ^
                    (id.item >> 28);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return static_cast<std::size_t>(x ^ (x >> 31));
}
