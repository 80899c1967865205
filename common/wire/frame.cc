#include "common/wire/frame.h"

#include <algorithm>
#include <cstring>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/wire/messages_codec.h"
#include "common/wire/types_codec.h"

namespace thresher::wire {
namespace {

constexpr char kMagic[4] = {'T', 'H', 'R', '1'};
constexpr std::size_t kChecksumBytes = 8;

struct Header {
  std::uint16_t version = 0;
  std::uint8_t kind = 0;
  std::uint8_t flags = 0;
  std::uint32_t length = 0;  // envelope and payload segments
  std::uint32_t envelope_length = 0;
};

Status TooLong(const Message& message, std::size_t bytes, std::size_t max_bytes) {
  return OutOfRange(std::string("frame of ") + MessageName(message) + " has " +
                    std::to_string(bytes) + " bytes; allowed: " + std::to_string(max_bytes));
}

void WriteEnvelope(const Envelope& envelope, const Message& message,
                   const std::vector<std::string_view>& payloads, schema::Envelope::Builder out) {
  Write(envelope.run_id, out.initRunId());
  out.setIncarnation(envelope.incarnation.value);
  out.setSequence(envelope.sequence);
  auto lengths = out.initPayloadBytes(payloads.size());
  for (std::size_t i = 0; i < payloads.size(); ++i) lengths.set(i, payloads[i].size());
  VisitBinding(message.index(), [&](const auto& binding) {
    using Type = typename std::decay_t<decltype(binding)>::Type;
    binding.WriteTo(std::get<Type>(message), out);
  });
}

// The header of a frame whose lengths and checksum fit its bytes.
Result<Header> CheckHeader(std::string_view bytes, std::size_t max_bytes) {
  if (bytes.size() < sizeof kMagic || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    return InvalidArgument("frame: not ours (magic)");
  }
  if (bytes.size() > max_bytes) {
    return OutOfRange("frame: " + std::to_string(bytes.size()) +
                      " bytes; allowed: " + std::to_string(max_bytes));
  }
  if (bytes.size() < kFrameOverheadBytes) {
    return OutOfRange("frame: cut off after " + std::to_string(bytes.size()) + " bytes");
  }
  Header header;
  header.version = LoadLittle<std::uint16_t>(bytes.data() + 4);
  header.kind = LoadLittle<std::uint8_t>(bytes.data() + 6);
  header.flags = LoadLittle<std::uint8_t>(bytes.data() + 7);
  header.length = LoadLittle<std::uint32_t>(bytes.data() + 8);
  header.envelope_length = LoadLittle<std::uint32_t>(bytes.data() + 12);
  if (header.version != kProtocolVersion || header.flags != 0) {
    return InvalidArgument("frame: protocol version " + std::to_string(header.version) +
                           ", flags " + std::to_string(header.flags) +
                           "; ours: " + std::to_string(kProtocolVersion) + ", 0");
  }
  if (header.kind >= kMessageKinds) {
    return InvalidArgument("frame: message kind " + std::to_string(header.kind) + " is unknown");
  }
  if (header.length != bytes.size() - kFrameOverheadBytes ||
      header.envelope_length > header.length) {
    return OutOfRange("frame: lengths " + std::to_string(header.length) + " and " +
                      std::to_string(header.envelope_length) + " do not fit " +
                      std::to_string(bytes.size()) + " bytes");
  }
  std::string_view covered = bytes.substr(0, bytes.size() - kChecksumBytes);
  if (HashBytes64(AsBytes(covered)) != LoadLittle<std::uint64_t>(bytes.data() + covered.size())) {
    return DataLoss("frame: checksum");
  }
  return header;
}

// Cuts `area` into the segments whose lengths the envelope lists; throws Malformed unless they
// fill it exactly.
std::vector<SharedBytes> CutPayloads(capnp::List<std::uint32_t>::Reader lengths,
                                     const SharedBytes& area) {
  std::uint64_t total = 0;
  for (std::uint32_t length : lengths) total += length;
  Require(total == area.size(), [&] {
    return "payload segments of " + std::to_string(total) + " bytes do not fill " +
           std::to_string(area.size());
  });
  std::vector<SharedBytes> payloads;
  payloads.reserve(lengths.size());
  std::size_t offset = 0;
  for (std::uint32_t length : lengths) {
    payloads.push_back(area.Slice(offset, length));
    offset += length;
  }
  return payloads;
}

// What a frame is made of, before it is put together.
struct FrameParts {
  std::vector<std::string_view> payloads;
  FirstSegment first;
  capnp::MallocMessageBuilder builder{first.words()};  // the envelope
  std::size_t envelope_bytes = 0;
  std::size_t payload_bytes = 0;

  std::size_t size() const { return kFrameOverheadBytes + envelope_bytes + payload_bytes; }
};

Status MakeParts(const Envelope& envelope, const Message& message, std::size_t max_bytes,
                 FrameParts& parts) {
  max_bytes = std::min<std::size_t>(max_bytes, UINT32_MAX);
  parts.payloads = PayloadsOf(message);
  for (std::string_view payload : parts.payloads) parts.payload_bytes += payload.size();
  if (parts.payload_bytes > max_bytes) return TooLong(message, parts.payload_bytes, max_bytes);
  try {
    WriteEnvelope(envelope, message, parts.payloads, parts.builder.initRoot<schema::Envelope>());
  } catch (const kj::Exception& error) {  // a text or list beyond Cap'n Proto's own limits
    return OutOfRange(std::string("frame of ") + MessageName(message) + ": " +
                      error.getDescription().cStr());
  }
  parts.envelope_bytes = CapnpBytes(parts.builder);
  if (parts.size() > max_bytes) return TooLong(message, parts.size(), max_bytes);
  return Status::Ok();
}

}  // namespace

Status CheckFrameSize(const Message& message, std::size_t max_bytes) {
  FrameParts parts;
  return MakeParts({}, message, max_bytes, parts);
}

Result<std::string> EncodeFrame(const Envelope& envelope, const Message& message,
                                std::size_t max_bytes) {
  FrameParts parts;
  THRESHER_RETURN_IF_ERROR(MakeParts(envelope, message, max_bytes, parts));
  std::string frame;
  frame.reserve(parts.size());
  frame.append(kMagic, sizeof kMagic);
  AppendLittle<std::uint16_t>(frame, kProtocolVersion);
  AppendLittle<std::uint8_t>(frame, static_cast<std::uint8_t>(message.index()));
  AppendLittle<std::uint8_t>(frame, 0);
  AppendLittle<std::uint32_t>(frame, parts.envelope_bytes + parts.payload_bytes);
  AppendLittle<std::uint32_t>(frame, parts.envelope_bytes);
  AppendCapnp(frame, parts.builder);
  for (std::string_view payload : parts.payloads) frame.append(payload);
  AppendLittle<std::uint64_t>(frame, HashBytes64(AsBytes(frame)));
  return frame;
}

Result<DecodedFrame> DecodeFrame(const SharedBytes& frame, std::size_t max_bytes) {
  THRESHER_ASSIGN_OR_RETURN(Header header, CheckHeader(frame, max_bytes));
  std::string_view envelope = frame.view().substr(kFrameHeaderBytes, header.envelope_length);
  SharedBytes area = frame.Slice(kFrameHeaderBytes + header.envelope_length,
                                 header.length - header.envelope_length);
  DecodedFrame decoded;
  THRESHER_RETURN_IF_ERROR(
      ReadCapnp<schema::Envelope>(envelope, "frame envelope", [&](schema::Envelope::Reader root) {
        Require(static_cast<std::size_t>(root.which()) == header.kind,
                "holds another message than the header says");
        decoded.envelope.run_id = Read(root.getRunId());
        decoded.envelope.incarnation = Incarnation(root.getIncarnation());
        decoded.envelope.sequence = root.getSequence();
        decoded.message =
            VisitBinding(header.kind, [&](const auto& binding) { return binding.ReadFrom(root); });
        AttachPayloads(decoded.message, CutPayloads(root.getPayloadBytes(), area));
      }));
  return decoded;
}

Result<DecodedFrame> DecodeFrame(std::span<const std::byte> bytes, std::size_t max_bytes) {
  std::string_view frame(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return DecodeFrame(SharedBytes(frame), max_bytes);
}

}  // namespace thresher::wire
