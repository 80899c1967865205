#include "tests/support/sim/disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <set>

namespace thresher::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// One machine whose processes use a disk.
class DiskTest : public testing::Test {
 protected:
  DiskTest() { EXPECT_TRUE(disk_.CreateDirectories("/run").ok()); }

  // Runs `body` as a process of `machine` until it ends or is killed.
  void On(int machine, const std::function<void()>& body) {
    bool over = false;
    scheduler_.Start(
        "process", machine,
        [&] {
          body();
          return 0;
        },
        [&](const Exit&) { over = true; });
    ASSERT_EQ(scheduler_.Run([&] { return over; }, scheduler_.Now() + seconds(100)),
              Scheduler::End::kDone);
  }
  std::unique_ptr<File> Open(const char* path, int flags = O_RDWR | O_CREAT) {
    auto file = disk_.Open(path, flags, 0644);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    return std::move(file).value();
  }
  void Write(File& file, std::uint64_t offset, const std::string& bytes) {
    std::size_t written = 0;
    Status status = file.WriteAt(offset, bytes, &written);
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(written, bytes.size());
  }
  // The content of a file; nothing when there is none.
  std::optional<std::string> Content(const char* path) {
    auto file = disk_.Open(path, O_RDONLY, 0);
    if (!file.ok()) return std::nullopt;
    return (*file)->ReadAll().value();
  }
  void SyncFolder(const char* path) {
    EXPECT_TRUE(Open(path, O_RDONLY | O_DIRECTORY)->Sync().ok());
  }

  Trace trace_;
  Scheduler scheduler_{1, trace_};
  Disk disk_{scheduler_, 1};
};

TEST_F(DiskTest, AKilledProcessLeavesWhatItWrote) {
  On(0, [&] {
    Write(*Open("/run/file"), 0, "hello");
    scheduler_.Kill(*scheduler_.current());
  });
  EXPECT_EQ(Content("/run/file"), "hello");
}

TEST_F(DiskTest, AProcessThatDiesWhileItWritesLeavesABeginning) {
  std::set<std::size_t> sizes;
  for (int i = 0; i < 100; ++i) {
    bool over = false;
    Process& process = scheduler_.Start(
        "process", 0,
        [&] {
          Write(*Open("/run/file", O_RDWR | O_CREAT | O_TRUNC), 0, "hello");
          return 0;
        },
        [&](const Exit&) { over = true; });
    disk_.hook = [&](const char* point, const std::filesystem::path&) {
      if (std::string(point) == "before_write") {
        scheduler_.After(std::chrono::nanoseconds(1), [&] { scheduler_.Kill(process); });
      }
    };
    scheduler_.Run([&] { return over; }, scheduler_.Now() + seconds(100));
    const std::string content = Content("/run/file").value();
    EXPECT_TRUE(std::string("hello").starts_with(content)) << content;
    sizes.insert(content.size());
  }
  EXPECT_EQ(sizes, (std::set<std::size_t>{0, 1, 2, 3, 4, 5}));
}

TEST_F(DiskTest, WhatAKilledProcessDoesWhileItUnwindsHasNoEffect) {
  struct Removes {
    Disk& disk;
    ~Removes() { (void)disk.RemoveAll("/run").ok(); }
  };
  On(0, [&] {
    Write(*Open("/run/file"), 0, "hello");
    Removes removes{disk_};
    scheduler_.Kill(*scheduler_.current());
  });
  EXPECT_EQ(Content("/run/file"), "hello");
}

TEST_F(DiskTest, APowerCutKeepsWhatWasSynced) {
  for (int i = 0; i < 50; ++i) {
    On(0, [&] {
      auto file = Open("/run/file");
      Write(*file, 0, std::string(3000, 'a'));
      EXPECT_TRUE(file->SyncData().ok());
      SyncFolder("/run");
      SyncFolder("/");
      Write(*file, 3000, std::string(3000, 'b'));
    });
    disk_.CutPower(0);
    auto content = Content("/run/file");
    ASSERT_TRUE(content);
    ASSERT_GE(content->size(), 3000u);
    EXPECT_EQ(content->substr(0, 3000), std::string(3000, 'a'));
    EXPECT_EQ(content->find_first_not_of(std::string("ab\0", 3)), std::string::npos);
    On(0, [&] { ASSERT_TRUE(disk_.Remove("/run/file").ok()); });
  }
}

TEST_F(DiskTest, APowerCutTearsForgetsAndKeepsWhatWasNotSynced) {
  bool kept = false, lost = false, torn = false, zeros = false;
  for (int i = 0; i < 200; ++i) {
    On(0, [&] {
      auto file = Open("/run/file");
      EXPECT_TRUE(file->Truncate(0).ok());
      disk_.SyncAll();
      Write(*file, 0, std::string(2000, 'a'));
    });
    disk_.CutPower(0);
    const std::string content = Content("/run/file").value();
    const auto letters = static_cast<std::size_t>(std::count(content.begin(), content.end(), 'a'));
    kept |= letters == 2000;
    lost |= content.empty();
    torn |= letters > 0 && letters < 2000;
    zeros |= letters == 0 && content.size() == 2000;
  }
  EXPECT_TRUE(kept && lost && torn && zeros);
}

TEST_F(DiskTest, ANameNeedsASyncOfItsFolder) {
  int there = 0;
  for (int i = 0; i < 100; ++i) {
    disk_.SyncAll();
    On(0, [&] {
      auto file = Open("/run/file");
      Write(*file, 0, "hello");
      EXPECT_TRUE(file->Sync().ok());
    });
    disk_.CutPower(0);
    there += Content("/run/file").has_value();
    On(0, [&] { (void)disk_.RemoveAll("/run/file"); });
  }
  EXPECT_GT(there, 10);
  EXPECT_LT(there, 90);
}

TEST_F(DiskTest, ARenameIsWholeOrNotAtAll) {
  int now = 0;
  for (int i = 0; i < 100; ++i) {
    On(0, [&] {
      Write(*Open("/run/file"), 0, "old");
      Write(*Open("/run/new"), 0, "new");
    });
    disk_.SyncAll();
    On(0, [&] { EXPECT_TRUE(disk_.Rename("/run/new", "/run/file").ok()); });
    EXPECT_EQ(Content("/run/file"), "new");
    disk_.CutPower(0);
    auto content = Content("/run/file");
    ASSERT_TRUE(content == "old" || content == "new");
    EXPECT_EQ(content == "old", Content("/run/new").has_value());
    now += content == "new";
    On(0, [&] { (void)disk_.RemoveAll("/run/new"); });
  }
  EXPECT_GT(now, 10);
  EXPECT_LT(now, 90);
}

TEST_F(DiskTest, APowerCutOfOneMachineLeavesTheWritesOfOthers) {
  disk_.SyncAll();
  On(1, [&] { Write(*Open("/run/other"), 0, "other"); });
  for (int i = 0; i < 20; ++i) {
    On(0, [&] { Write(*Open("/run/mine"), 0, "mine"); });
    disk_.CutPower(0);
    EXPECT_EQ(Content("/run/other"), "other");
  }
}

TEST_F(DiskTest, AFullDiskRefusesWithWhatItWrote) {
  disk_.faults.full.insert(0);
  On(0, [&] {
    auto file = disk_.Open("/run/file", O_RDWR | O_CREAT, 0644);
    EXPECT_EQ(file.status().code(), StatusCode::kResourceExhausted);
  });
  disk_.faults.full.clear();
  On(0, [&] {
    auto file = Open("/run/file");
    disk_.faults.full.insert(0);
    std::size_t written = 0;
    EXPECT_EQ(file->WriteAt(0, "hello", &written).code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(file->Stat()->size, written);
  });
  EXPECT_GT(trace_.counts().at("disk full"), 0u);
}

TEST_F(DiskTest, AfterAFailedSyncOnlyWhatIsWrittenAgainIsSafe) {
  bool lost = false;
  for (int i = 0; i < 40; ++i) {
    On(0, [&] {
      auto file = Open("/run/file");
      EXPECT_TRUE(file->Truncate(0).ok());
      disk_.SyncAll();
      Write(*file, 0, "first");
      disk_.faults.sync_error = 1;
      EXPECT_EQ(file->Sync().code(), StatusCode::kUnavailable);
      disk_.faults.sync_error = 0;
      EXPECT_TRUE(file->Sync().ok());
      EXPECT_EQ(Content("/run/file"), "first");
    });
    disk_.CutPower(0);
    lost |= Content("/run/file") == "";
  }
  EXPECT_TRUE(lost);
  On(0, [&] {
    auto file = Open("/run/file");
    Write(*file, 0, "first");
    disk_.faults.sync_error = 1;
    EXPECT_FALSE(file->Sync().ok());
    disk_.faults.sync_error = 0;
    Write(*file, 0, "first");
    EXPECT_TRUE(file->Sync().ok());
  });
  disk_.CutPower(0);
  EXPECT_EQ(Content("/run/file"), "first");
}

TEST_F(DiskTest, ALockEndsWithItsProcess) {
  bool over = false;
  Process& holder = scheduler_.Start("holder", 0, [&] {
    auto file = Open("/run/lock");
    EXPECT_TRUE(file->TryLock().ok());
    scheduler_.Sleep(seconds(100), "holds the lock");
    return 0;
  });
  scheduler_.Start("other", 0, [&] {
    scheduler_.Sleep(seconds(1), "sleeps");
    auto file = Open("/run/lock");
    EXPECT_EQ(file->TryLock().code(), StatusCode::kFailedPrecondition);
    scheduler_.Kill(holder);
    scheduler_.Sleep(milliseconds(1), "sleeps");
    EXPECT_TRUE(file->TryLock().ok());
    over = true;
    return 0;
  });
  EXPECT_EQ(scheduler_.Run([&] { return over; }, scheduler_.Now() + seconds(10)),
            Scheduler::End::kDone);
}

TEST_F(DiskTest, AProcessMayDieAtEveryPoint) {
  std::vector<std::string> points;
  disk_.hook = [&](const char* point, const std::filesystem::path&) { points.push_back(point); };
  On(0, [&] {
    auto file = Open("/run/file");
    Write(*file, 0, "hello");
    EXPECT_TRUE(file->Sync().ok());
    EXPECT_TRUE(disk_.Rename("/run/file", "/run/other").ok());
  });
  EXPECT_EQ(points, (std::vector<std::string>{"before_write", "after_write", "before_sync",
                                              "after_sync", "before_rename", "after_rename"}));
}

TEST_F(DiskTest, ListsMakesAndRemovesFolders) {
  On(0, [&] {
    ASSERT_TRUE(disk_.CreateDirectories("/run/a/b").ok());
    EXPECT_EQ(disk_.CreateDirectory("/run/a", 0755).code(), StatusCode::kAlreadyExists);
    Open("/run/a/file");
    auto entries = disk_.List("/run/a").value();
    ASSERT_EQ(entries.size(), 2u);
    EXPECT_EQ(entries[0], (FileSystem::Entry{"b", FileInfo::Kind::kDirectory}));
    EXPECT_EQ(entries[1], (FileSystem::Entry{"file", FileInfo::Kind::kFile}));
    EXPECT_EQ(disk_.CreateDirectories("/run/a/file/c").code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(disk_.RenameNew("/run/a/file", "/run/a/b").code(), StatusCode::kAlreadyExists);
    EXPECT_TRUE(disk_.RemoveAll("/run/a").ok());
    EXPECT_EQ(disk_.Stat("/run/a", true)->kind, FileInfo::Kind::kNone);
    EXPECT_EQ(disk_.Remove("/run/a").code(), StatusCode::kNotFound);
  });
}

}  // namespace
}  // namespace thresher::sim
