#include "common/base/ids.h"

#include <gtest/gtest.h>

#include <string>
#include <unordered_set>
#include <vector>

namespace thresher {
namespace {

TrajectoryId Id(Stream stream, std::uint64_t island, std::uint64_t item, std::uint64_t sample) {
  return {stream, static_cast<std::uint16_t>(island), item, static_cast<std::uint32_t>(sample)};
}

std::vector<TrajectoryId> IdsAtTheEdgesOfEveryPart() {
  std::vector<TrajectoryId> ids;
  for (int stream = 0; stream < kStreamCount; ++stream) {
    for (std::uint64_t island : {std::uint64_t{0}, std::uint64_t{1}, TrajectoryId::kMaxIsland}) {
      for (std::uint64_t item : {std::uint64_t{0}, std::uint64_t{1} << 31, std::uint64_t{1} << 32,
                                 TrajectoryId::kMaxItem}) {
        for (std::uint64_t sample :
             {std::uint64_t{0}, std::uint64_t{7}, TrajectoryId::kMaxSample}) {
          ids.push_back(Id(static_cast<Stream>(stream), island, item, sample));
        }
      }
    }
  }
  return ids;
}

TEST(TrajectoryIdTest, TextOfEveryEdgeParsesBackToTheSameId) {
  for (const TrajectoryId& id : IdsAtTheEdgesOfEveryPart()) {
    auto parsed = TrajectoryId::Parse(id.ToString());
    ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
    EXPECT_EQ(*parsed, id);
  }
}

TEST(TrajectoryIdTest, TextNamesStreamIslandItemSample) {
  EXPECT_EQ(Id(Stream::kEval, 3, 1234, 5).ToString(), "eval/3/1234/5");
}

TEST(TrajectoryIdTest, RefusesEveryBadTextAndNamesThePart) {
  struct Case {
    const char* text;
    const char* named;
  };
  const Case cases[] = {
      {"", "allowed"},
      {"train", "allowed"},
      {"trian/0/1/2", "stream"},
      {"/0/1/2", "stream"},
      {"train/", "island"},
      {"train/x/1/2", "island"},
      {"train/4096/1/2", "island"},
      {"train/0/-1/2", "item"},
      {"train/0/17592186044416/2", "item"},
      {"train/0/99999999999999999999999/2", "item"},
      {"train/0/1", "sample"},
      {"train/0/1/", "sample"},
      {"train/0/1/1048576", "sample"},
      {"train/0/1/2x", "sample"},
      {"train/0/1/ 2", "sample"},
      {"train/0/1/2/", "trailing"},
      {"train/0/1/2/3", "trailing"},
  };
  for (const Case& c : cases) {
    auto parsed = TrajectoryId::Parse(c.text);
    ASSERT_FALSE(parsed.ok()) << c.text << " became " << parsed->ToString();
    EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument) << c.text;
    EXPECT_NE(parsed.status().message().find(c.named), std::string::npos)
        << c.text << ": " << parsed.status().message();
  }
}

TEST(TrajectoryIdTest, InRangeHoldsAtTheEdgeAndFailsBeyond) {
  EXPECT_TRUE(
      Id(Stream::kUser, TrajectoryId::kMaxIsland, TrajectoryId::kMaxItem, TrajectoryId::kMaxSample)
          .InRange());
  EXPECT_FALSE(Id(Stream::kTrain, TrajectoryId::kMaxIsland + 1, 0, 0).InRange());
  EXPECT_FALSE(Id(Stream::kTrain, 0, TrajectoryId::kMaxItem + 1, 0).InRange());
  EXPECT_FALSE(Id(Stream::kTrain, 0, 0, TrajectoryId::kMaxSample + 1).InRange());
  EXPECT_FALSE(Id(static_cast<Stream>(kStreamCount), 0, 0, 0).InRange());
}

TEST(TrajectoryIdTest, HashesOfTheEdgesDiffer) {
  std::unordered_set<std::size_t> hashes;
  std::vector<TrajectoryId> ids = IdsAtTheEdgesOfEveryPart();
  for (const TrajectoryId& id : ids) hashes.insert(std::hash<TrajectoryId>{}(id));
  EXPECT_EQ(hashes.size(), ids.size());
}

TEST(StreamTest, EveryNameParsesBack) {
  for (int i = 0; i < kStreamCount; ++i) {
    Stream stream = static_cast<Stream>(i);
    auto parsed = ParseStream(StreamName(stream));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, stream);
  }
  EXPECT_FALSE(ParseStream("Train").ok());
}

TEST(Hash128Test, TextParsesBackWithLeadingZeros) {
  Hash128 hash{0x00000000000000afULL, 0x0123456789abcdefULL};
  EXPECT_EQ(hash.ToString(), "00000000000000af0123456789abcdef");
  auto parsed = Hash128::Parse(hash.ToString());
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(*parsed, hash);
}

TEST(Hash128Test, RefusesTextThatIsNot32HexadecimalDigits) {
  const std::string good(32, 'a');
  ASSERT_TRUE(Hash128::Parse(good).ok());
  EXPECT_FALSE(Hash128::Parse("").ok());
  EXPECT_FALSE(Hash128::Parse(good.substr(1)).ok());
  EXPECT_FALSE(Hash128::Parse(good + "a").ok());
  for (std::size_t position : {0u, 15u, 16u, 31u}) {
    std::string bad = good;
    bad[position] = 'g';
    EXPECT_FALSE(Hash128::Parse(bad).ok()) << bad;
  }
}

TEST(PolicyVersionTest, OrdersByLineageThenStep) {
  EXPECT_LT((PolicyVersion{0, 900}), (PolicyVersion{1, 0}));
  EXPECT_LT((PolicyVersion{1, 3}), (PolicyVersion{1, 4}));
  EXPECT_EQ((PolicyVersion{2, 140}).ToString(), "2.140");
}

TEST(IncarnationTest, IsNeverZeroAndDiffersBetweenStarts) {
  std::unordered_set<std::uint64_t> seen;
  for (int i = 0; i < 100; ++i) seen.insert(NewIncarnation().value);
  EXPECT_EQ(seen.size(), 100u);  // a collision of 100 random 64-bit numbers: 3e-16
  EXPECT_FALSE(seen.contains(0));
}

}  // namespace
}  // namespace thresher
