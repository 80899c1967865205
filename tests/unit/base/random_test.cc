#include "common/base/random.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <tuple>
#include <vector>

namespace thresher {
namespace {

using Words4 = std::array<std::uint32_t, 4>;
using Words2 = std::array<std::uint32_t, 2>;

// Philox4x32-10 written from the paper (Salmon et al. 2011, section 3.3), not from the library.
Words4 ReferencePhilox(Words4 c, Words2 k) {
  for (int round = 0; round < 10; ++round) {
    std::uint64_t a = std::uint64_t{0xD2511F53} * c[0];
    std::uint64_t b = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(a)};
    k = {k[0] + 0x9E3779B9, k[1] + 0xBB67AE85};
  }
  return c;
}

struct Identity {
  std::uint64_t seed;
  TrajectoryId id;
  RandomPurpose purpose;
  std::uint16_t lane;
  std::uint32_t position;

  Words4 Block() const { return RandomStream(seed, id, purpose, lane).Block(position); }
};

// The counter of DESIGN section 2: position:24, purpose:8 | lane:16, stream:4, island:12 | item:44,
// sample:20, the first named field of a word in its low bits for the first word, high for the rest.
Words4 ExpectedCounter(const Identity& x) {
  std::uint64_t tail = x.id.item * 1048576 + x.id.sample;
  return {static_cast<std::uint32_t>(x.purpose) * 16777216u + x.position,
          x.lane * 65536u + static_cast<std::uint32_t>(x.id.stream) * 4096u + x.id.island,
          static_cast<std::uint32_t>(tail), static_cast<std::uint32_t>(tail / 4294967296)};
}

// Every combination of edge values of every field, for one seed.
std::vector<Identity> EdgeIdentities(std::uint64_t seed) {
  std::vector<Identity> all;
  for (std::uint32_t position : {0u, 1u, RandomStream::kMaxPosition})
    for (auto purpose : {RandomPurpose::kTask, RandomPurpose::kSample, RandomPurpose::kBootstrap})
      for (std::uint16_t lane : {0, 1, 65535})
        for (auto stream : {Stream::kTrain, Stream::kSupervised, Stream::kUser})
          for (std::uint64_t island :
               {std::uint64_t{0}, std::uint64_t{1}, TrajectoryId::kMaxIsland})
            for (std::uint64_t item : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 12,
                                       TrajectoryId::kMaxItem})
              for (std::uint64_t sample :
                   {std::uint64_t{0}, std::uint64_t{1}, TrajectoryId::kMaxSample})
                all.push_back({seed,
                               {stream, static_cast<std::uint16_t>(island), item,
                                static_cast<std::uint32_t>(sample)},
                               purpose,
                               lane,
                               position});
  return all;
}

// Vectors of the Random123 distribution (kat_vectors, philox4x32 10).
TEST(PhiloxTest, ReferenceGivesThePublishedVectors) {
  EXPECT_EQ(ReferencePhilox({0, 0, 0, 0}, {0, 0}),
            (Words4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(ReferencePhilox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      ReferencePhilox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      (Words4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStreamTest, GivesThePublishedVectorOfTheZeroCounter) {
  Identity zero{0, {Stream::kTrain, 0, 0, 0}, RandomPurpose::kTask, 0, 0};
  EXPECT_EQ(zero.Block(), (Words4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
}

// The digits of pi, read as an identity: fixes where each field lies in the counter and the key.
TEST(RandomStreamTest, GivesThePublishedVectorOfPi) {
  const std::uint64_t tail = 0x0370734413198a2eULL;
  Identity pi{0x299f31d0a4093822ULL,
              {Stream::kTrain, 0x8d3, tail >> 20, static_cast<std::uint32_t>(tail & 0xfffff)},
              static_cast<RandomPurpose>(0x24),
              0x85a3,
              0x3f6a88};
  EXPECT_EQ(pi.Block(), (Words4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStreamTest, CounterHoldsEveryFieldAsWrittenInTheDesign) {
  const std::uint64_t seed = 0x0123456789abcdefULL;
  for (const Identity& x : EdgeIdentities(seed)) {
    ASSERT_EQ(x.Block(), ReferencePhilox(ExpectedCounter(x), {0x89abcdef, 0x01234567}))
        << x.id.ToString();
  }
}

// For one key Philox is a bijection of counters, so two equal blocks mean two equal counters.
TEST(RandomStreamTest, NoTwoIdentitiesOfARunShareABlock) {
  std::vector<Identity> all = EdgeIdentities(42);
  std::set<Words4> blocks;
  for (const Identity& x : all) blocks.insert(x.Block());
  EXPECT_EQ(blocks.size(), all.size());
}

TEST(RandomStreamTest, BothHalvesOfTheSeedMatter) {
  Identity base{1, {Stream::kTrain, 0, 5, 0}, RandomPurpose::kSample, 0, 9};
  Identity high = base;
  high.seed = 1 | (std::uint64_t{1} << 63);
  Identity low = base;
  low.seed = 2;
  EXPECT_NE(base.Block(), high.Block());
  EXPECT_NE(base.Block(), low.Block());
}

// The middle of the cell that the top 52 bits name, computed in integers: with one bit more the
// upper half would round to even and the largest draw to 1.
TEST(RandomStreamTest, UniformIsExactlyTheMiddleOfItsCell) {
  RandomStream stream(7, {Stream::kTrain, 0, 1, 2}, RandomPurpose::kSample);
  double sum = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    double u = stream.Uniform(i);
    Words4 block = stream.Block(i);
    std::uint64_t odd = (((std::uint64_t{block[0]} << 32) | block[1]) >> 12) * 2 + 1;
    ASSERT_EQ(static_cast<std::uint64_t>(u * 0x1.0p53), odd);
    ASSERT_EQ(u * 0x1.0p53, static_cast<double>(odd));
    sum += u;
  }
  EXPECT_NEAR(sum / n, 0.5, 5 * 0.2887 / 316.2);  // five standard errors of the mean
}

TEST(RandomSequenceTest, NextUniformUsesTwoWordsLikeUniform) {
  RandomStream stream(7, {Stream::kTrain, 0, 1, 2}, RandomPurpose::kSample);
  RandomSequence sequence(stream);
  EXPECT_EQ(sequence.NextUniform(), stream.Uniform(0));
}

TEST(RandomStreamDeathTest, PositionAndIdBeyondTheirRangeAreBugs) {
  RandomStream stream(7, {Stream::kTrain, 0, 1, 2}, RandomPurpose::kSample);
  EXPECT_DEATH((void)stream.Block(RandomStream::kMaxPosition + 1), "position");
  TrajectoryId outside{Stream::kTrain, 0, TrajectoryId::kMaxItem + 1, 0};
  EXPECT_DEATH(RandomStream(7, outside, RandomPurpose::kSample), "out of range");
}

RandomSequence Sequence(std::uint64_t seed) {
  return RandomSequence(seed, {Stream::kTrain, 0, 3, 0}, RandomPurpose::kTask);
}

TEST(RandomSequenceTest, HandsOutTheWordsOfSuccessiveBlocks) {
  RandomStream stream(11, {Stream::kTrain, 0, 3, 0}, RandomPurpose::kTask);
  RandomSequence sequence = Sequence(11);
  for (std::uint32_t position = 0; position < 3; ++position) {
    for (std::uint32_t word : stream.Block(position)) EXPECT_EQ(sequence.NextU32(), word);
  }
}

TEST(RandomSequenceTest, BelowStaysBelowForEveryKindOfBound) {
  RandomSequence sequence = Sequence(12);
  for (std::uint64_t bound :
       {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{10}, (std::uint64_t{1} << 32) + 1,
        std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    for (int i = 0; i < 1000; ++i) ASSERT_LT(sequence.Below(bound), bound);
  }
}

// Chi-square with 9 degrees of freedom: above 33.7 with probability 1e-4. The seed is fixed.
TEST(RandomSequenceTest, BelowIsUniformOverASmallBound) {
  RandomSequence sequence = Sequence(13);
  const int n = 100000;
  std::array<int, 10> counts{};
  for (int i = 0; i < n; ++i) ++counts[sequence.Below(10)];
  double chi2 = 0;
  for (int count : counts) chi2 += (count - n / 10.0) * (count - n / 10.0) / (n / 10.0);
  EXPECT_LT(chi2, 33.7);
}

// With bound = 3 * 2^62, taking the high product without rejection gives a third of the values
// twice the weight: residues mod 3 of (value) would come 2:1:1. Rejection gives a third each.
TEST(RandomSequenceTest, BelowRejectsSoThatAHugeBoundHasNoBias) {
  RandomSequence sequence = Sequence(14);
  const std::uint64_t bound = std::uint64_t{3} << 62;
  const int n = 60000;
  std::array<int, 3> counts{};
  for (int i = 0; i < n; ++i) ++counts[sequence.Below(bound) % 3];
  for (int count : counts) EXPECT_NEAR(count, n / 3.0, 5 * 115.5);  // five standard deviations
}

TEST(RandomSequenceTest, BetweenReachesBothEndsAndNothingElse) {
  RandomSequence sequence = Sequence(15);
  std::set<std::int64_t> seen;
  for (int i = 0; i < 500; ++i) seen.insert(sequence.Between(-2, 2));
  EXPECT_EQ(seen, (std::set<std::int64_t>{-2, -1, 0, 1, 2}));
  EXPECT_EQ(sequence.Between(5, 5), 5);
}

TEST(RandomSequenceTest, BetweenCoversTheWholeSignedRange) {
  RandomSequence sequence = Sequence(16);
  int negative = 0;
  for (int i = 0; i < 1000; ++i) negative += sequence.Between(INT64_MIN, INT64_MAX) < 0;
  EXPECT_NEAR(negative, 500, 80);  // five standard deviations
}

TEST(RandomSequenceDeathTest, EmptyRangesAreBugs) {
  RandomSequence sequence = Sequence(17);
  EXPECT_DEATH((void)sequence.Below(0), "Below");
  EXPECT_DEATH((void)sequence.Between(1, 0), "Between");
}

}  // namespace
}  // namespace thresher
