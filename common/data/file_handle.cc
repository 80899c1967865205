#include "common/data/file_handle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace thresher {

Status ErrnoStatus(int error, const std::string& what) {
  std::string message = what + ": " + std::generic_category().message(error);
  switch (error) {
    case ENOENT:
      return NotFound(message);
    case EEXIST:
      return AlreadyExists(message);
    case EACCES:
    case EPERM:
      return PermissionDenied(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ResourceExhausted(message);
    case EISDIR:
    case ENOTDIR:
      return InvalidArgument(message);
    default:
      return Unavailable(message);
  }
}

Result<FileHandle> FileHandle::Open(const std::filesystem::path& path, int flags, int mode) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrnoStatus(errno, path.string());
  return FileHandle(fd, path);
}

FileHandle::FileHandle(FileHandle&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

FileHandle& FileHandle::operator=(FileHandle&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

FileHandle::~FileHandle() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::uint64_t> FileHandle::Size() const {
  struct stat info {};
  if (::fstat(fd_, &info) != 0) return ErrnoStatus(errno, path_.string());
  return static_cast<std::uint64_t>(info.st_size);
}

Status FileHandle::WriteAt(std::uint64_t offset, std::string_view bytes, std::size_t* written) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    ssize_t count =
        ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      if (written != nullptr) *written = done;
      return ErrnoStatus(errno, path_.string());
    }
    done += static_cast<std::size_t>(count);
  }
  if (written != nullptr) *written = done;
  return Status::Ok();
}

Result<std::string> FileHandle::ReadAt(std::uint64_t offset, std::size_t size) const {
  // A size taken from damaged bytes must not allocate more than the file holds.
  THRESHER_ASSIGN_OR_RETURN(std::uint64_t file_size, Size());
  size = std::min<std::uint64_t>(size, file_size > offset ? file_size - offset : 0);
  std::string bytes(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    ssize_t count =
        ::pread(fd_, bytes.data() + done, size - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, path_.string());
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  bytes.resize(done);
  return bytes;
}

Status FileHandle::Truncate(std::uint64_t size) {
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) return ErrnoStatus(errno, path_.string());
  return Status::Ok();
}

Status FileHandle::Sync() {
  if (::fsync(fd_) != 0) return ErrnoStatus(errno, path_.string() + ": fsync");
  return Status::Ok();
}

Status FileHandle::SyncData() {
  if (::fdatasync(fd_) != 0) return ErrnoStatus(errno, path_.string() + ": fdatasync");
  return Status::Ok();
}

Status FileHandle::Close() {
  int fd = std::exchange(fd_, -1);
  if (fd >= 0 && ::close(fd) != 0) return ErrnoStatus(errno, path_.string() + ": close");
  return Status::Ok();
}

}  // namespace thresher
