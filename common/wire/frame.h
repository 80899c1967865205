#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/base/shared_bytes.h"
#include "common/base/status.h"
#include "common/wire/messages.h"

namespace thresher::wire {

// Frame layout, little-endian:
//   0  magic "THR1"   4  protocol version u16   6  kind u8 (Message index)   7  flags u8 (0)
//   8  length u32 of everything after the header, without the checksum
//  12  length u32 of the Cap'n Proto envelope; the rest up to `length` are payload segments
//  16  envelope, payload segments (records, chunk bytes)
//  ..  XXH3-64 of all bytes before it
inline constexpr std::uint16_t kProtocolVersion = 1;
inline constexpr std::size_t kFrameHeaderBytes = 16;
inline constexpr std::size_t kFrameOverheadBytes = kFrameHeaderBytes + 8;
inline constexpr std::size_t kDefaultMaxFrameBytes = 8u << 20;

struct DecodedFrame {
  Envelope envelope;
  Message message;
};

// Error: kOutOfRange when the frame would exceed `max_bytes` (ZeroMQ would drop it silently).
Result<std::string> EncodeFrame(const Envelope& envelope, const Message& message,
                                std::size_t max_bytes = kDefaultMaxFrameBytes);
// The same error, without making the frame.
Status CheckFrameSize(const Message& message, std::size_t max_bytes = kDefaultMaxFrameBytes);
// Payload segments of the message are slices of `frame`: they keep the whole of it. Validates
// everything before allocating for it: never crashes, whatever the bytes. Errors: kInvalidArgument
// (not ours: magic, version, kind), kOutOfRange (longer than max_bytes or lengths that do not fit),
// kDataLoss (checksum, malformed envelope).
Result<DecodedFrame> DecodeFrame(const SharedBytes& frame,
                                 std::size_t max_bytes = kDefaultMaxFrameBytes);
// The same of bytes that somebody else owns, from a copy of them.
Result<DecodedFrame> DecodeFrame(std::span<const std::byte> bytes,
                                 std::size_t max_bytes = kDefaultMaxFrameBytes);

}  // namespace thresher::wire
