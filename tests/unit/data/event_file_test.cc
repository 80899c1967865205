#include "common/data/event_file.h"

#include <gtest/gtest.h>

#include <limits>

namespace thresher {
namespace {

std::string Hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (char c : bytes) {
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[c & 15];
  }
  return text;
}

// Decoded by hand. TensorBoard's own reader takes what a run writes (tests/integration/farm).
TEST(EventFile, TheHeadNamesTheVersion) {
  EXPECT_EQ(Hex(EventFileHead(1.5)),
            "1800000000000000"    // 24 bytes
            "a37f4b22"            // masked CRC of the length
            "09000000000000f83f"  // wall_time = 1.5
            "1a0d"                // file_version, 13 bytes
            "627261696e2e4576656e743a32"
            "2a28646c");
}

TEST(EventFile, AnEventHoldsTimeStepAndNumbers) {
  const std::string record = EncodeEvent({2.0, 300, {{"a/b", 1.0f}, {"c", -0.5f}}});
  EXPECT_EQ(Hex(record.substr(12, record.size() - 16)),
            "090000000000000040"  // wall_time = 2
            "10ac02"              // step = 300
            "2a16"                // summary, 22 bytes
            "0a0a"                // value, 10 bytes
            "0a03612f62"          // tag
            "150000803f"          // simple_value = 1
            "0a08"                // value, 8 bytes
            "0a0163"
            "15000000bf");
}

TEST(EventFile, AStepBelowZeroTakesTenBytesAsProtobufHasIt) {
  const std::string record = EncodeEvent({0, -1, {}});
  EXPECT_EQ(Hex(record.substr(12 + 9, 12)), "10ffffffffffffffffff012a");
}

TEST(EventFile, TheLastWholeEventIsFound) {
  const std::string head = EventFileHead(1), first = EncodeEvent({2, 0, {{"x", 1.0f}}});
  const std::string second = EncodeEvent({3.25, 1, {{"x", 2.0f}}});
  const std::string file = head + first + second;
  EXPECT_FALSE(FindLastEvent(""));
  EXPECT_FALSE(FindLastEvent(head));
  for (std::size_t size = 0; size <= file.size(); ++size) {
    const auto found = FindLastEvent(std::string_view(file).substr(0, size));
    const std::size_t whole = size < head.size() + first.size() ? 0 : size < file.size() ? 1 : 2;
    ASSERT_EQ(found.has_value(), whole > 0) << size;
    if (!found) continue;
    EXPECT_EQ(found->record, whole == 1 ? first : second) << size;
    EXPECT_EQ(found->wall_time, whole == 1 ? 2 : 3.25);
  }
}

TEST(EventFile, ADamagedRecordEndsTheReading) {
  const std::string first = EncodeEvent({2, 0, {{"x", 1.0f}}});
  const std::string file = first + EncodeEvent({3, 1, {{"x", 2.0f}}});
  for (std::size_t at = first.size(); at < file.size(); ++at) {
    std::string damaged = file;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    ASSERT_EQ(FindLastEvent(damaged)->record, first) << at;
  }
}

TEST(EventFile, ALengthBeyondTheFileIsNotBelieved) {
  std::string file = EncodeEvent({2, 0, {}});
  file.replace(0, 8, std::string(8, '\xff'));
  EXPECT_FALSE(FindLastEvent(file));
}

}  // namespace
}  // namespace thresher
