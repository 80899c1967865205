#include "common/data/trajectory_store.h"

#include <gtest/gtest.h>

#include <random>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/files.h"
#include "common/data/record_log_format.h"
#include "common/data/trajectory_index.h"
#include "common/data/trajectory_store_format.h"
#include "common/data/zstd_bytes.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher {
namespace {

StoredRecord Record(std::uint64_t item) {
  std::string bytes = "trajectory " + std::to_string(item) + std::string(item * 37 % 500, 'x');
  return {
      {Stream::kTrain, 0, item, static_cast<std::uint32_t>(item % 8)}, HashText128(bytes), bytes};
}

class TrajectoryStore : public testing::Test {
 protected:
  std::unique_ptr<TrajectoryStoreWriter> Writer() {
    auto writer = TrajectoryStoreWriter::Open(folder_.path(), {4000, false});
    EXPECT_TRUE(writer.ok()) << writer.status().ToString();
    return std::move(writer).value();
  }
  std::unique_ptr<TrajectoryStoreReader> Reader() {
    auto reader = TrajectoryStoreReader::Open(folder_.path());
    EXPECT_TRUE(reader.ok()) << reader.status().ToString();
    return std::move(reader).value();
  }
  // Adds blocks of `size` records until the store holds `until`.
  void Fill(TrajectoryStoreWriter& writer, std::uint64_t until, std::uint64_t size) {
    for (std::uint64_t next = filled_; next < until; filled_ = next) {
      std::vector<StoredRecord> block;
      for (std::uint64_t i = 0; i < size && next < until; ++i) block.push_back(Record(next++));
      ASSERT_TRUE(writer.AppendBlock(block).ok());
    }
    ASSERT_TRUE(writer.Flush(true).ok());
  }
  void ExpectHolds(std::uint64_t count) {
    auto reader = Reader();
    const auto entries = reader->Entries().value();
    ASSERT_EQ(entries.size(), count);
    for (std::uint64_t i = 0; i < count; ++i) {
      StoredRecord expected = Record(i);
      Result<TrajectoryStoreReader::Entry> entry = reader->Find(expected.id);
      ASSERT_TRUE(entry.ok()) << entry.status().ToString();
      EXPECT_EQ(*entry, entries[i]);
      EXPECT_EQ(entry->content_hash, expected.content_hash);
      EXPECT_EQ(reader->Read(*entry).value(), expected.bytes);
    }
    std::uint64_t next = 0;
    Status status = reader->ReadAll([&](const auto& entry, std::string_view bytes) {
      EXPECT_EQ(entry.id, Record(next).id);
      EXPECT_EQ(bytes, Record(next++).bytes);
      return Status::Ok();
    });
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(next, count);
  }
  std::uint64_t Count() { return Reader()->Entries()->size(); }
  std::uint32_t LastSegment() { return ListLog(folder_.path())->back().number; }
  std::filesystem::path IndexPath() {
    return trajectory_store::IndexPath(folder_.path(), LastSegment());
  }

  TempFolder folder_;
  std::uint64_t filled_ = 0;
};

TEST_F(TrajectoryStore, HoldsWhatWasWrittenWithAndWithoutAnIndex) {
  auto writer = Writer();
  Fill(*writer, 200, 7);
  ExpectHolds(200);
  ASSERT_TRUE(writer->WriteIndex().ok());
  ExpectHolds(200);
  std::uint64_t indexed = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
    if (file.path().extension() == ".idx") indexed += file.file_size();
  }
  EXPECT_GT(indexed, 200u * 48);
  EXPECT_GT(LastSegment(), 2u);
}

TEST_F(TrajectoryStore, KnowsWhichSegmentIsTheFirstToHoldOneOfSome) {
  auto writer = Writer();
  Fill(*writer, 600, 7);
  const auto entries = Reader()->Entries().value();
  const std::uint32_t last = LastSegment();
  ASSERT_GT(last, 4u);
  const auto first = [&](std::vector<std::uint64_t> items, std::uint32_t end) {
    std::vector<TrajectoryId> ids;
    for (std::uint64_t item : items) ids.push_back(Record(item).id);
    return FirstSegmentHolding(folder_.path(), ids, end).value();
  };
  for (std::uint64_t item = 0; item < 600; ++item) {
    const std::uint32_t segment = entries[item].position.segment;
    EXPECT_EQ(first({599, item, 1000}, last), std::min(segment, last));
    EXPECT_EQ(first({item}, segment), segment) << "not looked into";
  }
  EXPECT_EQ(first({}, last), last);
  std::filesystem::remove(trajectory_store::IndexPath(folder_.path(), 2));
  EXPECT_EQ(first({599}, 3), 3u) << "read where there is no index";
}

// However short they are.
TEST_F(TrajectoryStore, ASegmentHoldsNoMoreThanItsIndexMay) {
  auto writer = TrajectoryStoreWriter::Open(folder_.path(), {}, Compression::kNone).value();
  constexpr std::uint64_t kMost = 1 << 16, kBlock = 1 << 14;
  std::uint64_t next = 0;
  for (std::uint64_t blocks = 0; blocks < 6; ++blocks) {
    std::vector<StoredRecord> block;
    for (std::uint64_t i = 0; i < kBlock; ++i) {
      block.push_back({{Stream::kTrain, 0, next++, 0}, Hash128{}, std::string("x")});
    }
    ASSERT_TRUE(writer->AppendBlock(block).ok());
  }
  ASSERT_TRUE(writer->Flush(false).ok());
  EXPECT_EQ(LastSegment(), 2u);
  EXPECT_TRUE(Exists(trajectory_store::IndexPath(folder_.path(), 1)));
  const auto entries = Reader()->Entries().value();
  ASSERT_EQ(entries.size(), next);
  EXPECT_EQ(entries[kMost - 1].position.segment, 1u);
  EXPECT_EQ(entries[kMost].position.segment, 2u);
}

TEST_F(TrajectoryStore, AnOlderIndexIsCompletedFromTheSegments) {
  {
    auto writer = Writer();
    Fill(*writer, 50, 3);
    ASSERT_TRUE(writer->WriteIndex().ok());
    Fill(*writer, 120, 5);
  }
  ExpectHolds(120);
  auto writer = Writer();
  Fill(*writer, 130, 5);
  ASSERT_TRUE(writer->WriteIndex().ok());
  ExpectHolds(130);
}

TEST_F(TrajectoryStore, EveryDamagedIndexIsRebuilt) {
  {
    auto writer = Writer();
    Fill(*writer, 20, 4);
    ASSERT_TRUE(writer->WriteIndex().ok());
  }
  std::string index = ReadFile(IndexPath()).value();
  for (std::size_t i = 0; i < index.size(); i += 5) {
    std::string damaged = index;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    ASSERT_TRUE(WriteFileAtomic(IndexPath(), damaged).ok());
    EXPECT_FALSE(trajectory_store::IndexView::Open(damaged, LastSegment()));
    EXPECT_EQ(Count(), 20u);
    ASSERT_TRUE(WriteFileAtomic(IndexPath(), index.substr(0, i)).ok());
    EXPECT_EQ(Count(), 20u);
  }
  ExpectHolds(20);
}

// Its checksum fits, for nobody signs it; the order by id names entries that are not there.
TEST_F(TrajectoryStore, AnIndexThatLiesFindsNothingAndReadsNothingElse) {
  trajectory_store::SegmentEntries entries{1, 32, 0, {}};
  const TrajectoryId id{Stream::kTrain, 0, 5, 0};
  entries.entries.push_back({id, {}, {1, 32}, 0});
  std::string index = trajectory_store::EncodeIndex(entries);
  ASSERT_TRUE(trajectory_store::IndexView::Open(index, 1)->Find(id));
  index.resize(index.size() - 12);
  AppendLittle<std::uint32_t>(index, 0xfffffff0u);
  AppendLittle<std::uint64_t>(index, HashBytes64(AsBytes(index)));
  const auto lying = trajectory_store::IndexView::Open(index, 1);
  ASSERT_TRUE(lying);
  EXPECT_FALSE(lying->Find(id));
}

TEST_F(TrajectoryStore, AnIndexOfAnotherLogIsNotBelieved) {
  {
    auto writer = Writer();
    Fill(*writer, 20, 4);
    ASSERT_TRUE(writer->WriteIndex().ok());
  }
  std::string index = ReadFile(IndexPath()).value();
  ASSERT_EQ(LastSegment(), 1u);
  std::filesystem::remove(record_log::SegmentPath(folder_.path(), 1));
  filled_ = 0;
  {
    auto writer = Writer();
    Fill(*writer, 6, 3);
  }
  ASSERT_TRUE(WriteFileAtomic(IndexPath(), index).ok());
  ExpectHolds(6);
}

TEST_F(TrajectoryStore, AnIndexThatCoversALostTailIsNotBelieved) {
  {
    auto writer = Writer();
    Fill(*writer, 12, 4);
    ASSERT_TRUE(writer->WriteIndex().ok());
  }
  std::filesystem::path segment = record_log::SegmentPath(folder_.path(), 1);
  std::filesystem::resize_file(segment, std::filesystem::file_size(segment) - 3);
  ExpectHolds(8);
  auto writer = Writer();
  EXPECT_GT(writer->repaired_bytes(), 0u);
  filled_ = 8;
  Fill(*writer, 12, 4);
  ExpectHolds(12);
}

TEST_F(TrajectoryStore, AnEntryThatLiesIsDataLoss) {
  auto writer = Writer();
  Fill(*writer, 8, 4);
  auto reader = Reader();
  TrajectoryStoreReader::Entry entry = reader->Entries()->at(1);
  auto refused = [&](const TrajectoryStoreReader::Entry& lie) {
    Status status = reader->Read(lie).status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
    EXPECT_NE(status.message().find(folder_.path().string()), std::string::npos);
  };
  auto lie = entry;
  lie.number = 2;
  refused(lie);
  lie.number = 99;
  refused(lie);
  lie = entry;
  lie.content_hash.low ^= 1;
  refused(lie);
  lie = entry;
  lie.position = reader->Entries()->at(5).position;
  refused(lie);
}

TEST_F(TrajectoryStore, OfAnIdStoredTwiceTheLastIsFound) {
  auto writer = Writer();
  StoredRecord first = Record(1), second = Record(1);
  second.bytes = "a later copy";
  ASSERT_TRUE(writer->AppendBlock({first}).ok());
  ASSERT_TRUE(writer->AppendBlock({second}).ok());
  ASSERT_TRUE(writer->AppendBlock({}).ok());
  ASSERT_TRUE(writer->Flush(false).ok());
  auto reader = Reader();
  EXPECT_EQ(reader->Entries()->size(), 2u);
  EXPECT_EQ(reader->Read(*reader->Find(first.id)).value(), second.bytes);
  Status status = reader->Find(Record(2).id).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("train/0/2/2"), std::string::npos) << status.ToString();
}

TEST_F(TrajectoryStore, DamageInASegmentIsNamed) {
  {
    auto writer = Writer();
    Fill(*writer, 20, 4);
    Fill(*writer, 24, 4);  // when those before were on disk
  }
  ASSERT_EQ(LastSegment(), 1u);
  std::filesystem::path segment = record_log::SegmentPath(folder_.path(), 1);
  std::string bytes = ReadFile(segment).value();
  bytes[100] = static_cast<char>(bytes[100] ^ 1);
  ASSERT_TRUE(WriteFileAtomic(segment, bytes).ok());
  Status status = TrajectoryStoreReader::Open(folder_.path()).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("000001.log: record 0 at offset 32"), std::string::npos)
      << status.ToString();
  EXPECT_EQ(TrajectoryStoreReader::Open(folder_ / "none").status().code(), StatusCode::kNotFound);
}

// Segments leave from the oldest on; the rest is found as before, and what is gone is told.
TEST_F(TrajectoryStore, OlderSegmentsCanBeDeleted) {
  auto writer = Writer();
  Fill(*writer, 200, 7);
  const TrajectoryId first = Record(0).id;
  ASSERT_FALSE(Reader()->deleted_some());
  ASSERT_TRUE(DeleteTrajectoriesBefore(folder_.path(), 2).ok());
  auto reader = Reader();
  EXPECT_TRUE(reader->deleted_some());
  const auto entries = reader->Entries().value();
  ASSERT_GT(entries.size(), 50u);
  ASSERT_LT(entries.size(), 200u);
  EXPECT_EQ(entries.front().position.segment, 2u);
  Status status = reader->Find(first).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("the oldest kept is " + entries.front().id.ToString()),
            std::string::npos)
      << status.ToString();
  EXPECT_TRUE(reader->Find(entries.front().id).ok());
  Fill(*writer, 210, 5);
  EXPECT_EQ(Count(), entries.size() + 10);
  writer.reset();
  writer = Writer();
  Fill(*writer, 220, 5);
  EXPECT_EQ(Count(), entries.size() + 20);
}

// A record of some arrays of numbers, and other bytes around them.
StoredRecord Numbers(std::mt19937_64& random) {
  std::string bytes(random() % 40, 'a');
  ArrayRanges arrays{};
  for (std::size_t k = random() % (kMostArrays + 1), next = 0; next < k; ++next) {
    ArrayRange& array = arrays[next];
    array.offset = static_cast<std::uint32_t>(bytes.size());
    array.bytes = static_cast<std::uint32_t>(4 * (1 + random() % 300));
    for (std::uint32_t i = 0; i < array.bytes / 4; ++i) {
      AppendLittle<std::uint32_t>(bytes, static_cast<std::uint32_t>(random() % 5000));
    }
    bytes.append(random() % 30, 'b');
  }
  const TrajectoryId id{Stream::kTrain, 0, random() % 1000, 0};
  return {id, HashText128(bytes), std::move(bytes), arrays};
}

TEST(TrajectoryBlock, HoldsItsRecordsInEveryKind) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 300; ++round) {
    std::vector<StoredRecord> records(random() % 8);
    for (StoredRecord& record : records) record = Numbers(random);
    const auto plain = trajectory_store::EncodeBlock(records, Compression::kNone).value();
    const auto shuffled = trajectory_store::EncodeBlock(records, Compression::kZstd).value();
    EXPECT_EQ(plain.kind, BlockKind::kPlain);
    EXPECT_EQ(shuffled.kind, BlockKind::kShuffled);
    const std::pair<BlockKind, std::string> kinds[] = {
        {plain.kind, plain.payload},
        {shuffled.kind, shuffled.payload},
        {BlockKind::kZstd, Zstd(plain.payload, 1).value()}};  // of a store of before
    for (const auto& [kind, payload] : kinds) {
      std::string storage;
      const auto block =
          trajectory_store::DecodeBlock(static_cast<std::uint32_t>(kind), payload, &storage);
      ASSERT_TRUE(block.ok()) << block.status().ToString();
      ASSERT_EQ(block->size(), records.size());
      for (std::size_t i = 0; i < records.size(); ++i) {
        EXPECT_EQ((*block)[i].id, records[i].id);
        EXPECT_EQ((*block)[i].content_hash, records[i].content_hash);
        EXPECT_EQ((*block)[i].bytes, records[i].bytes);
      }
    }
  }
}

TEST(TrajectoryBlock, NumbersSideBySideTakeLessSpace) {
  std::mt19937_64 random(6);
  std::vector<StoredRecord> records(50);
  for (StoredRecord& record : records) record = Numbers(random);
  const std::size_t with =
      trajectory_store::EncodeBlock(records, Compression::kZstd)->payload.size();
  for (StoredRecord& record : records) record.arrays = {};
  EXPECT_LT(1.2 * static_cast<double>(with),
            static_cast<double>(
                trajectory_store::EncodeBlock(records, Compression::kZstd)->payload.size()));
}

TEST(TrajectoryBlock, OtherKindsOfRecordsAreDataLoss) {
  const auto block = trajectory_store::EncodeBlock({Record(1)}, Compression::kNone).value();
  std::string storage;
  for (std::uint32_t kind : {0u, 4u, 1000u}) {
    const Status status = trajectory_store::DecodeBlock(kind, block.payload, &storage).status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss);
    EXPECT_NE(status.message().find("kind " + std::to_string(kind)), std::string::npos);
  }
}

TEST(TrajectoryBlock, MutationsNeverCrash) {
  std::mt19937_64 random(4);
  std::string storage;
  for (int round = 0; round < 20000; ++round) {
    // Those of the third are under the compression.
    static const std::vector<StoredRecord> records = {Record(1), Record(2), Numbers(random),
                                                      Numbers(random)};
    static const auto plain = trajectory_store::EncodeBlock(records, Compression::kNone).value();
    static const auto packed = trajectory_store::EncodeBlock(records, Compression::kZstd).value();
    static const std::string shuffled = [&] {
      std::string bytes;
      EXPECT_TRUE(Unzstd(packed.payload, 1 << 20, &bytes).ok());
      return bytes;
    }();
    const auto which = random() % 3;
    std::string payload = which == 0 ? plain.payload : which == 1 ? packed.payload : shuffled;
    const auto kind = static_cast<std::uint32_t>(which == 0 ? plain.kind : packed.kind);
    std::string damaged = payload;
    for (std::uint64_t edits = 1 + random() % 4; edits > 0; --edits) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) damaged.resize(random() % damaged.size());
    if (which == 2) damaged = Zstd(damaged, 1).value();
    auto block = trajectory_store::DecodeBlock(kind, damaged, &storage);
    if (block.ok()) continue;
    EXPECT_EQ(block.status().code(), StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace thresher
