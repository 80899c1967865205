#include "broker/payload_store.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <random>

#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

TrajectoryId Id(std::uint64_t item) { return {Stream::kTrain, 0, item, 0}; }

// `count` slices of `bytes` bytes each, of one frame with `rest` bytes beside them.
std::vector<SharedBytes> Frame(std::size_t count, std::size_t bytes, std::size_t rest = 0) {
  std::string text(count * bytes + rest, '.');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / bytes % 26);
  const SharedBytes frame(std::move(text));
  std::vector<SharedBytes> slices;
  for (std::size_t i = 0; i < count; ++i) slices.push_back(frame.Slice(i * bytes, bytes));
  return slices;
}

Result<SharedBytes> Get(PayloadStore& store, std::uint64_t item) {
  const TrajectoryId id = Id(item);
  THRESHER_ASSIGN_OR_RETURN(const std::vector<SharedBytes> bytes, store.Get({&id, 1}));
  return bytes.front();
}

TEST(PayloadStoreTest, KeepsSlicesWithoutCopyingWhileMostOfTheirFrameIsNeeded) {
  PayloadStore store("/nowhere", 1 << 20);
  const auto slices = Frame(4, 100, 24);
  for (std::size_t i = 0; i < 4; ++i) store.Put(Id(i), slices[i]);
  store.Settle();
  EXPECT_EQ(store.cached_bytes(), 424u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(Get(store, i)->data(), slices[i].data());
}

TEST(PayloadStoreTest, ASmallSliceDoesNotKeepALargeFrame) {
  PayloadStore store("/nowhere", 16u << 20);
  store.Put(Id(1), Frame(1, 1000, 8u << 20)[0]);
  EXPECT_EQ(store.cached_bytes(), (8u << 20) + 1000);
  store.Settle();
  EXPECT_EQ(store.cached_bytes(), 1000u);
  EXPECT_EQ(Get(store, 1)->owner_bytes(), 1000u);
  EXPECT_EQ(Get(store, 1)->view(), std::string(1000, 'a'));
}

TEST(PayloadStoreTest, WhatIsLeftOfAFrameIsCopiedOutOfIt) {
  PayloadStore store("/nowhere", 1 << 20);
  const auto slices = Frame(4, 100);
  for (std::size_t i = 0; i < 4; ++i) store.Put(Id(i), slices[i]);
  store.Release(Id(0));
  store.Release(Id(1));
  store.Settle();
  EXPECT_EQ(store.cached_bytes(), 400u);  // half of it is still needed
  store.Release(Id(2));
  EXPECT_EQ(store.cached_bytes(), 400u);
  store.Settle();
  EXPECT_EQ(store.cached_bytes(), 100u);
  EXPECT_EQ(Get(store, 3)->view(), slices[3].view());
  EXPECT_NE(Get(store, 3)->data(), slices[3].data());
  store.Release(Id(3));
  EXPECT_EQ(store.cached_bytes(), 0u);
}

TEST(PayloadStoreTest, WhatCameFirstStays) {
  PayloadStore store("/nowhere", 1000);
  for (std::size_t i = 0; i < 20; ++i) store.Put(Id(i), Frame(1, 100)[0]);
  EXPECT_EQ(store.cached_bytes(), 1000u);
  EXPECT_EQ(Get(store, 9)->size(), 100u);
  EXPECT_EQ(Get(store, 10).status().code(), StatusCode::kNotFound);  // not written yet
}

TEST(PayloadStoreTest, WhatIsTrainedMakesRoomOldestFirst) {
  PayloadStore store("/nowhere", 1000);
  for (std::size_t i = 0; i < 10; ++i) store.Put(Id(i), Frame(1, 100)[0]);
  for (std::size_t i : {3, 1, 7}) store.Spend(Id(i));
  EXPECT_TRUE(Get(store, 3).ok());
  store.Put(Id(10), Frame(2, 50, 100)[0]);  // a frame of 200 bytes
  EXPECT_FALSE(Get(store, 3).ok());
  EXPECT_FALSE(Get(store, 1).ok());
  EXPECT_TRUE(Get(store, 7).ok());
  EXPECT_TRUE(Get(store, 10).ok());
  EXPECT_EQ(store.cached_bytes(), 1000u);
}

TEST(PayloadStoreTest, OriginalsStayWhateverThereIsRoomFor) {
  PayloadStore store("/nowhere", 1000, PayloadStore::Holds::kOriginals);
  for (std::size_t i = 0; i < 20; ++i) store.Put(Id(i), Frame(1, 100)[0]);
  for (std::size_t i = 0; i < 20; ++i) store.Spend(Id(i));
  store.Put(Id(20), Frame(1, 100)[0]);
  for (std::size_t i = 0; i <= 20; ++i) EXPECT_TRUE(Get(store, i).ok()) << i;
  EXPECT_EQ(store.cached_bytes(), 2100u);
  EXPECT_TRUE(store.Has(Id(3)));
  store.Release(Id(3));
  EXPECT_FALSE(store.Has(Id(3)));
  EXPECT_EQ(store.cached_bytes(), 2000u);
}

TEST(PayloadStoreTest, OriginalsThatAreStoredMakeRoom) {
  PayloadStore store("/nowhere", 1000, PayloadStore::Holds::kOriginals);
  for (std::size_t i = 0; i < 10; ++i) store.Put(Id(i), Frame(1, 100)[0]);
  store.NoteStored({{Id(4), {}, {1, 32}, 0}});
  for (std::size_t i : {3, 4}) store.Spend(Id(i));
  store.Put(Id(10), Frame(1, 100)[0]);
  EXPECT_TRUE(Get(store, 3).ok());
  EXPECT_EQ(store.cached_bytes(), 1000u);
  EXPECT_FALSE(Get(store, 4).ok()) << "it lies in a file, which is not there in this test";
}

// A store of 40 records in blocks of four, as the journal writes it.
class StoredPayloads : public testing::Test {
 protected:
  static SharedBytes Bytes(std::uint64_t item) { return std::string(100, static_cast<char>(item)); }
  void SetUp() override {
    auto writer = TrajectoryStoreWriter::Open(folder_.path(), {}).value();
    for (std::uint64_t item = 0; item < 40; item += 4) {
      std::vector<StoredRecord> block;
      for (std::uint64_t i = item; i < item + 4; ++i) {
        // In another order than that of the items, as many actors send them.
        const std::uint64_t other = i * 7 % 40;
        block.push_back({Id(other), Hash128{other, 1}, Bytes(other)});
      }
      const LogPosition position = writer->AppendBlock(block).value();
      for (std::uint32_t n = 0; n < 4; ++n) {
        places_.push_back({block[n].id, block[n].content_hash, position, n});
      }
    }
    ASSERT_TRUE(writer->Flush(false).ok());
  }
  std::vector<TrajectoryId> All() const {
    std::vector<TrajectoryId> ids;
    for (std::uint64_t item = 0; item < 40; ++item) ids.push_back(Id(item));
    return ids;
  }

  TemporaryFolder folder_;
  std::vector<TrajectoryStoreReader::Entry> places_;
};

TEST_F(StoredPayloads, WhatHadNoRoomIsReadBackInOrder) {
  PayloadStore store(folder_.path(), 1500);
  for (std::uint64_t item = 0; item < 40; ++item) store.Put(Id(item), Bytes(item));
  EXPECT_EQ(store.Get(All()).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store.Sizes(All()).value(), std::vector<std::size_t>(40, 100));
  store.NoteStored(places_);
  for (int times = 0; times < 2; ++times) {
    const std::vector<SharedBytes> read = store.Get(All()).value();
    for (std::uint64_t item = 0; item < 40; ++item) EXPECT_EQ(read[item], Bytes(item)) << item;
  }
  EXPECT_EQ(store.reads_from_disk(), 50u);  // what was kept stays
  EXPECT_EQ(store.cached_bytes(), 1500u);
}

TEST_F(StoredPayloads, WhatAnEarlierProcessStoredIsFound) {
  PayloadStore store(folder_.path(), 1500);
  EXPECT_EQ(store.Sizes(All()).value(), std::vector<std::size_t>(40, 100));
  EXPECT_EQ(store.cached_bytes(), 1500u);  // while there is room what is read is kept
  const std::vector<SharedBytes> read = store.Get(All()).value();
  for (std::uint64_t item = 0; item < 40; ++item) EXPECT_EQ(read[item], Bytes(item)) << item;
  EXPECT_EQ(store.reads_from_disk(), 65u);
  const TrajectoryId missing = Id(40);
  EXPECT_EQ(store.Get({&missing, 1}).status().code(), StatusCode::kNotFound);
}

TEST_F(StoredPayloads, WhatWasAdoptedIsReadWithoutLookingForIt) {
  PayloadStore store(folder_.path(), 0);
  std::erase_if(places_, [](const auto& place) { return place.id.item >= 30; });
  store.Adopt(places_);
  EXPECT_TRUE(store.Has(Id(29)));
  EXPECT_FALSE(store.Has(Id(30)));
  std::fstream(folder_.path() / "000001.log", std::ios::in | std::ios::out) << "whoever scans it fails";
  std::vector<TrajectoryId> adopted = All();
  adopted.resize(30);
  EXPECT_EQ(store.Sizes(adopted).value(), std::vector<std::size_t>(30, 100));
  const std::vector<SharedBytes> read = store.Get(adopted).value();
  for (std::uint64_t item = 0; item < 30; ++item) EXPECT_EQ(read[item], Bytes(item)) << item;
  EXPECT_EQ(store.Get(All()).status().code(), StatusCode::kDataLoss);
}

// A learner that falls back behind a checkpoint asks for what was durable.
TEST_F(StoredPayloads, WhatWasReleasedIsFoundAgain) {
  PayloadStore store(folder_.path(), 1500);
  ASSERT_TRUE(store.Get(All()).ok());
  auto writer = TrajectoryStoreWriter::Open(folder_.path(), {}).value();
  const TrajectoryId later = Id(100);
  store.Put(later, Bytes(100));
  const LogPosition position = writer->AppendBlock({{later, Hash128{100, 1}, Bytes(100)}}).value();
  ASSERT_TRUE(writer->Flush(false).ok());
  store.NoteStored({{later, Hash128{100, 1}, position, 0}});
  store.Spend(later);
  store.Release(later);
  EXPECT_EQ(store.Get({&later, 1}).value().front(), Bytes(100));
}

TEST_F(StoredPayloads, ABlockThatHoldsAnotherIsDamage) {
  PayloadStore store(folder_.path(), 0);
  for (std::uint64_t item = 0; item < 40; ++item) store.Put(Id(item), Bytes(item));
  std::swap(places_[0].id, places_[1].id);
  store.NoteStored(places_);
  EXPECT_EQ(store.Get(All()).status().code(), StatusCode::kDataLoss);
}

// Against one that counts every owner anew.
TEST(PayloadStoreTest, CountsWhatItKeepsInMemory) {
  std::mt19937 random(7);
  PayloadStore store("/nowhere", 20000);
  std::map<std::uint64_t, SharedBytes> put;
  for (int round = 0; round < 3000; ++round) {
    const auto slices = Frame(1 + random() % 8, 1 + random() % 200, random() % 400);
    for (const SharedBytes& slice : slices) {
      const std::uint64_t item = random() % 300;
      if (random() % 4 > 0) store.Put(Id(item), slice), put[item] = slice;
    }
    for (int i = 0; i < 4; ++i) store.Release(Id(random() % 300));
    for (int i = 0; i < 4; ++i) store.Spend(Id(random() % 300));
    const bool settled = random() % 3 == 0;
    if (settled) store.Settle();
    std::map<const void*, std::pair<std::size_t, std::size_t>> owners;  // whole, needed
    for (std::uint64_t item = 0; item < 300; ++item) {
      auto bytes = Get(store, item);
      if (!bytes.ok()) continue;
      EXPECT_EQ(bytes->view(), put[item].view());
      owners[bytes->owner()].first = bytes->owner_bytes();
      owners[bytes->owner()].second += bytes->size();
    }
    std::size_t whole = 0;
    for (const auto& [owner, counts] : owners) {
      whole += counts.first;
      if (settled) {
        EXPECT_GE(2 * counts.second, counts.first);
      }
    }
    ASSERT_EQ(store.cached_bytes(), whole);
    ASSERT_LE(store.cached_bytes(), 20000u);
  }
}

}  // namespace
}  // namespace thresher::broker
