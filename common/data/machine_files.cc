// The machine's file system: system calls, their errors as a Status.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "common/data/file_handle.h"

namespace thresher {
namespace {

namespace fs = std::filesystem;

FileInfo InfoOf(const struct stat& raw) {
  FileInfo info;
  info.kind = S_ISREG(raw.st_mode)   ? FileInfo::Kind::kFile
              : S_ISDIR(raw.st_mode) ? FileInfo::Kind::kDirectory
              : S_ISLNK(raw.st_mode) ? FileInfo::Kind::kLink
                                     : FileInfo::Kind::kOther;
  info.size = static_cast<std::uint64_t>(raw.st_size);
  info.mode = static_cast<int>(raw.st_mode & 07777);
  info.own = raw.st_uid == ::geteuid();
  return info;
}

FileInfo::Kind KindOf(fs::file_type type) {
  switch (type) {
    case fs::file_type::regular:
      return FileInfo::Kind::kFile;
    case fs::file_type::directory:
      return FileInfo::Kind::kDirectory;
    case fs::file_type::symlink:
      return FileInfo::Kind::kLink;
    default:
      return FileInfo::Kind::kOther;
  }
}

class MachineMapping : public FileMapping {
 public:
  MachineMapping(void* address, std::size_t size) : address_(address), size_(size) {}
  ~MachineMapping() override {
    if (address_ != nullptr) ::munmap(address_, size_);
  }
  MachineMapping(const MachineMapping&) = delete;
  MachineMapping& operator=(const MachineMapping&) = delete;
  std::string_view bytes() const override { return {static_cast<const char*>(address_), size_}; }

 private:
  void* address_;
  std::size_t size_;
};

class MachineFile : public File {
 public:
  MachineFile(int fd, const fs::path& path) : fd_(fd), path_(path) {}
  ~MachineFile() override {
    if (fd_ >= 0) ::close(fd_);
  }
  MachineFile(const MachineFile&) = delete;
  MachineFile& operator=(const MachineFile&) = delete;

  Result<FileInfo> Stat() const override {
    struct stat raw {};
    if (::fstat(fd_, &raw) != 0) return Error();
    return InfoOf(raw);
  }

  Status WriteAt(std::uint64_t offset, std::string_view bytes, std::size_t* written) override {
    *written = 0;
    while (*written < bytes.size()) {
      const ssize_t count = ::pwrite(fd_, bytes.data() + *written, bytes.size() - *written,
                                     static_cast<off_t>(offset + *written));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Error();
      *written += static_cast<std::size_t>(count);
    }
    return Status::Ok();
  }

  Result<std::string> ReadAt(std::uint64_t offset, std::size_t size) const override {
    // A size taken from damaged bytes must not allocate more than the file holds.
    THRESHER_ASSIGN_OR_RETURN(const FileInfo info, Stat());
    size = std::min<std::uint64_t>(size, info.size > offset ? info.size - offset : 0);
    std::string bytes(size, '\0');
    std::size_t done = 0;
    while (done < size) {
      const ssize_t count =
          ::pread(fd_, bytes.data() + done, size - done, static_cast<off_t>(offset + done));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Error();
      if (count == 0) break;
      done += static_cast<std::size_t>(count);
    }
    bytes.resize(done);
    return bytes;
  }

  Result<std::string> ReadAll() override {
    std::string bytes;
    while (true) {  // the size of a file in /proc is 0
      const std::size_t size = bytes.size();
      bytes.resize(std::max<std::size_t>(size * 2, 64 * 1024));
      const ssize_t count = ::read(fd_, bytes.data() + size, bytes.size() - size);
      const int error = errno;
      bytes.resize(size + (count > 0 ? static_cast<std::size_t>(count) : 0));
      if (count < 0 && error != EINTR) return ErrnoStatus(error, path_.string());
      if (count == 0) return bytes;
    }
  }

  Status Truncate(std::uint64_t size) override {
    return Checked(::ftruncate(fd_, static_cast<off_t>(size)), "");
  }

  Status Preallocate(std::uint64_t size) override {
    int error = 0;
    do {
      error = ::fallocate(fd_, 0, 0, static_cast<off_t>(size)) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error == 0 || error == EOPNOTSUPP || error == ENOSYS) return Status::Ok();
    return ErrnoStatus(error, path_.string() + ": preallocation");
  }

  Status SetMode(int mode) override {
    return Checked(::fchmod(fd_, static_cast<mode_t>(mode)), "");
  }
  Status Sync() override { return Checked(::fsync(fd_), ": fsync"); }
  Status SyncData() override { return Checked(::fdatasync(fd_), ": fdatasync"); }
  void StartWriting(std::uint64_t begin, std::uint64_t end) override {
    (void)::sync_file_range(fd_, static_cast<off64_t>(begin), static_cast<off64_t>(end - begin),
                            SYNC_FILE_RANGE_WRITE);
  }
  void DropCached(std::uint64_t end) override {
    if (end > 0) (void)::posix_fadvise(fd_, 0, static_cast<off_t>(end), POSIX_FADV_DONTNEED);
  }

  Status TryLock() override {
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return Status::Ok();
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, path_.string() + ": flock");
    return FailedPrecondition(path_.string() + ": locked by another");
  }

  Result<std::unique_ptr<FileMapping>> Map() const override {
    THRESHER_ASSIGN_OR_RETURN(const FileInfo info, Stat());
    void* address = nullptr;
    if (info.size > 0) address = ::mmap(nullptr, info.size, PROT_READ, MAP_PRIVATE, fd_, 0);
    if (address == MAP_FAILED) return ErrnoStatus(errno, path_.string() + ": mmap");
    return std::unique_ptr<FileMapping>(std::make_unique<MachineMapping>(address, info.size));
  }

  Status Close() override { return Checked(::close(std::exchange(fd_, -1)), ": close"); }

 private:
  Status Error() const { return ErrnoStatus(errno, path_.string()); }
  Status Checked(int result, const char* call) const {
    return result == 0 ? Status::Ok() : ErrnoStatus(errno, path_.string() + call);
  }

  int fd_;
  const fs::path path_;
};

class MachineFileSystem : public FileSystem {
 public:
  Result<std::unique_ptr<File>> Open(const fs::path& path, int flags, int mode) override {
    int fd = -1;
    do {
      fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return ErrnoStatus(errno, path.string());
    return std::unique_ptr<File>(std::make_unique<MachineFile>(fd, path));
  }

  Result<FileInfo> Stat(const fs::path& path, bool follow_links) override {
    struct stat raw {};
    const int result = follow_links ? ::stat(path.c_str(), &raw) : ::lstat(path.c_str(), &raw);
    if (result == 0) return InfoOf(raw);
    if (errno == ENOENT || errno == ENOTDIR) return FileInfo();
    return ErrnoStatus(errno, path.string());
  }

  Result<std::vector<Entry>> List(const fs::path& folder) override {
    std::vector<Entry> entries;
    std::error_code error;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      std::error_code unknown;  // the entry may have gone meanwhile
      entries.push_back(
          {it->path().filename().string(), KindOf(it->symlink_status(unknown).type())});
    }
    if (error) return ErrnoStatus(error.value(), folder.string());
    std::ranges::sort(entries, {}, &Entry::name);
    return entries;
  }

  Status Rename(const fs::path& from, const fs::path& to) override {
    return Checked(::rename(from.c_str(), to.c_str()), to);
  }

  Status RenameNew(const fs::path& from, const fs::path& to) override {
    const int done = ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE);
    int error = done == 0 ? 0 : errno;
    if (error == EINVAL || error == ENOSYS) {  // NFS and others know only the plain call
      error = ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
    }
    if (error == ENOTEMPTY) error = EEXIST;
    return error == 0 ? Status::Ok() : ErrnoStatus(error, to.string());
  }

  Status Link(const fs::path& from, const fs::path& to) override {
    return Checked(::link(from.c_str(), to.c_str()), to);
  }

  Status Remove(const fs::path& path) override { return Checked(std::remove(path.c_str()), path); }

  Status RemoveAll(const fs::path& path) override {
    std::error_code error;
    fs::remove_all(path, error);
    return error ? ErrnoStatus(error.value(), path.string()) : Status::Ok();
  }

  Status CreateDirectory(const fs::path& path, int mode) override {
    return Checked(::mkdir(path.c_str(), static_cast<mode_t>(mode)), path);
  }

  Status CreateDirectories(const fs::path& path) override {
    std::error_code error;
    fs::create_directories(path, error);
    if (error) return ErrnoStatus(error.value(), path.string());
    if (!fs::is_directory(path, error)) return ErrnoStatus(ENOTDIR, path.string());
    return Status::Ok();
  }

 private:
  static Status Checked(int result, const fs::path& path) {
    return result == 0 ? Status::Ok() : ErrnoStatus(errno, path.string());
  }
};

thread_local FileSystem* substitute = nullptr;

}  // namespace

FileSystem& MachineFiles() {
  static MachineFileSystem files;
  return files;
}

FileSystem& Files() { return substitute != nullptr ? *substitute : MachineFiles(); }

FileSystem* SubstituteFiles(FileSystem* files) { return std::exchange(substitute, files); }

}  // namespace thresher
