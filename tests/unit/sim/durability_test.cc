// What common/data promises of a disk that forgets everything no sync covered.
#include <gtest/gtest.h>

#include <functional>

#include "common/data/files.h"
#include "common/data/folder.h"
#include "common/data/record_log.h"
#include "tests/support/sim/disk.h"

namespace thresher::sim {
namespace {

using std::chrono::seconds;

constexpr int kHistories = 300;

// A machine with one process at a time, which may die at any point of its work with the disk.
class Machine {
 public:
  explicit Machine(std::uint64_t seed)
      : random_(seed), scheduler_(random_.Next(), trace_), disk_(scheduler_, random_.Next()) {
    before_ = SubstituteFiles(&disk_);
    EXPECT_TRUE(disk_.CreateDirectories("/run").ok());
    disk_.SyncAll();
  }
  ~Machine() {
    scheduler_.EndAll();
    SubstituteFiles(before_);
  }

  // Runs `body` as a process, which is killed at its `deadly`-th point, if it comes that far; then
  // the power may be cut. Whether it came to its end.
  bool Run(const std::function<void()>& body, int deadly, bool power_cut) {
    bool over = false, whole = false;
    disk_.hook = [&, left = deadly](const char*, const std::filesystem::path&) mutable {
      if (--left == 0) scheduler_.Kill(*scheduler_.current());
    };
    scheduler_.Start(
        "process", 0,
        [&] {
          body();
          whole = true;
          return 0;
        },
        [&](const Exit&) { over = true; });
    EXPECT_EQ(scheduler_.Run([&] { return over; }, scheduler_.Now() + seconds(100)),
              Scheduler::End::kDone);
    if (power_cut) disk_.CutPower(0);
    return whole;
  }
  Random& random() { return random_; }
  DiskFaults& faults() { return disk_.faults; }

 private:
  Trace trace_;
  Random random_;
  Scheduler scheduler_;
  Disk disk_;
  FileSystem* before_ = nullptr;
};

TEST(Durability, AFileIsOldOrNewAndNewOnceItIsWritten) {
  for (int seed = 1; seed <= kHistories; ++seed) {
    Machine machine(static_cast<std::uint64_t>(seed));
    const std::string first(2000, 'a'), second(3000, 'b');
    auto write = [](const std::string& text) {
      return [&] { EXPECT_TRUE(WriteFileAtomic("/run/file", text).ok()); };
    };
    machine.Run(write(first), 0, true);
    const bool whole =
        machine.Run(write(second), static_cast<int>(machine.random().Below(9)), true);
    auto content = ReadFile("/run/file");
    ASSERT_TRUE(content.ok()) << "seed " << seed;
    ASSERT_TRUE(*content == second || (!whole && *content == first)) << "seed " << seed;
  }
}

TEST(Durability, AFolderIsThereWholeOnceItIsCommitted) {
  for (int seed = 1; seed <= kHistories; ++seed) {
    Machine machine(static_cast<std::uint64_t>(seed));
    const std::string text(2000, 'a');
    auto save = [&] {
      auto writer = FolderWriter::Open("/run/checkpoints/step");
      if (writer.status().code() == StatusCode::kAlreadyExists) return;
      EXPECT_TRUE(writer->WriteFile("model", text).ok());
      EXPECT_TRUE(writer->WriteFile("trainer/state", text).ok());
      EXPECT_TRUE(writer->Commit().ok());
    };
    const bool whole = machine.Run(save, static_cast<int>(machine.random().Below(30)), true);
    auto verified = VerifyFolder("/run/checkpoints/step");
    const StatusCode code = verified.status().code();
    ASSERT_TRUE(verified.ok() || (!whole && code == StatusCode::kNotFound))
        << "seed " << seed << ": " << verified.status().ToString();
  }
}

TEST(Durability, AFolderWhoseWriterDiedStaysOnceItsNameIsSynced) {
  int unfinished = 0;
  for (std::uint64_t seed = 0; seed < kHistories; ++seed) {
    Machine machine(seed);
    const bool whole = machine.Run(
        [] {
          FolderWriter folder = FolderWriter::Open("/run/checkpoints/one").value();
          EXPECT_TRUE(folder.WriteFile("weights", std::string(3000, 'w')).ok());
          EXPECT_TRUE(folder.Commit().ok());
        },
        machine.random().Between(1, 60), /*power_cut=*/false);
    bool found = false;
    machine.Run(
        [&] {
          found = VerifyFolder("/run/checkpoints/one").ok();
          if (!found) return;
          EXPECT_TRUE(SyncFolderName("/run/checkpoints/one").ok());
        },
        /*deadly=*/0, /*power_cut=*/true);
    if (!found) continue;
    unfinished += !whole;
    EXPECT_TRUE(VerifyFolder("/run/checkpoints/one").ok()) << seed;
  }
  EXPECT_GT(unfinished, 5);
}

TEST(Durability, AFolderThatIsRemovedIsWholeOrGone) {
  for (int seed = 1; seed <= kHistories; ++seed) {
    Machine machine(static_cast<std::uint64_t>(seed));
    machine.Run(
        [] {
          auto writer = FolderWriter::Open("/run/checkpoints/step");
          EXPECT_TRUE(writer->WriteFile("model", std::string(2000, 'a')).ok());
          EXPECT_TRUE(writer->WriteFile("trainer/state", "b").ok());
          EXPECT_TRUE(writer->Commit().ok());
        },
        0, false);
    const bool whole =
        machine.Run([] { EXPECT_TRUE(RemoveFolder("/run/checkpoints/step").ok()); },
                    static_cast<int>(machine.random().Below(8)), machine.random().Chance(0.5));
    auto verified = VerifyFolder("/run/checkpoints/step");
    const StatusCode code = verified.status().code();
    ASSERT_TRUE(code == StatusCode::kNotFound || (!whole && verified.ok()))
        << "seed " << seed << ": " << verified.status().ToString();
  }
}

// Appends to a log, dies, appends again: what a Flush with sync returned for is there.
TEST(Durability, ARecordLogKeepsWhatItSyncedAndCutsOffWhatItDidNot) {
  for (int seed = 1; seed <= kHistories; ++seed) {
    Machine machine(static_cast<std::uint64_t>(seed));
    Random& random = machine.random();
    std::vector<std::string> appended, synced;
    const bool syncs_fail = random.Chance(0.5);
    machine.faults().sync_error = syncs_fail ? 0.2 : 0;
    auto work = [&] {
      auto log = RecordLogWriter::Open("/run/journal", {.segment_bytes = 4096});
      if (!log.ok() && syncs_fail && log.status().code() == StatusCode::kUnavailable) return;
      ASSERT_TRUE(log.ok()) << "seed " << seed << ": " << log.status().ToString();
      ASSERT_GE(log->next_sequence(), synced.size());
      appended.resize(log->next_sequence());
      while (true) {
        for (std::uint64_t i = 0; i < 1 + random.Below(6); ++i) {
          appended.push_back(std::string(random.Below(700), static_cast<char>(random.Next())));
          ASSERT_TRUE(log->Append(1, appended.back()).ok());
        }
        const Status flushed = log->Flush(true);
        ASSERT_TRUE(flushed.ok() || syncs_fail);
        if (flushed.ok()) synced = appended;
        if (!flushed.ok() && random.Chance(0.5)) return;
      }
    };
    for (int life = 0; life < 5; ++life) {
      const bool whole =
          machine.Run(work, static_cast<int>(1 + random.Below(60)), random.Chance(0.7));
      ASSERT_FALSE(whole && !syncs_fail);
      std::size_t read = 0;
      Status status = ReadRecordLog("/run/journal", [&](const LogRecord& record) {
        EXPECT_EQ(record.payload, appended.at(read++));
        return Status::Ok();
      });
      if (status.code() == StatusCode::kNotFound) continue;  // it died before it made the folder
      ASSERT_TRUE(status.ok()) << "seed " << seed << ": " << status.ToString();
      ASSERT_GE(read, synced.size()) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace thresher::sim
