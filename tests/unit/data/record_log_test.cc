#include "common/data/record_log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/files.h"
#include "common/data/record_log_format.h"
#include "tests/unit/data/file_size_limit.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher {
namespace {

using record_log::kRecordOverheadBytes;
using record_log::kSegmentHeaderBytes;
using record_log::SegmentPath;

RecordLogWriter Open(const std::filesystem::path& folder, RecordLogOptions options = {}) {
  Result<RecordLogWriter> writer = RecordLogWriter::Open(folder, options);
  EXPECT_TRUE(writer.ok()) << writer.status().ToString();
  return std::move(writer).value();
}

std::string Payload(std::uint64_t number) {
  return "record " + std::to_string(number) + std::string(number * 7 % 50, '.');
}

void AppendNumbered(RecordLogWriter& writer, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t number = writer.next_sequence();
    ASSERT_TRUE(writer.Append(static_cast<std::uint32_t>(number % 3), Payload(number)).ok());
  }
  Status status = writer.Flush(true);
  ASSERT_TRUE(status.ok()) << status.ToString();
}

// Reads the log, checks every record's contents, and returns their number.
std::uint64_t CountNumbered(const std::filesystem::path& folder, std::uint64_t* torn = nullptr) {
  std::uint64_t count = 0;
  Status status = ReadRecordLog(
      folder,
      [&](const LogRecord& record) {
        EXPECT_EQ(record.sequence, count);
        EXPECT_EQ(record.kind, count % 3);
        EXPECT_EQ(record.payload, Payload(count));
        EXPECT_EQ(ReadRecordAt(folder, record.position).value(), Payload(count));
        ++count;
        return Status::Ok();
      },
      torn);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return count;
}

Status ReadAll(const std::filesystem::path& folder) {
  return ReadRecordLog(folder, [](const LogRecord&) { return Status::Ok(); });
}

void Store(const std::filesystem::path& path, const std::string& bytes) {
  ASSERT_TRUE(WriteFileAtomic(path, bytes).ok());
}

std::uint64_t OffsetOf(const std::filesystem::path& folder, std::uint64_t sequence) {
  std::uint64_t offset = 0;
  (void)ReadRecordLog(folder, [&](const LogRecord& record) {
    if (record.sequence == sequence) offset = record.position.offset;
    return Status::Ok();
  });
  return offset;
}

class RecordLog : public testing::TestWithParam<bool> {
 protected:
  RecordLogOptions Options(std::size_t segment_bytes) const {
    return {segment_bytes, GetParam() ? segment_bytes : 0};
  }
  TempFolder folder_;
};
INSTANTIATE_TEST_SUITE_P(Preallocated, RecordLog, testing::Bool());

TEST_P(RecordLog, RecordsComeBackInOrderAcrossSegments) {
  RecordLogWriter writer = Open(folder_.path(), Options(1000));
  AppendNumbered(writer, 100);
  EXPECT_EQ(writer.next_sequence(), 100u);
  EXPECT_EQ(writer.buffered_bytes(), 0u);
  EXPECT_EQ(CountNumbered(folder_.path()), 100u);
  EXPECT_TRUE(std::filesystem::exists(SegmentPath(folder_.path(), 6)));
}

TEST_P(RecordLog, ContinuesItsNumbersAcrossRestartsAtEveryLength) {
  for (std::uint64_t total = 0; total < 60; ++total) {
    EXPECT_EQ(CountNumbered(folder_.path()), total);
    RecordLogWriter writer = Open(folder_.path(), Options(400));
    EXPECT_EQ(writer.next_sequence(), total);
    EXPECT_EQ(writer.repaired_bytes(), 0u);
    AppendNumbered(writer, 1);
  }
  EXPECT_EQ(CountNumbered(folder_.path()), 60u);
}

TEST_P(RecordLog, NothingIsVisibleBeforeFlushAndNothingIsFlushedAtDestruction) {
  {
    RecordLogWriter writer = Open(folder_.path(), Options(1000));
    AppendNumbered(writer, 3);
    ASSERT_TRUE(writer.Append(0, Payload(3)).ok());
    EXPECT_EQ(writer.buffered_bytes(), kRecordOverheadBytes + Payload(3).size());
    EXPECT_EQ(CountNumbered(folder_.path()), 3u);
  }
  EXPECT_EQ(CountNumbered(folder_.path()), 3u);
}

TEST_P(RecordLog, TornTailAtEveryByteOfTheLastRecordIsCutOff) {
  RecordLogWriter first = Open(folder_.path(), Options(10000));
  AppendNumbered(first, 5);
  { RecordLogWriter closed = std::move(first); }
  std::filesystem::path path = SegmentPath(folder_.path(), 1);
  std::string whole = ReadFile(path).value();
  std::uint64_t last = OffsetOf(folder_.path(), 4);
  whole.resize(last + kRecordOverheadBytes + Payload(4).size());
  for (std::uint64_t size = last; size < whole.size(); ++size) {
    std::string cut = whole.substr(0, size);
    if (GetParam()) cut.resize(10000, '\0');  // the space preallocated behind it
    Store(path, cut);
    std::uint64_t torn = 0;
    EXPECT_EQ(CountNumbered(folder_.path(), &torn), 4u) << size;
    RecordLogWriter writer = Open(folder_.path(), Options(10000));
    EXPECT_EQ(writer.repaired_bytes(), torn);
    EXPECT_LE(torn, size - last);
    EXPECT_EQ(writer.next_sequence(), 4u);
    AppendNumbered(writer, 2);
    EXPECT_EQ(CountNumbered(folder_.path(), &torn), 6u) << size;
    EXPECT_EQ(torn, 0u);
  }
}

// A power cut leaves some of what was not synced, in any order.
TEST_P(RecordLog, AHoleIsATornTailUntilASyncHasCoveredIt) {
  RecordLogWriter first = Open(folder_.path(), Options(10000));
  AppendNumbered(first, 3);
  AppendNumbered(first, 4);
  { RecordLogWriter closed = std::move(first); }
  const std::filesystem::path path = SegmentPath(folder_.path(), 1);
  const std::string whole = ReadFile(path).value();
  auto with_hole_in = [&](std::string bytes, std::uint64_t record) {
    bytes[OffsetOf(folder_.path(), record) + 30] ^= 1;
    return bytes;
  };
  for (std::uint64_t record : {3u, 4u, 5u}) {
    Store(path, whole);
    Store(path, with_hole_in(whole, record));
    EXPECT_EQ(CountNumbered(folder_.path()), record);
    EXPECT_EQ(Open(folder_.path(), Options(10000)).next_sequence(), record);
  }
  Store(path, whole);
  Store(path, with_hole_in(whole, 2));  // the fourth record was made when it was on disk
  EXPECT_EQ(ReadAll(folder_.path()).code(), StatusCode::kDataLoss);
  Store(path, whole);
  RecordLogWriter writer = Open(folder_.path(), Options(10000));
  AppendNumbered(writer, 1);
  { RecordLogWriter closed = std::move(writer); }
  Store(path, with_hole_in(ReadFile(path).value(), 5));
  EXPECT_EQ(ReadAll(folder_.path()).code(), StatusCode::kDataLoss);
}

TEST_P(RecordLog, TornSegmentAfterARolloverKeepsTheOneBefore) {
  RecordLogWriter writer = Open(folder_.path(), Options(200));
  while (!std::filesystem::exists(SegmentPath(folder_.path(), 2))) AppendNumbered(writer, 1);
  std::uint64_t count = writer.next_sequence();
  { RecordLogWriter closed = std::move(writer); }
  std::filesystem::resize_file(SegmentPath(folder_.path(), 2), kSegmentHeaderBytes + 5);
  RecordLogWriter reopened = Open(folder_.path(), Options(200));
  EXPECT_EQ(reopened.next_sequence(), count - 1);
  AppendNumbered(reopened, 3);
  EXPECT_EQ(CountNumbered(folder_.path()), count + 2);
}

TEST_P(RecordLog, ZerosBehindACompleteSegmentAreNoRecordsUnlessOneIsMissing) {
  {
    RecordLogWriter writer = Open(folder_.path(), Options(400));
    AppendNumbered(writer, 30);
  }
  const auto first = SegmentPath(folder_.path(), 1), second = SegmentPath(folder_.path(), 2);
  const std::string whole = ReadFile(first).value();
  Store(first, whole + std::string(700, '\0'));
  EXPECT_EQ(CountNumbered(folder_.path()), 30u);
  EXPECT_EQ(Open(folder_.path(), Options(400)).next_sequence(), 30u);
  std::string cut = whole;  // its last record is zeros, too
  const std::size_t last = kRecordOverheadBytes + Payload(0).size();
  std::fill(cut.end() - static_cast<std::ptrdiff_t>(last), cut.end(), '\0');
  Store(first, cut);
  EXPECT_EQ(ReadAll(folder_.path()).code(), StatusCode::kDataLoss);
  Store(first, whole + std::string(700, '\0') + "x");
  EXPECT_EQ(ReadAll(folder_.path()).code(), StatusCode::kDataLoss);

  // The last segment holds no record yet: the chain goes on from the one before.
  TempFolder other;
  Store(other / "000001.log", whole + std::string(700, '\0'));
  const std::uint64_t records = LoadLittle<std::uint64_t>(ReadFile(second)->data() + 16);
  Store(other / "000002.log", record_log::EncodeSegmentHeader(2, records));
  EXPECT_EQ(Open(other.path(), Options(400)).next_sequence(), records);
}

TEST_P(RecordLog, EveryFlippedByteBeforeTheLastRecordIsNamedAndNothingIsChanged) {
  RecordLogWriter first = Open(folder_.path(), Options(10000));
  for (int i = 0; i < 6; ++i) AppendNumbered(first, 1);  // each synced
  { RecordLogWriter closed = std::move(first); }
  std::filesystem::path path = SegmentPath(folder_.path(), 1);
  std::string whole = ReadFile(path).value();
  std::uint64_t last = OffsetOf(folder_.path(), 5);
  for (std::uint64_t i = 0; i < last; ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x40);
    Store(path, damaged);
    Status read = ReadAll(folder_.path());
    EXPECT_EQ(read.code(), StatusCode::kDataLoss) << i;
    EXPECT_NE(read.message().find("000001.log"), std::string::npos) << read.ToString();
    Status opened = RecordLogWriter::Open(folder_.path(), Options(10000)).status();
    EXPECT_EQ(opened.ToString(), read.ToString()) << i;
    EXPECT_EQ(ReadFile(path).value(), damaged);
  }
  std::string damaged = whole;
  Store(path, whole);
  std::uint64_t third = OffsetOf(folder_.path(), 3);
  damaged[third + 30] = static_cast<char>(damaged[third + 30] ^ 1);
  Store(path, damaged);
  EXPECT_NE(ReadAll(folder_.path())
                .message()
                .find("record 3 at offset " + std::to_string(third) + ": checksum"),
            std::string::npos)
      << ReadAll(folder_.path()).ToString();
}

// Records removed, doubled or replaced by ones with a fitting checksum of their own.
TEST_P(RecordLog, EditsThatKeepChecksumsBreakTheChain) {
  RecordLogWriter first = Open(folder_.path(), Options(10000));
  for (int i = 0; i < 6; ++i) AppendNumbered(first, 1);  // each synced
  { RecordLogWriter closed = std::move(first); }
  std::filesystem::path path = SegmentPath(folder_.path(), 1);
  std::string whole = ReadFile(path).value();
  std::vector<std::uint64_t> at;
  for (std::uint64_t i = 0; i < 6; ++i) at.push_back(OffsetOf(folder_.path(), i));
  auto piece = [&](std::uint64_t i) {
    return whole.substr(at[i],
                        i < 5 ? at[i + 1] - at[i] : kRecordOverheadBytes + Payload(5).size());
  };
  auto is_damage = [&](const std::string& bytes) {
    Store(path, bytes);
    EXPECT_EQ(ReadAll(folder_.path()).code(), StatusCode::kDataLoss);
    EXPECT_EQ(RecordLogWriter::Open(folder_.path(), Options(10000)).status().code(),
              StatusCode::kDataLoss);
  };
  std::string head = whole.substr(0, at[4]);
  is_damage(head + piece(5));             // removed
  is_damage(head + piece(4) + piece(4));  // doubled
  std::string other;
  record_log::AppendRecord(other, 0, 4, LoadLittle<std::uint64_t>(piece(4).data() + 16), "other");
  is_damage(head + other + piece(5));  // replaced: the next one names another `previous`
}

TEST_P(RecordLog, AMissingSegmentIsNamed) {
  RecordLogWriter writer = Open(folder_.path(), Options(200));
  AppendNumbered(writer, 30);
  { RecordLogWriter closed = std::move(writer); }
  std::filesystem::remove(SegmentPath(folder_.path(), 2));
  Status status = ReadAll(folder_.path());
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("000002.log"), std::string::npos) << status.ToString();
  std::filesystem::remove(SegmentPath(folder_.path(), 1));
  EXPECT_EQ(RecordLogWriter::Open(folder_.path(), {}).status().code(), StatusCode::kDataLoss);
}

TEST_P(RecordLog, ReadsFromAnyCursor) {
  RecordLogWriter writer = Open(folder_.path(), Options(500));
  std::vector<LogCursor> cursors = {LogCursor()};
  AppendNumbered(writer, 40);
  (void)ReadRecordLog(folder_.path(), [&](const LogRecord& record) {
    cursors.push_back(LogCursor::After(record));
    return Status::Ok();
  });
  ASSERT_EQ(cursors.size(), 41u);
  EXPECT_EQ(cursors.back(), writer.end());
  for (std::uint64_t from = 0; from < cursors.size(); ++from) {
    std::uint64_t next = from;
    Status status = ReadRecordLogFrom(folder_.path(), cursors[from], [&](const LogRecord& record) {
      EXPECT_EQ(record.sequence, next++);
      return Status::Ok();
    });
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(next, 40u);
  }
  LogCursor beyond = cursors.back();
  beyond.position.segment += 1;
  EXPECT_EQ(ReadRecordLogFrom(folder_.path(), beyond, [](const LogRecord&) { return Status::Ok(); })
                .code(),
            StatusCode::kDataLoss);
  LogCursor other = cursors[10];
  other.previous ^= 1;
  EXPECT_EQ(ReadRecordLogFrom(folder_.path(), other, [](const LogRecord&) { return Status::Ok(); })
                .code(),
            StatusCode::kDataLoss);
}

TEST_P(RecordLog, AFullDiskKeepsTheBufferAndALaterFlushWritesIt) {
  RecordLogWriter writer = Open(folder_.path(), Options(3000));
  AppendNumbered(writer, 10);
  {
    FileSizeLimit full(GetParam() ? 2000 : 1000);
    for (int i = 0; i < 60; ++i) {
      std::uint64_t number = writer.next_sequence();
      ASSERT_TRUE(writer.Append(static_cast<std::uint32_t>(number % 3), Payload(number)).ok());
    }
    for (int attempt = 0; attempt < 3; ++attempt) {
      Status status = writer.Flush(true);
      EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
      EXPECT_GT(writer.buffered_bytes(), 0u);
    }
  }
  ASSERT_TRUE(writer.Flush(true).ok());
  EXPECT_EQ(writer.buffered_bytes(), 0u);
  EXPECT_EQ(CountNumbered(folder_.path()), 70u);
  { RecordLogWriter closed = std::move(writer); }
  EXPECT_EQ(Open(folder_.path(), Options(3000)).next_sequence(), 70u);
}

TEST_P(RecordLog, WhatAFullDiskLeftIsATornTail) {
  {
    RecordLogWriter writer = Open(folder_.path(), Options(3000));
    AppendNumbered(writer, 10);
    FileSizeLimit full(900);
    for (int i = 0; i < 60; ++i) ASSERT_TRUE(writer.Append(0, Payload(1)).ok());
    EXPECT_FALSE(writer.Flush(false).ok());
  }
  RecordLogWriter writer = Open(folder_.path(), Options(3000));
  EXPECT_GE(writer.next_sequence(), 10u);
  std::uint64_t count = 0;
  EXPECT_TRUE(ReadRecordLog(folder_.path(), [&](const LogRecord&) {
                ++count;
                return Status::Ok();
              }).ok());
  EXPECT_EQ(count, writer.next_sequence());
}

TEST_P(RecordLog, APayloadInPiecesIsOne) {
  RecordLogWriter writer = Open(folder_.path(), Options(1000));
  const std::string_view pieces[] = {"one", "", " and two", " and three"};
  ASSERT_TRUE(writer.Append(7, pieces).ok());
  ASSERT_TRUE(writer.Append(8, std::span<const std::string_view>()).ok());
  ASSERT_TRUE(writer.Flush(true).ok());
  std::vector<std::string> payloads;
  ASSERT_TRUE(ReadRecordLog(folder_.path(), [&](const LogRecord& record) {
                payloads.emplace_back(record.payload);
                return Status::Ok();
              }).ok());
  EXPECT_EQ(payloads, (std::vector<std::string>{"one and two and three", ""}));
}

TEST(RecordLogFolder, HasOneWriterAtATime) {
  TempFolder folder;
  RecordLogWriter writer = Open(folder.path());
  EXPECT_EQ(RecordLogWriter::Open(folder.path(), {}).status().code(),
            StatusCode::kFailedPrecondition);
  { RecordLogWriter closed = std::move(writer); }
  EXPECT_TRUE(RecordLogWriter::Open(folder.path(), {}).ok());
}

TEST(RecordLogFolder, EmptyHoldsNoRecordsAndMissingIsNotFound) {
  TempFolder folder;
  EXPECT_TRUE(ReadAll(folder.path()).ok());
  EXPECT_EQ(ReadAll(folder / "none").code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadRecordAt(folder.path(), {1, 32}).status().code(), StatusCode::kNotFound);
}

TEST(RecordLogFolder, ARecordLargerThanASegmentHasOneOfItsOwn) {
  TempFolder folder;
  RecordLogWriter writer = Open(folder.path(), {100, false});
  std::string large(5000, 'x');
  ASSERT_TRUE(writer.Append(0, large).ok());
  LogPosition second = writer.Append(0, large).value();
  EXPECT_EQ(second, (LogPosition{2, kSegmentHeaderBytes}));
  ASSERT_TRUE(writer.Flush(false).ok());
  EXPECT_EQ(ReadRecordAt(folder.path(), second).value(), large);
}

TEST(RecordLogFolder, ReadingOneRecordChecksIt) {
  TempFolder folder;
  RecordLogWriter writer = Open(folder.path());
  AppendNumbered(writer, 3);
  std::uint32_t kind = 9;
  std::uint64_t at = OffsetOf(folder.path(), 2);
  EXPECT_EQ(ReadRecordAt(folder.path(), {1, at}, &kind).value(), Payload(2));
  EXPECT_EQ(kind, 2u);
  EXPECT_EQ(ReadRecordAt(folder.path(), {1, at + 1}).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(ReadRecordAt(folder.path(), {1, 1 << 20}).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(ReadRecordAt(folder.path(), {2, 32}).status().code(), StatusCode::kNotFound);
}

TEST(RecordLogFolder, ACallbacksErrorEndsTheReading) {
  TempFolder folder;
  RecordLogWriter writer = Open(folder.path());
  AppendNumbered(writer, 3);
  int calls = 0;
  Status status = ReadRecordLog(folder.path(), [&](const LogRecord&) {
    ++calls;
    return Cancelled("enough");
  });
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  EXPECT_EQ(calls, 1);
}

// The layout of record_log.h, byte by byte.
TEST(RecordLogFolder, FormatIsAsDocumented) {
  TempFolder folder;
  RecordLogWriter writer = Open(folder.path());
  ASSERT_TRUE(writer.Append(7, "abc").ok());
  ASSERT_TRUE(writer.Append(8, "").ok());
  ASSERT_TRUE(writer.Flush(true).ok());
  auto sealed = [](std::string bytes) {
    AppendLittle<std::uint64_t>(bytes, HashBytes64(AsBytes(bytes)));
    return bytes;
  };
  std::string header("THRLOG1\0\1\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0", 24);
  std::string first =
      sealed(std::string("\3\0\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0abc", 27));
  // The first is not on disk yet.
  std::string second("\0\0\0\x80\10\0\0\0\1\0\0\0\0\0\0\0", 16);
  second += first.substr(27);
  EXPECT_EQ(ReadFile(SegmentPath(folder.path(), 1)).value(),
            sealed(header) + first + sealed(second));
}

TEST(RecordLogWriter, TellsWhereItIsAroundEveryWriteAndSync) {
  TempFolder folder;
  std::vector<std::string> seen;
  RecordLogOptions options;
  options.reached = [&](LogPoint point) { seen.push_back(LogPointName(point)); };
  auto log = RecordLogWriter::Open(folder / "log", options);
  ASSERT_TRUE(log.ok());
  ASSERT_TRUE(log->Append(1, "record").ok());
  EXPECT_TRUE(seen.empty());
  ASSERT_TRUE(log->Flush(false).ok());
  EXPECT_EQ(seen, (std::vector<std::string>{"before_write", "after_write"}));
  seen.clear();
  ASSERT_TRUE(log->Append(1, "record").ok());
  ASSERT_TRUE(log->Flush(true).ok());
  EXPECT_EQ(seen,
            (std::vector<std::string>{"before_write", "after_write", "before_sync", "after_sync"}));
}

TEST(RecordLog, OldSegmentsAreReadFromTheArchive) {
  TempFolder folder;
  RecordLogWriter writer = Open(folder.path(), {.segment_bytes = 300});
  AppendNumbered(writer, 100);
  const std::uint32_t last = ListLog(folder.path())->back().number;
  ASSERT_GT(last, 5u);
  const std::string first = ReadFile(SegmentPath(folder.path(), 1)).value();
  for (std::uint32_t segment = 1; segment + 1 < last; ++segment) {
    ASSERT_TRUE(ArchiveSegment(folder.path(), segment).ok());
    std::uint64_t count = 0;
    const Status status = ReadRecordLog(folder.path(), [&](const LogRecord& record) {
      EXPECT_EQ(record.payload, Payload(count++));
      return Status::Ok();
    });
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_EQ(count, 100u);
  }
  EXPECT_FALSE(Exists(SegmentPath(folder.path(), 1)));
  // A death between the two names.
  Store(SegmentPath(folder.path(), 1), first);
  EXPECT_TRUE(ReadAll(folder.path()).ok());
  EXPECT_FALSE(ListLog(folder.path())->front().archived);
  ASSERT_TRUE(ArchiveSegment(folder.path(), 1).ok());
  AppendNumbered(writer, 20);
  const std::filesystem::path archived = record_log::ArchivedPath(folder.path(), 2);
  Store(archived, ReadFile(archived)->substr(0, 30));
  Status status = ReadAll(folder.path());
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find(archived.string()), std::string::npos) << status.ToString();
  std::filesystem::remove(archived);
  status = ReadAll(folder.path());
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("000002.log: the segment is missing"), std::string::npos)
      << status.ToString();
}

// What is packed piece by piece, and the first record of it found without the rest.
TEST(RecordLog, ArchivesSegmentsOfManyPieces) {
  TempFolder folder;
  constexpr std::size_t kLong = 3 << 20;
  std::string noise;
  for (std::uint64_t i = 0; noise.size() < kLong; ++i)
    noise += HashText128(std::to_string(i)).ToString();
  {
    RecordLogWriter writer = Open(folder.path(), {.segment_bytes = 5 << 20});
    for (int i = 0; i < 6; ++i) {
      ASSERT_TRUE(writer.Append(1, noise).ok());
      ASSERT_TRUE(writer.Flush(false).ok());
    }
  }
  const std::string plain = ReadFile(SegmentPath(folder.path(), 2)).value();
  ASSERT_GT(plain.size(), kLong);
  for (std::uint32_t segment : {1, 2, 3}) ASSERT_TRUE(ArchiveSegment(folder.path(), segment).ok());
  EXPECT_EQ(record_log::ReadSegmentBytes(folder.path(), {2, true}).value(), plain);
  EXPECT_TRUE(ReadAll(folder.path()).ok());
  ASSERT_TRUE(DeleteSegmentsBefore(folder.path(), 2).ok());
  EXPECT_EQ(LogBegin(folder.path())->sequence, 1u);
  EXPECT_TRUE(ReadAll(folder.path()).ok());
  const std::filesystem::path archived = record_log::ArchivedPath(folder.path(), 3);
  const std::string packed = ReadFile(archived).value();
  for (const std::size_t kept : {packed.size() / 2, std::size_t{10}, std::size_t{0}}) {
    Store(archived, packed.substr(0, kept));
    const Status status = DeleteSegmentsBefore(folder.path(), 3);
    EXPECT_EQ(status.code(), StatusCode::kDataLoss);
    EXPECT_NE(status.message().find(archived.string()), std::string::npos) << status.ToString();
  }
  EXPECT_EQ(LogBegin(folder.path())->sequence, 1u) << "nothing was deleted";
}

TEST(RecordLog, ASegmentEndsWhenItsWriterSaysSo) {
  TempFolder folder;
  RecordLogWriter writer = Open(folder.path());
  writer.EndSegment();  // of nothing
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(writer.Append(1, Payload(0))->segment, i == 0 ? 1u : 2u);
    if (i == 0) writer.EndSegment();
  }
  ASSERT_TRUE(writer.Flush(false).ok());
  EXPECT_EQ(ListLog(folder.path())->size(), 2u);
  EXPECT_TRUE(ReadAll(folder.path()).ok());
}

TEST(RecordLog, BeginsWhereItSaysOnceOldSegmentsAreDeleted) {
  TempFolder folder;
  {
    RecordLogWriter writer = Open(folder.path(), {.segment_bytes = 300});
    AppendNumbered(writer, 100);
  }
  ASSERT_TRUE(ArchiveSegment(folder.path(), 1).ok());
  ASSERT_TRUE(ArchiveSegment(folder.path(), 2).ok());
  ASSERT_TRUE(DeleteSegmentsBefore(folder.path(), 2).ok());
  ASSERT_TRUE(DeleteSegmentsBefore(folder.path(), 4).ok());
  const LogCursor begin = LogBegin(folder.path()).value();
  EXPECT_EQ(begin.position.segment, 4u);
  EXPECT_GT(begin.sequence, 3u);
  auto count = [&] {
    std::uint64_t next = begin.sequence;
    const Status status = ReadRecordLog(folder.path(), [&](const LogRecord& record) {
      EXPECT_EQ(record.sequence, next);
      EXPECT_EQ(record.payload, Payload(next++));
      return Status::Ok();
    });
    EXPECT_TRUE(status.ok()) << status.ToString();
    return next;
  };
  EXPECT_EQ(count(), 100u);
  {
    RecordLogWriter writer = Open(folder.path(), {.segment_bytes = 300});
    EXPECT_EQ(writer.next_sequence(), 100u);
    AppendNumbered(writer, 30);
  }
  EXPECT_EQ(count(), 130u);
  const Status before = ReadRecordLogFrom(folder.path(), LogCursor{{2, 32}, 5, 1},
                                          [](const LogRecord&) { return Status::Ok(); });
  EXPECT_EQ(before.code(), StatusCode::kDataLoss);
  // What is deleted is known; what is missing behind it is damage.
  std::filesystem::remove(SegmentPath(folder.path(), 4));
  const Status status = ReadAll(folder.path());
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("000004.log: the segment is missing"), std::string::npos)
      << status.ToString();
  Store(folder.path() / "first.bin", "nonsense");
  EXPECT_EQ(ReadAll(folder.path()).code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace thresher
