#include "common/data/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "common/data/files.h"
#include "common/data/folder.h"
#include "common/data/record_log.h"
#include "common/data/safetensors.h"
#include "common/data/trajectory_store.h"
#include "tests/support/moved_files.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher {
namespace {

namespace fs = std::filesystem;
using Kind = FileInfo::Kind;

std::unique_ptr<File> Open(const fs::path& path, int flags) {
  auto file = MachineFiles().Open(path, flags, 0640);
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  return std::move(file).value();
}

TEST(MachineFiles, StatTellsWhatIsThere) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder / "file", "12345", 0604).ok());
  fs::create_symlink("file", folder / "link");
  fs::create_symlink("nowhere", folder / "dangling");
  const FileInfo file = *MachineFiles().Stat(folder / "file", true);
  EXPECT_EQ(file, (FileInfo{Kind::kFile, 5, 0604, true}));
  EXPECT_EQ(*MachineFiles().Stat(folder / "link", true), file);
  EXPECT_EQ(MachineFiles().Stat(folder / "link", false)->kind, Kind::kLink);
  EXPECT_EQ(MachineFiles().Stat(folder / "dangling", true)->kind, Kind::kNone);
  EXPECT_EQ(MachineFiles().Stat(folder.path(), true)->kind, Kind::kDirectory);
  EXPECT_EQ(MachineFiles().Stat(folder / "none", true)->kind, Kind::kNone);
  EXPECT_EQ(MachineFiles().Stat(folder / "file/below", true)->kind, Kind::kNone);
  EXPECT_TRUE(Exists(folder / "link"));
  EXPECT_FALSE(Exists(folder / "dangling"));
}

TEST(MachineFiles, ListIsSortedAndFollowsNoLink) {
  TempFolder folder;
  for (const char* name : {"b", "a10", "a9", "Z"}) {
    ASSERT_TRUE(WriteFileAtomic(folder / name, "").ok());
  }
  fs::create_directory(folder / "c");
  fs::create_symlink("c", folder / "d");
  const std::vector<FileSystem::Entry> expected = {{"Z", Kind::kFile},      {"a10", Kind::kFile},
                                                   {"a9", Kind::kFile},     {"b", Kind::kFile},
                                                   {"c", Kind::kDirectory}, {"d", Kind::kLink}};
  EXPECT_EQ(*MachineFiles().List(folder.path()), expected);
  EXPECT_EQ(NamesIn(folder.path()), (std::vector<std::string>{"Z", "a10", "a9", "b", "c", "d"}));
  EXPECT_EQ(MachineFiles().List(folder / "none").status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(NamesIn(folder / "none").empty());
}

TEST(MachineFiles, OnlyRenameReplaces) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder / "a", "a").ok());
  ASSERT_TRUE(WriteFileAtomic(folder / "b", "b").ok());
  FileSystem& files = MachineFiles();
  EXPECT_EQ(files.RenameNew(folder / "a", folder / "b").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(files.Link(folder / "a", folder / "b").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(*ReadFile(folder / "b"), "b");
  ASSERT_TRUE(files.Link(folder / "a", folder / "c").ok());
  ASSERT_TRUE(files.Rename(folder / "a", folder / "b").ok());
  EXPECT_EQ(*ReadFile(folder / "b") + *ReadFile(folder / "c"), "aa");
  ASSERT_TRUE(files.RenameNew(folder / "b", folder / "d").ok());
  EXPECT_EQ(NamesIn(folder.path()), (std::vector<std::string>{"c", "d"}));
}

TEST(MachineFiles, RemovingWhatIsNotThereIsAnErrorForOneAndNoneForAll) {
  TempFolder folder;
  FileSystem& files = MachineFiles();
  EXPECT_EQ(files.Remove(folder / "none").code(), StatusCode::kNotFound);
  EXPECT_TRUE(files.RemoveAll(folder / "none").ok());
  ASSERT_TRUE(files.CreateDirectories(folder / "a/b").ok());
  EXPECT_EQ(files.CreateDirectory(folder / "a", 0700).code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(files.CreateDirectory(folder / "x/y", 0700).code(), StatusCode::kNotFound);
  EXPECT_FALSE(files.Remove(folder / "a").ok());
  EXPECT_TRUE(files.RemoveAll(folder / "a").ok());
  EXPECT_FALSE(Exists(folder / "a"));
}

TEST(MachineFiles, LockEndsWithItsFile) {
  TempFolder folder;
  for (const fs::path& path : {folder / "file", folder.path()}) {
    const int flags = path == folder.path() ? O_RDONLY | O_DIRECTORY : O_RDWR | O_CREAT;
    auto first = Open(path, flags), second = Open(path, flags);
    EXPECT_TRUE(first->TryLock().ok());
    EXPECT_TRUE(first->TryLock().ok());  // it has it already
    EXPECT_EQ(second->TryLock().code(), StatusCode::kFailedPrecondition);
    first.reset();
    EXPECT_TRUE(second->TryLock().ok());
  }
}

TEST(MachineFiles, PreallocatedSpaceReadsAsZeros) {
  TempFolder folder;
  auto file = Open(folder / "file", O_RDWR | O_CREAT);
  std::size_t written = 7;
  ASSERT_TRUE(file->WriteAt(2, "abc", &written).ok());
  EXPECT_EQ(written, 3u);
  ASSERT_TRUE(file->Preallocate(8).ok());
  EXPECT_EQ(file->Stat()->size, 8u);
  EXPECT_EQ(*file->ReadAt(0, 100), std::string("\0\0abc\0\0\0", 8));
  ASSERT_TRUE(file->Truncate(4).ok());
  EXPECT_EQ(*file->ReadAt(3, 100), "b");
  EXPECT_EQ(*file->ReadAt(9, 100), "");
  ASSERT_TRUE(file->SetMode(0600).ok());
  EXPECT_EQ(file->Stat()->mode, 0600);
  ASSERT_TRUE(file->Sync().ok() && file->SyncData().ok() && file->Close().ok());
}

TEST(MachineFiles, LinkIsNotOpenedWhereThatIsAsked) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder / "file", "x").ok());
  fs::create_symlink("file", folder / "link");
  EXPECT_FALSE(MachineFiles().Open(folder / "link", O_RDONLY | O_NOFOLLOW, 0).ok());
  EXPECT_TRUE(MachineFiles().Open(folder / "link", O_RDONLY, 0).ok());
}

TEST(MachineFiles, MappingOutlivesTheFileAndSurvivesPagesGivenBack) {
  TempFolder folder;
  const std::string content(100'000, 'm');
  ASSERT_TRUE(WriteFileAtomic(folder / "file", content).ok());
  auto mapping = Open(folder / "file", O_RDONLY)->Map().value();
  auto* address = const_cast<char*>(mapping->bytes().data());
  ASSERT_EQ(::madvise(address, mapping->bytes().size(), MADV_DONTNEED), 0);
  EXPECT_EQ(mapping->bytes(), content);
  ASSERT_TRUE(WriteFileAtomic(folder / "empty", "").ok());
  EXPECT_EQ(Open(folder / "empty", O_RDONLY)->Map().value()->bytes(), "");
}

TEST(MachineFiles, ReadsToTheEndWhateverTheSizeSays) {
  auto file = Open("/proc/self/status", O_RDONLY);
  EXPECT_EQ(file->Stat()->size, 0u);
  EXPECT_GT(file->ReadAll()->size(), 100u);
}

TEST(Files, SubstituteIsThisThreadsAloneAndGoesBack) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder / "file", "x").ok());
  const fs::path moved = fs::path(MovedFiles::kDisk) / "file";
  {
    MovedFiles files(folder.path());
    EXPECT_EQ(&Files(), &files);
    EXPECT_TRUE(Exists(moved));
    std::thread([&] { EXPECT_FALSE(Exists(moved)); }).join();
  }
  EXPECT_EQ(&Files(), &MachineFiles());
  EXPECT_FALSE(Exists(moved));
}

TEST(Files, EverythingOfThisFolderGoesThroughThem) {
  TempFolder folder;
  MovedFiles files(folder.path());
  const fs::path disk = MovedFiles::kDisk;
  ASSERT_TRUE(WriteFileAtomic(disk / "text", "words").ok());
  EXPECT_EQ(*ReadFile(disk / "text"), "words");
  EXPECT_EQ(MappedFile::Open(disk / "text")->bytes(), "words");
  ASSERT_TRUE(AppendFile::Open(disk / "lines")->AppendLine("one").ok());

  auto writer = FolderWriter::Open(disk / "published/whole");
  ASSERT_TRUE(writer.ok()) << writer.status().ToString();
  const std::string tensors = *EncodeSafetensors({}, {{"key", "value"}});
  ASSERT_TRUE(writer->WriteFile("below/a.safetensors", tensors).ok());
  ASSERT_TRUE(writer->Commit().ok());
  EXPECT_TRUE(VerifyFolder(disk / "published/whole").ok());
  EXPECT_TRUE(Safetensors::Open(disk / "published/whole/below/a.safetensors").ok());

  RecordLogOptions options;
  options.preallocate_bytes = 1 << 20;
  {
    auto log = RecordLogWriter::Open(disk / "log", options);
    ASSERT_TRUE(log.ok() && log->Append(1, "record").ok() && log->Flush(true).ok());
    EXPECT_EQ(RecordLogWriter::Open(disk / "log", options).status().code(),
              StatusCode::kFailedPrecondition);
  }
  int records = 0;
  ASSERT_TRUE(ReadRecordLog(disk / "log", [&](const LogRecord&) {
                ++records;
                return Status::Ok();
              }).ok());
  EXPECT_EQ(records, 1);
  {
    auto store = TrajectoryStoreWriter::Open(disk / "store", {});
    ASSERT_TRUE(store.ok() &&
                (*store)->AppendBlock({{TrajectoryId{}, Hash128{1, 2}, "bytes"}}).ok());
    ASSERT_TRUE((*store)->WriteIndex().ok());
  }
  auto reader = TrajectoryStoreReader::Open(disk / "store");
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(*(*reader)->Read((*reader)->Entries()->at(0)), "bytes");

  ASSERT_TRUE(CreateDirectories(TemporaryName(disk / "rubbish")).ok());
  EXPECT_EQ(*RemoveTemporaries(disk), 1u);
  EXPECT_GT(files.calls, 20);
  EXPECT_EQ(NamesIn(disk),
            (std::vector<std::string>{"lines", "log", "published", "store", "text"}));
}

}  // namespace
}  // namespace thresher
