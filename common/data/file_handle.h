#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/status.h"
#include "common/data/file_system.h"

namespace thresher {

// What an errno means here: ENOENT kNotFound, EEXIST kAlreadyExists, EACCES and EPERM
// kPermissionDenied, ENOSPC, EDQUOT and EFBIG kResourceExhausted, EISDIR and ENOTDIR
// kInvalidArgument, everything else kUnavailable. The message is "`what`: strerror".
Status ErrnoStatus(int error, const std::string& what);

// An open file or directory of Files(). Move-only; closes when it goes. Operations at explicit
// offsets are thread-safe. Errors as in ErrnoStatus, naming the path. What they do: file_system.h.
class FileHandle {
 public:
  FileHandle() = default;
  static Result<FileHandle> Open(const std::filesystem::path& path, int flags, int mode = 0644);

  bool is_open() const { return file_ != nullptr; }
  const std::filesystem::path& path() const { return path_; }

  Result<FileInfo> Stat() const { return file_->Stat(); }
  Result<std::uint64_t> Size() const;
  // `*written` (if given) counts what was written, also when an error ends it.
  Status WriteAt(std::uint64_t offset, std::string_view bytes, std::size_t* written = nullptr);
  // Up to `size` bytes from `offset`; fewer at the end of the file.
  Result<std::string> ReadAt(std::uint64_t offset, std::size_t size) const {
    return file_->ReadAt(offset, size);
  }
  Result<std::string> ReadAll() { return file_->ReadAll(); }
  Status Truncate(std::uint64_t size) { return file_->Truncate(size); }
  Status Preallocate(std::uint64_t size) { return file_->Preallocate(size); }
  Status SetMode(int mode) { return file_->SetMode(mode); }
  Status Sync() { return file_->Sync(); }          // fsync: data and metadata
  Status SyncData() { return file_->SyncData(); }  // fdatasync
  void StartWriting(std::uint64_t begin, std::uint64_t end) { file_->StartWriting(begin, end); }
  void DropCached(std::uint64_t end) { file_->DropCached(end); }
  Status TryLock() { return file_->TryLock(); }
  Result<std::unique_ptr<FileMapping>> Map() const { return file_->Map(); }
  // close(2) with its error; the handle is closed in any case.
  Status Close();

 private:
  FileHandle(std::unique_ptr<File> file, std::filesystem::path path)
      : file_(std::move(file)), path_(std::move(path)) {}
  std::unique_ptr<File> file_;
  std::filesystem::path path_;
};

}  // namespace thresher
