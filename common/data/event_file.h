#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thresher {

// TensorBoard's event files, bytes only. A file is a chain of records (TFRecord):
//   length u64, masked CRC-32C of these 8 bytes u32, `length` bytes, their masked CRC-32C u32,
// little-endian; masked: ((crc >> 15) | (crc << 17)) + 0xa282ead8. The bytes are a protobuf message
//   Event   { wall_time = 1: double; step = 2: int64; file_version = 3: string; summary = 5:
//   Summary } Summary { value = 1: repeated Value }      Value { tag = 1: string; simple_value = 2:
//   float }
// Sources: TensorFlow's lib/io/record_writer.h, util/event.proto, framework/summary.proto.

struct ScalarEvent {
  double wall_time = 0;  // Unix seconds
  std::int64_t step = 0;
  std::vector<std::pair<std::string, float>> scalars;  // tag, value
};

// The record that a file begins with.
std::string EventFileHead(double wall_time);
// One record.
std::string EncodeEvent(const ScalarEvent& event);

// The last record of a file that has a summary.
struct LastEvent {
  double wall_time = 0;
  std::string_view record;  // with its frame; borrows from the file's bytes
};
// Reads up to the first record that is not whole (a process died in it). Nothing: no such record.
std::optional<LastEvent> FindLastEvent(std::string_view file);

}  // namespace thresher
