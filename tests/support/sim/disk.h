#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/data/file_system.h"
#include "tests/support/sim/disk_node.h"
#include "tests/support/sim/scheduler.h"

namespace thresher::sim {

// What a disk does to those who use it; may be changed at any time.
struct DiskFaults {
  Duration write_time{std::chrono::microseconds(20)};  // means
  Duration sync_time{std::chrono::milliseconds(1)};
  double slow_sync = 0;    // a sync takes up to a second
  double write_error = 0;  // of a write: some of it is written, then EIO
  double sync_error = 0;   // of a sync: EIO; what it should have written may never be
  // Machines that find no room: writes and new files end with ENOSPC.
  std::set<int> full;
};

// The files of all machines of a simulation: one tree, as on a shared file system, in which every
// change lies in the memory of the machine that made it until a sync covers it. A killed process
// leaves everything that it handed over; CutPower forgets. Between tasks nothing takes time or
// fails.
class Disk : public FileSystem {
 public:
  // What is done; a hook may count, wait or kill there (before and after writes, syncs, renames).
  using Hook = std::function<void(const char* point, const std::filesystem::path& path)>;

  Disk(Scheduler& scheduler, std::uint64_t seed);
  ~Disk() override;

  DiskFaults faults;
  Hook hook;
  // A sync that says it is done and has done nothing (planted).
  bool lies_about_sync = false;

  // The machine stops without warning. Its processes are the caller's to kill.
  void CutPower(int machine);
  // While it lives, files and folders are what a power cut of all machines would leave of them at the
  // worst. For readers, between tasks.
  class OnlySynced {
   public:
    explicit OnlySynced(Disk& disk) : disk_(disk) { disk_.SwapSynced(); }
    ~OnlySynced() { disk_.SwapSynced(); }
    OnlySynced(const OnlySynced&) = delete;
    OnlySynced& operator=(const OnlySynced&) = delete;

   private:
    Disk& disk_;
  };
  // All folders and files below `path` as if they were synced.
  void SyncAll();
  std::uint64_t bytes() const;  // of all files
  // Writes and syncs that failed.
  std::uint64_t troubles() const { return troubles_; }

  Result<std::unique_ptr<File>> Open(const std::filesystem::path& path, int flags,
                                     int mode) override;
  Result<FileInfo> Stat(const std::filesystem::path& path, bool follow_links) override;
  Result<std::vector<Entry>> List(const std::filesystem::path& folder) override;
  Status Rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  Status RenameNew(const std::filesystem::path& from, const std::filesystem::path& to) override;
  Status Link(const std::filesystem::path& from, const std::filesystem::path& to) override;
  Status Remove(const std::filesystem::path& path) override;
  Status RemoveAll(const std::filesystem::path& path) override;
  Status CreateDirectory(const std::filesystem::path& path, int mode) override;
  Status CreateDirectories(const std::filesystem::path& path) override;

 private:
  friend class DiskFile;
  using Node = std::shared_ptr<DiskNode>;
  // Where a path leads: its folder (null: not there), the last part, and the node (null: not
  // there).
  struct Place {
    Node folder;
    std::string name;
    Node node;
  };

  Place Find(const std::filesystem::path& path) const;
  Node NewNode(bool is_folder, int mode);
  void Name(const Node& folder, const std::string& taken, const std::string& given, Node node);
  Status Move(const std::filesystem::path& from, const std::filesystem::path& to, bool replace);
  int Machine() const;
  void SwapSynced();
  bool IsFull() const { return faults.full.contains(Machine()); }
  // The calling task spends time at a point where it may die. Nothing between tasks.
  void Pass(const char* point, const std::filesystem::path& path, Duration mean);
  void Trouble(const char* what) {
    ++troubles_;
    scheduler_.trace().Count(what);
  }
  Status Sync(const Node& node, const std::filesystem::path& path);

  Scheduler& scheduler_;
  Random random_;
  std::vector<std::weak_ptr<DiskNode>> nodes_;  // all there are, in the order of their making
  Node root_;
  std::uint64_t next_change_ = 1;
  std::uint64_t troubles_ = 0;
  std::map<int, std::uint64_t> power_cuts_;  // by machine
};

}  // namespace thresher::sim
