#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "common/base/status.h"

namespace thresher {

// What an errno means here: ENOENT kNotFound, EEXIST kAlreadyExists, EACCES and EPERM
// kPermissionDenied, ENOSPC, EDQUOT and EFBIG kResourceExhausted, EISDIR and ENOTDIR
// kInvalidArgument, everything else kUnavailable. The message is "`what`: strerror".
Status ErrnoStatus(int error, const std::string& what);

// An open file or directory. Move-only; closes when it goes. Operations at explicit offsets are
// thread-safe. Errors as in ErrnoStatus, naming the path.
class FileHandle {
 public:
  FileHandle() = default;
  // open(2) with O_CLOEXEC.
  static Result<FileHandle> Open(const std::filesystem::path& path, int flags, int mode = 0644);
  FileHandle(FileHandle&& other) noexcept;
  FileHandle& operator=(FileHandle&& other) noexcept;
  ~FileHandle();

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  const std::filesystem::path& path() const { return path_; }

  Result<std::uint64_t> Size() const;
  // Writes all of `bytes` at `offset`. `*written` (if given) counts what was written, also when an
  // error ends it.
  Status WriteAt(std::uint64_t offset, std::string_view bytes, std::size_t* written = nullptr);
  // Up to `size` bytes from `offset`; fewer at the end of the file.
  Result<std::string> ReadAt(std::uint64_t offset, std::size_t size) const;
  Status Truncate(std::uint64_t size);
  Status Sync();      // fsync: data and metadata
  Status SyncData();  // fdatasync
  // close(2) with its error; the handle is closed in any case.
  Status Close();

 private:
  FileHandle(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  int fd_ = -1;
  std::filesystem::path path_;
};

}  // namespace thresher
