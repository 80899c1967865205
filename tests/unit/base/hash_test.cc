#include "common/base/hash.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace thresher {
namespace {

std::vector<std::byte> Bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 131 + 7) >> 3);
  return bytes;
}

// Sizes around the boundaries of XXH3: 0, 16, 128, 240, one block (1024), several blocks.
TEST(Hasher128Test, PiecesOfAnySizeGiveTheHashOfTheWhole) {
  for (std::size_t size :
       {0u, 1u, 16u, 17u, 128u, 129u, 240u, 241u, 1024u, 1025u, 2048u, 2049u, 10000u}) {
    std::vector<std::byte> bytes = Bytes(size);
    for (std::size_t piece : {1u, 7u, 64u, 1000u, 2048u, 3000u}) {
      Hasher128 hasher;
      for (std::size_t at = 0; at < size; at += piece) {
        hasher.Update(std::span(bytes).subspan(at, std::min(piece, size - at)));
      }
      EXPECT_EQ(hasher.Finish(), HashBytes128(bytes)) << size << " in pieces of " << piece;
    }
  }
}

// The published value of XXH3-128 of no bytes, seed 0: fixes the algorithm and the order of halves.
TEST(HashTest, EmptyInputHasThePublishedValue) {
  EXPECT_EQ(HashText128("").ToString(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(HashBytes64({}), 0x2d06800538d394c2ULL);
}

// The check values of RFC 3720, B.4.
TEST(HashTest, Crc32cHasThePublishedValues) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
}

TEST(HashTest, TextAndBytesAgree) {
  std::string text = "thresher";
  EXPECT_EQ(HashText128(text), HashBytes128(std::as_bytes(std::span(text))));
}

TEST(HashTest, OneFlippedBitAnywhereChangesBothHashes) {
  std::vector<std::byte> bytes = Bytes(300);
  Hash128 before = HashBytes128(bytes);
  std::uint64_t before64 = HashBytes64(bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= std::byte{1};
    EXPECT_NE(HashBytes128(bytes), before) << i;
    EXPECT_NE(HashBytes64(bytes), before64) << i;
    bytes[i] ^= std::byte{1};
  }
}

TEST(Hasher128Test, IntegersAreHashedAsLittleEndianBytes) {
  Hasher128 integer;
  integer.UpdateU64(0x0807060504030201ULL);
  EXPECT_EQ(integer.Finish(), HashText128("\x01\x02\x03\x04\x05\x06\x07\x08"));
}

TEST(Hasher128Test, AHashIsHashedHighHalfFirst) {
  Hasher128 hash;
  hash.UpdateHash({1, 2});
  Hasher128 parts;
  parts.UpdateU64(1);
  parts.UpdateU64(2);
  EXPECT_EQ(hash.Finish(), parts.Finish());
}

TEST(Hasher128Test, FinishLeavesTheStateToBeContinued) {
  Hasher128 hasher;
  hasher.Update("thre");
  EXPECT_EQ(hasher.Finish(), HashText128("thre"));
  hasher.Update("sher");
  EXPECT_EQ(hasher.Finish(), HashText128("thresher"));
}

TEST(Hasher128Test, MovedHasherContinuesItsInput) {
  Hasher128 first;
  first.Update("thre");
  Hasher128 second(std::move(first));
  second.Update("sher");
  EXPECT_EQ(second.Finish(), HashText128("thresher"));
  Hasher128 third;
  third = std::move(second);
  EXPECT_EQ(third.Finish(), HashText128("thresher"));
}

}  // namespace
}  // namespace thresher
