#include "common/wire/protocol_version.h"

#include <gtest/gtest.h>

#include "common/base/hash.h"
#include "common/data/byte_order.h"

namespace thresher::wire {
namespace {

// The bytes are for ever: a program of any version reads them.
TEST(ProtocolVersion, ARefusalHasTheseBytes) {
  const std::string bytes = EncodeVersionRefusal({2, 5});
  std::string expected("THR1\x05\x00\xff\x00\x02\x00\x05\x00\x00\x00\x00\x00", 16);
  AppendLittle<std::uint64_t>(expected, HashBytes64(AsBytes(expected)));
  EXPECT_EQ(bytes, expected);
  EXPECT_EQ(DecodeVersionRefusal(AsBytes(bytes)), (ProtocolVersions{2, 5}));
}

TEST(ProtocolVersion, EveryCutAndEveryFlippedByteIsNoRefusal) {
  const std::string bytes = EncodeVersionRefusal(kSpokenVersions);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_EQ(DecodeVersionRefusal(AsBytes(bytes.substr(0, i))), std::nullopt) << i;
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x10);
    EXPECT_EQ(DecodeVersionRefusal(AsBytes(flipped)), std::nullopt) << i;
  }
  EXPECT_EQ(DecodeVersionRefusal(AsBytes(bytes + "x")), std::nullopt);
}

TEST(ProtocolVersion, AFrameTellsItsVersionAndIsNoRefusal) {
  const std::string frame = EncodeFrame({}, Goodbye{"x"}).value();
  EXPECT_EQ(VersionOf(AsBytes(frame)), kProtocolVersion);
  EXPECT_TRUE(Speaks(kProtocolVersion));
  EXPECT_EQ(DecodeVersionRefusal(AsBytes(frame)), std::nullopt);
  EXPECT_EQ(VersionOf(AsBytes(std::string("THR1\x2a\x01", 6))), 298);
  EXPECT_FALSE(Speaks(298));
  EXPECT_FALSE(Speaks(0));
  EXPECT_EQ(VersionOf(AsBytes(std::string("THR1\x2a", 5))), std::nullopt);
  EXPECT_EQ(VersionOf(AsBytes(std::string("HTTP\x2a\x01", 6))), std::nullopt);
  EXPECT_EQ(VersionOf({}), std::nullopt);
}

TEST(ProtocolVersion, ARefusalIsNoFrameOfOurs) {
  EXPECT_FALSE(DecodeFrame(AsBytes(EncodeVersionRefusal(kSpokenVersions))).ok());
}

TEST(ProtocolVersion, VersionsReadAsWords) {
  EXPECT_EQ((ProtocolVersions{1, 1}).ToString(), "1");
  EXPECT_EQ((ProtocolVersions{1, 3}).ToString(), "1 to 3");
}

}  // namespace
}  // namespace thresher::wire
