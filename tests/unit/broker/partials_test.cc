#include "broker/partials.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "broker/token_tally.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

TrajectoryId Sample(std::uint32_t n) { return Id(Stream::kTrain, n / 4, n % 4); }

TEST(Partials, OfASampleTheLongestIsKept) {
  Partials partials;
  EXPECT_FALSE(partials.Wants(Sample(1), {0}));
  EXPECT_TRUE(partials.Wants(Sample(1), {3}));
  partials.Put(Sample(1), {3}, "abc");
  EXPECT_FALSE(partials.Wants(Sample(1), {3}));
  EXPECT_TRUE(partials.Wants(Sample(1), {4}));
  EXPECT_EQ(partials.Find(Sample(1))->unwritten, std::string("abc"));
  EXPECT_EQ(partials.bytes(), 3u);
  EXPECT_EQ(partials.tokens(), 3u);
}

TEST(Partials, AShorterOneStaysOnTheDiskUntilALongerOneIs) {
  Partials partials;
  const std::uint64_t first = partials.Put(Sample(1), {3}, "abc");
  const Partials::Written written[] = {{Sample(1), first, {2, 32}}};
  partials.NoteWritten(written);
  const std::uint64_t second = partials.Put(Sample(1), {5}, "abcde");
  EXPECT_EQ(partials.OldestSegment(), 2u);
  EXPECT_FALSE(partials.Find(Sample(1))->unwritten.empty());
  const Partials::Written later[] = {{Sample(1), second, {7, 32}}};
  partials.NoteWritten(later);
  EXPECT_EQ(partials.OldestSegment(), 7u);
  EXPECT_TRUE(partials.Find(Sample(1))->unwritten.empty());
}

TEST(Partials, OneThatIsWrittenAfterALongerOneCameStaysUntilThatOneIs) {
  Partials partials;
  const std::uint64_t first = partials.Put(Sample(1), {3}, "abc");
  const std::uint64_t second = partials.Put(Sample(1), {5}, "abcde");
  const Partials::Written written[] = {{Sample(1), first, {2, 32}}};
  partials.NoteWritten(written);
  EXPECT_EQ(partials.OldestSegment(), 2u);
  EXPECT_EQ(partials.Find(Sample(1))->unwritten, std::string("abcde"));
  const Partials::Written later[] = {{Sample(1), second, {7, 32}}};
  partials.NoteWritten(later);
  EXPECT_EQ(partials.OldestSegment(), 7u);
}

TEST(Partials, WhatOtherNumericsMadeTakesThePlaceOfALongerOne) {
  Partials partials;
  partials.Put(Sample(1), {9, H("these")}, "abcdefghi");
  EXPECT_FALSE(partials.Wants(Sample(1), {4, H("these")}));
  EXPECT_TRUE(partials.Wants(Sample(1), {4, H("those")}));
  partials.Put(Sample(1), {4, H("those")}, "abcd");
  EXPECT_EQ(partials.tokens(), 4u);
  EXPECT_EQ(partials.bytes(), 4u);
  EXPECT_TRUE(partials.Wants(Sample(1), {2, H("these")}));
}

// A map, and a walk over it where a question is asked.
class Naive {
 public:
  struct Kept {
    std::uint32_t tokens = 0;
    std::string bytes;
    std::uint64_t number = 0;
    bool written = false;
    LogPosition place;
  };
  std::map<TrajectoryId, Kept> kept;

  std::optional<std::uint32_t> OldestSegment() const {
    std::optional<std::uint32_t> oldest;
    for (const auto& [id, one] : kept) {
      if (one.place.segment > 0) {
        oldest = std::min(oldest.value_or(UINT32_MAX), one.place.segment);
      }
    }
    return oldest;
  }
};

TEST(Partials, DoesWhatANaiveMapDoes) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    Partials partials;
    Naive naive;
    std::vector<Partials::Written> under_way;
    std::uint32_t segment = 1;
    for (int i = 0; i < 200; ++i) {
      const TrajectoryId id = Sample(random() % 12);
      switch (random() % 5) {
        case 0:
        case 1: {
          const std::uint32_t tokens = random() % 20;
          const auto known = naive.kept.find(id);
          const bool wanted = tokens > (known == naive.kept.end() ? 0 : known->second.tokens);
          ASSERT_EQ(partials.Wants(id, {tokens}), wanted);
          if (!wanted) break;
          const std::string bytes(tokens * 2, 'x');
          Naive::Kept& kept = naive.kept[id];
          kept.tokens = tokens;
          kept.bytes = bytes;
          kept.written = false;
          kept.number = partials.Put(id, {tokens}, bytes);
          under_way.push_back({id, kept.number, {segment, static_cast<std::uint64_t>(i)}});
          break;
        }
        case 2:
          partials.NoteWritten(under_way);
          for (const auto& written : under_way) {
            auto known = naive.kept.find(written.id);
            if (known == naive.kept.end() || known->second.number < written.number) continue;
            known->second.written |= known->second.number == written.number;
            known->second.place = written.place;
          }
          under_way.clear();
          ++segment;
          break;
        case 3:
          partials.Drop(id);
          naive.kept.erase(id);
          break;
        default: {
          const std::uint32_t tokens = random() % 20 + 1;
          const LogPosition place{segment, 1000 + static_cast<std::uint64_t>(i)};
          const auto known = naive.kept.find(id);
          if (known != naive.kept.end() && !known->second.written) break;
          partials.Adopt(id, {tokens}, tokens, place);  // the last one, also if it is shorter
          const std::uint64_t number = known == naive.kept.end() ? 0 : known->second.number;
          naive.kept[id] = {tokens, std::string(tokens, 'x'), number, true, place};
        }
      }
      std::uint64_t bytes = 0, tokens = 0;
      ASSERT_EQ(partials.size(), naive.kept.size());
      for (const auto& [known, kept] : naive.kept) {
        bytes += kept.bytes.size();
        tokens += kept.tokens;
        const Partials::Kept* found = partials.Find(known);
        ASSERT_NE(found, nullptr);
        ASSERT_EQ(found->tokens, kept.tokens);
        ASSERT_EQ(found->unwritten.empty(), kept.written);
        ASSERT_EQ(found->place, kept.place);
        if (kept.place.segment > 0) {
          const auto there = partials.In(kept.place.segment, 100);
          ASSERT_TRUE(std::ranges::count(there, known) == 1);
        }
      }
      ASSERT_EQ(partials.bytes(), bytes);
      ASSERT_EQ(partials.tokens(), tokens);
      ASSERT_EQ(partials.OldestSegment(), naive.OldestSegment());
    }
  }
}

TEST(TokenTally, WhatAKilledProcessHadAloneIsLost) {
  TokenTally tally;
  tally.Speaks(ActorId(1), Incarnation(10));
  tally.Note(ActorId(1), {300, 0, 0});
  EXPECT_EQ(tally.twice(), 0u);
  tally.Speaks(ActorId(1), Incarnation(10));  // a reconnect
  EXPECT_EQ(tally.twice(), 0u);
  tally.Speaks(ActorId(1), Incarnation(11));
  EXPECT_EQ(tally.twice(), 300u);
  tally.Note(ActorId(1), {50, 0, 0});
  tally.Silent(ActorId(1));
  EXPECT_EQ(tally.twice(), 350u);
  // It was only slow.
  tally.Note(ActorId(1), {60, 0, 0});
  EXPECT_EQ(tally.twice(), 300u);
  tally.Silent(ActorId(1));
  tally.Speaks(ActorId(1), Incarnation(11));
  EXPECT_EQ(tally.twice(), 300u);
  tally.Silent(ActorId(1));
  EXPECT_EQ(tally.twice(), 360u);
  tally.Speaks(ActorId(1), Incarnation(12));
  EXPECT_EQ(tally.twice(), 360u);
}

TEST(TokenTally, WhoLeavesSaysWhatItGaveUp) {
  TokenTally tally;
  tally.Speaks(ActorId(1), Incarnation(10));
  tally.Note(ActorId(1), {300, 20, 0});
  EXPECT_EQ(tally.twice(), 20u);
  tally.Leaves(ActorId(1), 25, 600);
  EXPECT_EQ(tally.continued(), 600u);
  EXPECT_EQ(tally.twice(), 25u);
  tally.Speaks(ActorId(1), Incarnation(11));
  EXPECT_EQ(tally.twice(), 25u);
}

TEST(TokenTally, AnotherBrokerTakesUnsavedTokensForLostUntilTheirProcessSpeaks) {
  TokenTally before;
  before.Add(7);
  before.Speaks(ActorId(1), Incarnation(10));
  before.Speaks(ActorId(2), Incarnation(20));
  before.Note(ActorId(1), {300, 3, 0});
  before.Note(ActorId(2), {100, 0, 0});
  TokenTally after = TokenTally::Decode(before.Encode()).value();
  EXPECT_EQ(after.twice(), 410u);
  after.Speaks(ActorId(1), Incarnation(10));
  EXPECT_EQ(after.twice(), 110u);
  after.Note(ActorId(1), {310, 3, 0});
  EXPECT_EQ(after.twice(), 110u);
  after.Speaks(ActorId(2), Incarnation(21));
  EXPECT_EQ(after.twice(), 110u);
  EXPECT_EQ(TokenTally::Decode(after.Encode()).value().twice(), 420u);
  EXPECT_EQ(TokenTally::Decode("short").status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(TokenTally::Decode(before.Encode() + "x").status().code(), StatusCode::kDataLoss);
}

TEST(TokenTally, WhatAProcessWentOnWithIsCountedOnce) {
  TokenTally tally;
  tally.Speaks(ActorId(1), Incarnation(10));
  tally.Note(ActorId(1), {0, 0, 300});
  tally.Note(ActorId(1), {0, 0, 300});
  tally.Note(ActorId(1), {0, 0, 500});
  TokenTally after = TokenTally::Decode(tally.Encode()).value();
  after.Speaks(ActorId(1), Incarnation(10));
  after.Note(ActorId(1), {0, 0, 510});
  EXPECT_EQ(after.continued(), 510u);
  after.Speaks(ActorId(1), Incarnation(11));
  after.Note(ActorId(1), {0, 0, 40});
  EXPECT_EQ(after.continued(), 550u);
  EXPECT_EQ(after.twice(), 0u);
}

}  // namespace
}  // namespace thresher::broker
