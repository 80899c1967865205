#include "common/data/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/unit/data/file_size_limit.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher {
namespace {

std::size_t EntriesOf(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder),
                                                std::filesystem::directory_iterator()));
}

TEST(Files, WhatIsWrittenIsReadBack) {
  TempFolder folder;
  for (std::size_t size : {0u, 1u, 65535u, 65536u, 65537u, 1000000u}) {
    std::string bytes(size, 'x');
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 7);
    ASSERT_TRUE(WriteFileAtomic(folder / "file", bytes).ok());
    EXPECT_EQ(ReadFile(folder / "file").value(), bytes);
    MappedFile mapped = MappedFile::Open(folder / "file").value();
    EXPECT_EQ(mapped.bytes(), bytes);
    MappedFile moved = std::move(mapped);
    EXPECT_EQ(moved.bytes(), bytes);
    EXPECT_TRUE(mapped.bytes().empty());
  }
  EXPECT_EQ(EntriesOf(folder.path()), 1u);
  EXPECT_FALSE(ReadFile("/proc/self/status").value().empty());  // stat says 0 bytes
}

TEST(Files, ErrorsNameThePathAndSayWhatKindItIs) {
  TempFolder folder;
  auto expect = [&](const Status& status, StatusCode code, const std::string& path) {
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_NE(status.message().find(path), std::string::npos) << status.ToString();
  };
  expect(ReadFile(folder / "none").status(), StatusCode::kNotFound, folder / "none");
  expect(MappedFile::Open(folder / "none").status(), StatusCode::kNotFound, folder / "none");
  expect(ReadFile(folder.path()).status(), StatusCode::kInvalidArgument, folder.path());
  expect(WriteFileAtomic(folder / "none/file", "x"), StatusCode::kNotFound, folder / "none/file");
  ASSERT_TRUE(WriteFileAtomic(folder / "file", "x").ok());
  expect(CreateDirectories(folder / "file"), StatusCode::kInvalidArgument, folder / "file");
  expect(SyncDirectory(folder / "none"), StatusCode::kNotFound, folder / "none");
}

TEST(Files, ModeIsExactWhateverTheUmask) {
  TempFolder folder;
  mode_t old = ::umask(077);
  Status status = WriteFileAtomic(folder / "open", "x", 0666);
  ::umask(old);
  ASSERT_TRUE(status.ok());
  ASSERT_TRUE(WriteFileAtomic(folder / "secret", "x", 0600).ok());
  using std::filesystem::perms;
  EXPECT_EQ(std::filesystem::status(folder / "open").permissions(), perms(0666));
  EXPECT_EQ(std::filesystem::status(folder / "secret").permissions(), perms(0600));
}

TEST(Files, AFullDiskLeavesTheOldFileAndNoTemporary) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder / "file", "old").ok());
  {
    FileSizeLimit full(1000);
    Status status = WriteFileAtomic(folder / "file", std::string(5000, 'n'));
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  }
  EXPECT_EQ(ReadFile(folder / "file").value(), "old");
  EXPECT_EQ(EntriesOf(folder.path()), 1u);
}

TEST(Files, WhatComesInPiecesStandsThereWholeOrNotAtAll) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder / "file", "old").ok());
  {
    AtomicFile file = AtomicFile::Create(folder / "file").value();
    ASSERT_TRUE(file.Append("not ").ok());
    EXPECT_EQ(EntriesOf(folder.path()), 2u);
  }
  EXPECT_EQ(EntriesOf(folder.path()), 1u);
  AtomicFile file = AtomicFile::Create(folder / "file").value();
  for (const char* piece : {"n", "", "ew"}) ASSERT_TRUE(file.Append(piece).ok());
  EXPECT_EQ(ReadFile(folder / "file").value(), "old");
  ASSERT_TRUE(file.Publish().ok());
  EXPECT_EQ(ReadFile(folder / "file").value(), "new");
  EXPECT_EQ(EntriesOf(folder.path()), 1u);
}

TEST(Files, RemovesWhatAKilledProcessLeft) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder / "file", "x").ok());
  ASSERT_TRUE(WriteFileAtomic(TemporaryName(folder / "file"), "x").ok());
  ASSERT_TRUE(CreateDirectories(TemporaryName(folder / "sub") / "deeper").ok());
  EXPECT_EQ(RemoveTemporaries(folder.path()).value(), 2u);
  EXPECT_EQ(EntriesOf(folder.path()), 1u);
  EXPECT_EQ(RemoveTemporaries(folder / "none").status().code(), StatusCode::kNotFound);
}

TEST(AppendFile, ContinuesAfterWholeLinesAndCutsATornOne) {
  TempFolder folder;
  std::string lines;
  for (int i = 0; i < 3; ++i) {
    AppendFile file = AppendFile::Open(folder / "log").value();
    EXPECT_EQ(file.repaired_bytes(), i == 0 ? 0u : 4u);
    std::string line = "{\"i\":" + std::to_string(i) + "}" + std::string(100000, ' ');
    ASSERT_TRUE(file.AppendLine(line).ok());
    ASSERT_TRUE(file.Sync().ok());
    lines += line + "\n";
    EXPECT_EQ(ReadFile(folder / "log").value(), lines);
    EXPECT_EQ(file.bytes(), lines.size());
    ASSERT_TRUE(WriteFileAtomic(folder / "log", lines + "torn").ok());
  }
  ASSERT_TRUE(WriteFileAtomic(folder / "log", std::string(200000, 't')).ok());
  EXPECT_EQ(AppendFile::Open(folder / "log").value().repaired_bytes(), 200000u);
  EXPECT_EQ(ReadFile(folder / "log").value(), "");
}

TEST(AppendFile, RefusesALineThatIsTwo) {
  TempFolder folder;
  AppendFile file = AppendFile::Open(folder / "log").value();
  EXPECT_EQ(file.AppendLine("a\nb").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFile(folder / "log").value(), "");
}

TEST(AppendFile, AFullDiskLeavesNoPartOfTheLineAndALaterOneIsWritten) {
  TempFolder folder;
  AppendFile file = AppendFile::Open(folder / "log").value();
  ASSERT_TRUE(file.AppendLine("first").ok());
  {
    FileSizeLimit full(20);
    EXPECT_EQ(file.AppendLine(std::string(100, 'x')).code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(ReadFile(folder / "log").value(), "first\n");
  }
  ASSERT_TRUE(file.AppendLine("second").ok());
  EXPECT_EQ(ReadFile(folder / "log").value(), "first\nsecond\n");
}

}  // namespace
}  // namespace thresher
