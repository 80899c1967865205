#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "common/data/files.h"
#include "common/data/record_log.h"
#include "common/data/record_log_format.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher {
namespace {

using record_log::SegmentPath;

// Bytes of a file that the machine keeps in memory.
std::uint64_t CachedBytes(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const std::size_t size = std::filesystem::file_size(path);
  void* pages = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  ::close(file);
  EXPECT_NE(pages, MAP_FAILED);
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> there((size + page - 1) / page);
  EXPECT_EQ(::mincore(pages, size, there.data()), 0);
  ::munmap(pages, size);
  const auto cached = std::ranges::count_if(there, [](unsigned char p) { return (p & 1) != 0; });
  return static_cast<std::uint64_t>(cached) * page;
}

TEST(RecordLogMemory, WhatIsWrittenAndSyncedDoesNotFillTheMachinesMemory) {
  TempFolder folder(TempFolder::On::kDisk);
  struct statfs where {};
  ASSERT_EQ(::statfs(folder.path().c_str(), &where), 0);
  if (where.f_type == TMPFS_MAGIC) GTEST_SKIP() << "a file system in memory keeps its pages";
  RecordLogOptions options;
  options.segment_bytes = 24 << 20;
  RecordLogWriter writer = RecordLogWriter::Open(folder.path(), options).value();
  const std::string payload(1 << 20, 'x');
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(writer.Append(1, payload).ok());
    ASSERT_TRUE(writer.Flush(true).ok());
  }
  EXPECT_LT(CachedBytes(SegmentPath(folder.path(), 1)), 1u << 20) << "complete";
  EXPECT_LT(CachedBytes(SegmentPath(folder.path(), 2)), 10u << 20) << "its tail alone";
  int records = 0;
  ASSERT_TRUE(ReadRecordLog(folder.path(), [&](const LogRecord& record) {
                records += record.payload == payload ? 1 : 0;
                return Status::Ok();
              }).ok());
  EXPECT_EQ(records, 40);
}

// Whoever keeps a log does not have its segments in memory, whatever he does with old ones.
TEST(RecordLogMemory, OldSegmentsAreArchivedAndDeletedInLittleMemory) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer keeps what is freed";
#endif
  constexpr std::size_t kSegment = 48 << 20, kAllowed = 24 << 20;
  TempFolder folder;
  {
    RecordLogWriter writer =
        RecordLogWriter::Open(folder.path(), {.segment_bytes = kSegment}).value();
    std::string payload(1 << 20, 'x');
    for (int i = 0; ListLog(folder.path())->size() < 4; ++i) {
      payload[static_cast<std::size_t>(i)] = 'y';
      ASSERT_TRUE(writer.Append(1, payload).ok());
      ASSERT_TRUE(writer.Flush(false).ok());
    }
  }
  const auto peak = [] {
    const std::string status = ReadFile("/proc/self/status").value();
    return std::stoul(status.substr(status.find("VmHWM:") + 6)) << 10;
  };
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak is what there is now
  const std::size_t before = peak();
  ASSERT_TRUE(ArchiveSegment(folder.path(), 1).ok());
  ASSERT_TRUE(ArchiveSegment(folder.path(), 2).ok());
  ASSERT_TRUE(DeleteSegmentsBefore(folder.path(), 2).ok());
  EXPECT_LT(peak(), before + kAllowed);
}

}  // namespace
}  // namespace thresher
