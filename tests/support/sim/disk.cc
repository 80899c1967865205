#include "tests/support/sim/disk.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/check.h"
#include "common/data/file_handle.h"

namespace thresher::sim {
namespace {

using Path = std::filesystem::path;

FileInfo InfoOf(const DiskNode& node) {
  FileInfo info;
  info.kind = node.is_folder ? FileInfo::Kind::kDirectory : FileInfo::Kind::kFile;
  info.size = node.is_folder ? 0 : node.bytes.size();
  info.mode = node.mode;
  info.own = true;
  return info;
}

// A copy of a file's bytes in pages that the kernel can read again.
class MemoryMapping : public FileMapping {
 public:
  explicit MemoryMapping(const std::string& bytes) : size_(bytes.size()) {
    if (bytes.empty()) return;
    const int fd = ::memfd_create("simulated", MFD_CLOEXEC);
    THRESHER_CHECK(fd >= 0, "memfd_create");
    THRESHER_CHECK(::write(fd, bytes.data(), size_) == static_cast<ssize_t>(size_), "memfd");
    address_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    THRESHER_CHECK(address_ != MAP_FAILED, "mmap");
    ::close(fd);
  }
  ~MemoryMapping() override {
    if (address_ != nullptr) ::munmap(address_, size_);
  }
  std::string_view bytes() const override { return {static_cast<const char*>(address_), size_}; }

 private:
  void* address_ = nullptr;
  std::size_t size_;
};

}  // namespace

class DiskFile : public File {
 public:
  DiskFile(Disk& disk, std::shared_ptr<DiskNode> node, Path path)
      : disk_(disk), node_(std::move(node)), path_(std::move(path)) {}
  ~DiskFile() override { Unlock(); }

  Result<FileInfo> Stat() const override { return InfoOf(*node_); }

  Status WriteAt(std::uint64_t offset, std::string_view bytes, std::size_t* written) override {
    *written = 0;
    disk_.Pass("before_write", path_, Duration::zero());
    SpendWriting(offset, bytes);
    if (disk_.scheduler_.Dead()) return Status::Ok();
    Status status;
    if (disk_.IsFull()) {
      status = ErrnoStatus(ENOSPC, path_.string());
      disk_.Trouble("disk full");
    } else if (disk_.Machine() >= 0 && disk_.random_.Chance(disk_.faults.write_error)) {
      status = ErrnoStatus(EIO, path_.string());
      disk_.Trouble("write error");
    }
    if (!status.ok()) bytes = bytes.substr(0, disk_.random_.Below(bytes.size() + 1));
    if (!bytes.empty()) {
      node_->Write({disk_.next_change_++, disk_.Machine(), offset, std::string(bytes), false});
    }
    *written = bytes.size();
    if (status.ok()) disk_.Pass("after_write", path_, Duration::zero());
    return status;
  }

  Result<std::string> ReadAt(std::uint64_t offset, std::size_t size) const override {
    if (offset >= node_->bytes.size()) return std::string();
    return node_->bytes.substr(offset, size);
  }
  Result<std::string> ReadAll() override { return node_->bytes; }

  Status Truncate(std::uint64_t size) override {
    if (disk_.scheduler_.Dead() || size == node_->bytes.size()) return Status::Ok();
    node_->Write({disk_.next_change_++, disk_.Machine(), size, {}, true});
    return Status::Ok();
  }
  Status Preallocate(std::uint64_t size) override {
    if (disk_.IsFull()) return ErrnoStatus(ENOSPC, path_.string() + ": preallocation");
    return size > node_->bytes.size() ? Truncate(size) : Status::Ok();
  }
  Status SetMode(int mode) override {
    node_->mode = mode;
    return Status::Ok();
  }
  Status Sync() override { return disk_.Sync(node_, path_); }
  Status SyncData() override { return disk_.Sync(node_, path_); }

  Status TryLock() override {
    if (node_->locked_by != nullptr && node_->locked_by != this) {
      return FailedPrecondition(path_.string() + ": locked");
    }
    node_->locked_by = this;
    return Status::Ok();
  }
  Result<std::unique_ptr<FileMapping>> Map() const override {
    return std::unique_ptr<FileMapping>(std::make_unique<MemoryMapping>(node_->bytes));
  }
  Status Close() override {
    Unlock();
    return Status::Ok();
  }

 private:
  // The time of a write. A process that is killed meanwhile has written a beginning.
  void SpendWriting(std::uint64_t offset, std::string_view bytes) {
    if (disk_.scheduler_.current() == nullptr || disk_.scheduler_.Dead()) return;
    const int machine = disk_.Machine();
    const std::uint64_t power_cuts = disk_.power_cuts_[machine];
    try {
      disk_.scheduler_.Sleep(disk_.random_.Exponential(disk_.faults.write_time), "writes");
    } catch (const sync::TaskKilled&) {
      if (disk_.power_cuts_[machine] == power_cuts && !disk_.IsFull()) {
        bytes = bytes.substr(0, disk_.random_.Below(bytes.size() + 1));
        node_->Write({disk_.next_change_++, machine, offset, std::string(bytes), false});
        disk_.scheduler_.trace().Count("write cut short by a death");
      }
      throw;
    }
  }
  void Unlock() {
    if (node_->locked_by == this) node_->locked_by = nullptr;
  }

  Disk& disk_;
  std::shared_ptr<DiskNode> node_;
  Path path_;
};

Disk::Disk(Scheduler& scheduler, std::uint64_t seed)
    : scheduler_(scheduler), random_(seed), root_(NewNode(true, 0755)) {}
Disk::~Disk() = default;

Disk::Node Disk::NewNode(bool is_folder, int mode) {
  auto node = std::make_shared<DiskNode>();
  node->is_folder = is_folder;
  node->mode = mode & 07777;
  nodes_.push_back(node);
  return node;
}

int Disk::Machine() const {
  const Process* process = scheduler_.current();
  return process == nullptr ? -1 : process->machine();
}

void Disk::Pass(const char* point, const Path& path, Duration mean) {
  if (scheduler_.current() == nullptr || scheduler_.Dead()) return;
  if (hook) hook(point, path);
  if (mean > Duration::zero()) scheduler_.Sleep(random_.Exponential(mean), "uses the disk");
}

Status Disk::Sync(const Node& node, const Path& path) {
  const std::uint64_t covered = next_change_ - 1;
  const bool slow = random_.Chance(faults.slow_sync);
  if (slow) scheduler_.trace().Count("slow sync");
  Pass("before_sync", path,
       slow ? std::max<Duration>(faults.sync_time, std::chrono::milliseconds(300))
            : faults.sync_time);
  if (scheduler_.Dead()) return Status::Ok();
  if (Machine() >= 0 && random_.Chance(faults.sync_error)) {
    Trouble("sync error");
    if (random_.Chance(0.5)) node->LosePages(covered);
    return ErrnoStatus(EIO, path.string() + ": sync");
  }
  if (!lies_about_sync) node->Sync(covered);
  Pass("after_sync", path, Duration::zero());
  return Status::Ok();
}

void Disk::CutPower(int machine) {
  scheduler_.trace().Count("power cut");
  ++power_cuts_[machine];
  std::erase_if(nodes_, [](const auto& node) { return node.expired(); });
  const auto nodes = nodes_;
  for (const auto& weak : nodes) {
    // A folder that loses its last name takes its nodes with it.
    Node node = weak.lock();
    if (node == nullptr) continue;
    const DiskNode::Lost lost = node->CutPower(machine, random_);
    scheduler_.trace().Count("write forgotten", lost.writes);
    scheduler_.trace().Count("write torn", lost.torn);
    scheduler_.trace().Count("name forgotten", lost.names);
  }
}

void Disk::SyncAll() {
  for (const auto& weak : nodes_) {
    if (Node node = weak.lock()) node->Sync(next_change_);
  }
}

std::uint64_t Disk::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& weak : nodes_) {
    if (Node node = weak.lock()) sum += node->bytes.size();
  }
  return sum;
}

Disk::Place Disk::Find(const Path& path) const {
  Place place{nullptr, {}, root_};
  for (const Path& part : path.lexically_normal()) {
    const std::string name = part.string();
    if (name.empty() || name == "/" || name == ".") continue;
    place.folder = place.node != nullptr && place.node->is_folder ? place.node : nullptr;
    place.name = name;
    place.node = nullptr;
    if (place.folder == nullptr) continue;
    auto found = place.folder->names.find(name);
    if (found != place.folder->names.end()) place.node = found->second;
  }
  return place;
}

void Disk::Name(const Node& folder, const std::string& taken, const std::string& given, Node node) {
  folder->Name({next_change_++, Machine(), taken, given, std::move(node)});
}

void Disk::SwapSynced() {
  for (const std::weak_ptr<DiskNode>& weak : nodes_) {
    const Node node = weak.lock();
    if (node == nullptr) continue;
    std::swap(node->bytes, node->synced_bytes);
    std::swap(node->names, node->synced_names);
  }
}

Result<std::unique_ptr<File>> Disk::Open(const Path& path, int flags, int mode) {
  Place place = Find(path);
  if (place.node == nullptr) {
    if (place.folder == nullptr || (flags & O_CREAT) == 0) {
      return ErrnoStatus(ENOENT, path.string());
    }
    if (IsFull()) return ErrnoStatus(ENOSPC, path.string());
    place.node = NewNode(false, mode);
    if (!scheduler_.Dead()) Name(place.folder, "", place.name, place.node);
  } else if ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) {
    return ErrnoStatus(EEXIST, path.string());
  }
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if (place.node->is_folder && writes) return ErrnoStatus(EISDIR, path.string());
  if (!place.node->is_folder && (flags & O_DIRECTORY) != 0) {
    return ErrnoStatus(ENOTDIR, path.string());
  }
  auto file = std::make_unique<DiskFile>(*this, place.node, path);
  if (writes && (flags & O_TRUNC) != 0) THRESHER_RETURN_IF_ERROR(file->Truncate(0));
  return std::unique_ptr<File>(std::move(file));
}

Result<FileInfo> Disk::Stat(const Path& path, bool) {
  Place place = Find(path);
  return place.node == nullptr ? FileInfo{} : InfoOf(*place.node);
}

Result<std::vector<FileSystem::Entry>> Disk::List(const Path& folder) {
  Place place = Find(folder);
  if (place.node == nullptr) return ErrnoStatus(ENOENT, folder.string());
  if (!place.node->is_folder) return ErrnoStatus(ENOTDIR, folder.string());
  std::vector<Entry> entries;
  for (const auto& [name, node] : place.node->names) entries.push_back({name, InfoOf(*node).kind});
  return entries;
}

Status Disk::Move(const Path& from, const Path& to, bool replace) {
  Pass("before_rename", to, faults.write_time);
  if (scheduler_.Dead()) return Status::Ok();
  Place source = Find(from);
  Place target = Find(to);
  if (source.node == nullptr || target.folder == nullptr) return ErrnoStatus(ENOENT, to.string());
  if (target.node != nullptr) {
    if (!replace) return ErrnoStatus(EEXIST, to.string());
    if (target.node->is_folder && !target.node->names.empty()) {
      return ErrnoStatus(ENOTEMPTY, to.string());
    }
  }
  if (source.folder == target.folder) {
    Name(source.folder, source.name, target.name, source.node);
  } else {
    Name(target.folder, "", target.name, source.node);
    Name(source.folder, source.name, "", nullptr);
  }
  Pass("after_rename", to, Duration::zero());
  return Status::Ok();
}

Status Disk::Rename(const Path& from, const Path& to) { return Move(from, to, true); }
Status Disk::RenameNew(const Path& from, const Path& to) { return Move(from, to, false); }

Status Disk::Link(const Path& from, const Path& to) {
  Place source = Find(from);
  Place target = Find(to);
  if (source.node == nullptr || target.folder == nullptr) return ErrnoStatus(ENOENT, to.string());
  if (target.node != nullptr) return ErrnoStatus(EEXIST, to.string());
  if (!scheduler_.Dead()) Name(target.folder, "", target.name, source.node);
  return Status::Ok();
}

Status Disk::Remove(const Path& path) {
  Place place = Find(path);
  if (place.node == nullptr) return ErrnoStatus(ENOENT, path.string());
  if (!place.node->names.empty()) return ErrnoStatus(ENOTEMPTY, path.string());
  if (!scheduler_.Dead()) Name(place.folder, place.name, "", nullptr);
  return Status::Ok();
}

Status Disk::RemoveAll(const Path& path) {
  Place place = Find(path);
  if (place.node == nullptr || scheduler_.Dead()) return Status::Ok();
  const DiskNode::Names names = place.node->names;
  for (const auto& [name, node] : names) THRESHER_RETURN_IF_ERROR(RemoveAll(path / name));
  Name(place.folder, place.name, "", nullptr);
  return Status::Ok();
}

Status Disk::CreateDirectory(const Path& path, int mode) {
  Place place = Find(path);
  if (place.node != nullptr) return ErrnoStatus(EEXIST, path.string());
  if (place.folder == nullptr) return ErrnoStatus(ENOENT, path.string());
  if (IsFull()) return ErrnoStatus(ENOSPC, path.string());
  if (!scheduler_.Dead()) Name(place.folder, "", place.name, NewNode(true, mode));
  return Status::Ok();
}

Status Disk::CreateDirectories(const Path& path) {
  Path below;
  for (const Path& part : path.lexically_normal()) {
    below /= part;
    if (part.empty() || part == "/" || part == ".") continue;
    Place place = Find(below);
    if (place.node != nullptr && !place.node->is_folder) {
      return ErrnoStatus(ENOTDIR, path.string());
    }
    if (place.node == nullptr) THRESHER_RETURN_IF_ERROR(CreateDirectory(below, 0755));
  }
  return Status::Ok();
}

}  // namespace thresher::sim
