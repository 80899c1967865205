#include "common/data/event_file.h"

#include <bit>

#include "common/base/hash.h"
#include "common/data/byte_order.h"

namespace thresher {
namespace {

constexpr std::string_view kFileVersion = "brain.Event:2";
constexpr std::size_t kHeadBytes = 12, kTailBytes = 4;  // around the bytes of a record

// Protobuf's wire format: a field begins with number << 3 | type.
enum WireType : std::uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };
enum EventField : std::uint32_t { kWallTime = 1, kStep = 2, kVersion = 3, kSummary = 5 };
enum ValueField : std::uint32_t { kTag = 1, kSimpleValue = 2 };
constexpr std::uint32_t kSummaryValue = 1;

void PutVarint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void PutKey(std::string& out, std::uint32_t field, WireType type) {
  PutVarint(out, field << 3 | type);
}

void PutBytes(std::string& out, std::uint32_t field, std::string_view bytes) {
  PutKey(out, field, kLengthDelimited);
  PutVarint(out, bytes.size());
  out += bytes;
}

void PutWallTime(std::string& out, double seconds) {
  PutKey(out, kWallTime, kFixed64);
  AppendLittle(out, std::bit_cast<std::uint64_t>(seconds));
}

std::uint32_t MaskedCrc(std::string_view bytes) {
  const std::uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

std::string Record(std::string_view message) {
  std::string out;
  AppendLittle<std::uint64_t>(out, message.size());
  AppendLittle(out, MaskedCrc(out));
  out += message;
  AppendLittle(out, MaskedCrc(message));
  return out;
}

// The bytes of the record that `file` begins with; nothing when it is not whole.
std::optional<std::string_view> FirstMessage(std::string_view file) {
  if (file.size() < kHeadBytes + kTailBytes) return std::nullopt;
  if (LoadLittle<std::uint32_t>(file.data() + 8) != MaskedCrc(file.substr(0, 8))) {
    return std::nullopt;
  }
  const auto length = LoadLittle<std::uint64_t>(file.data());
  if (length > file.size() - kHeadBytes - kTailBytes) return std::nullopt;
  const std::string_view message = file.substr(kHeadBytes, length);
  const auto crc = LoadLittle<std::uint32_t>(message.data() + message.size());
  if (crc != MaskedCrc(message)) return std::nullopt;
  return message;
}

// The wall time of an event as EncodeEvent writes it; nothing: another message.
std::optional<double> TimeOfScalars(std::string_view message) {
  std::string before_time, before_step;
  PutKey(before_time, kWallTime, kFixed64);
  PutKey(before_step, kStep, kVarint);
  const std::size_t step = before_time.size() + sizeof(double);
  if (!message.starts_with(before_time) || message.size() < step ||
      !message.substr(step).starts_with(before_step)) {
    return std::nullopt;
  }
  return std::bit_cast<double>(LoadLittle<std::uint64_t>(message.data() + before_time.size()));
}

}  // namespace

std::string EventFileHead(double wall_time) {
  std::string message;
  PutWallTime(message, wall_time);
  PutBytes(message, kVersion, kFileVersion);
  return Record(message);
}

std::string EncodeEvent(const ScalarEvent& event) {
  std::string summary;
  for (const auto& [tag, value] : event.scalars) {
    std::string entry;
    PutBytes(entry, kTag, tag);
    PutKey(entry, kSimpleValue, kFixed32);
    AppendLittle(entry, std::bit_cast<std::uint32_t>(value));
    PutBytes(summary, kSummaryValue, entry);
  }
  std::string message;
  PutWallTime(message, event.wall_time);
  PutKey(message, kStep, kVarint);
  PutVarint(message, static_cast<std::uint64_t>(event.step));
  PutBytes(message, kSummary, summary);
  return Record(message);
}

std::optional<LastEvent> FindLastEvent(std::string_view file) {
  std::optional<LastEvent> last;
  while (const std::optional<std::string_view> message = FirstMessage(file)) {
    const std::size_t bytes = kHeadBytes + message->size() + kTailBytes;
    if (const std::optional<double> time = TimeOfScalars(*message)) {
      last = LastEvent{*time, file.substr(0, bytes)};
    }
    file.remove_prefix(bytes);
  }
  return last;
}

}  // namespace thresher
