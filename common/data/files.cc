#include "common/data/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "common/base/ids.h"

namespace thresher {
namespace {

std::filesystem::path FolderOf(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

// Where the last complete line of `file` ends.
Result<std::uint64_t> EndOfLines(const FileHandle& file, std::uint64_t size) {
  constexpr std::uint64_t kStep = 64 * 1024;
  std::uint64_t end = size;
  while (end > 0) {
    std::uint64_t begin = end > kStep ? end - kStep : 0;
    THRESHER_ASSIGN_OR_RETURN(std::string block, file.ReadAt(begin, end - begin));
    std::size_t newline = block.rfind('\n');
    if (newline != std::string::npos) return begin + newline + 1;
    end = begin;
  }
  return std::uint64_t{0};
}

Status WriteNewFile(const std::filesystem::path& path, std::string_view bytes, int mode) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle file,
                            FileHandle::Open(path, O_WRONLY | O_CREAT | O_EXCL, mode));
  if (::fchmod(file.fd(), static_cast<mode_t>(mode)) != 0) {
    return ErrnoStatus(errno, path.string());
  }
  THRESHER_RETURN_IF_ERROR(file.WriteAt(0, bytes));
  THRESHER_RETURN_IF_ERROR(file.Sync());
  return file.Close();
}

}  // namespace

Result<std::string> ReadFile(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(path, O_RDONLY));
  std::string bytes;
  while (true) {  // the size of a file in /proc is 0: read to the end, whatever stat says
    std::size_t size = bytes.size();
    bytes.resize(std::max<std::size_t>(size * 2, 64 * 1024));
    ssize_t count = ::read(file.fd(), bytes.data() + size, bytes.size() - size);
    bytes.resize(size + (count > 0 ? static_cast<std::size_t>(count) : 0));
    if (count < 0 && errno != EINTR) return ErrnoStatus(errno, path.string());
    if (count == 0) return bytes;
  }
}

Status WriteFileAtomic(const std::filesystem::path& path, std::string_view bytes, int mode) {
  std::filesystem::path temporary = TemporaryName(path);
  Status status = WriteNewFile(temporary, bytes, mode);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, path.string());
  }
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  return SyncDirectory(FolderOf(path));
}

Status SyncDirectory(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle folder, FileHandle::Open(path, O_RDONLY | O_DIRECTORY));
  return folder.Sync();
}

Status CreateDirectories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), path.string());
  if (!std::filesystem::is_directory(path, error)) return ErrnoStatus(ENOTDIR, path.string());
  return Status::Ok();
}

std::filesystem::path TemporaryName(const std::filesystem::path& path) {
  char mark[32];
  std::snprintf(mark, sizeof mark, ".tmp-%016llx",
                static_cast<unsigned long long>(NewIncarnation().value));
  std::filesystem::path plain = path.has_filename() ? path : path.parent_path();
  return plain.string() + mark;
}

Result<std::uint64_t> RemoveTemporaries(const std::filesystem::path& folder) {
  std::error_code error;
  std::uint64_t removed = 0;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().filename().string().find(".tmp-") == std::string::npos) continue;
    std::filesystem::remove_all(it->path(), error);
    if (error) break;
    ++removed;
  }
  if (error) return ErrnoStatus(error.value(), folder.string());
  return removed;
}

Result<AppendFile> AppendFile::Open(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(path, O_RDWR | O_CREAT));
  THRESHER_ASSIGN_OR_RETURN(std::uint64_t size, file.Size());
  THRESHER_ASSIGN_OR_RETURN(std::uint64_t end, EndOfLines(file, size));
  if (end != size) THRESHER_RETURN_IF_ERROR(file.Truncate(end));
  return AppendFile(std::move(file), end, size - end);
}

Status AppendFile::AppendLine(std::string_view line) {
  if (line.find('\n') != std::string_view::npos) {
    return InvalidArgument(file_.path().string() + ": a line with a newline inside");
  }
  std::string bytes(line);
  bytes += '\n';
  Status status = file_.WriteAt(bytes_, bytes);
  if (!status.ok()) {
    // A part that stays is overwritten by the next line, or cut off by the next Open.
    Status truncated = file_.Truncate(bytes_);
    return truncated.ok() ? status : status.WithContext("(and cannot be shortened)");
  }
  bytes_ += bytes.size();
  return Status::Ok();
}

Status AppendFile::Sync() { return file_.SyncData(); }

Result<MappedFile> MappedFile::Open(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(path, O_RDONLY));
  THRESHER_ASSIGN_OR_RETURN(std::uint64_t size, file.Size());
  if (size == 0) return MappedFile(nullptr, 0);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd(), 0);
  if (address == MAP_FAILED) return ErrnoStatus(errno, path.string() + ": mmap");
  return MappedFile(address, size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (address_ != nullptr) ::munmap(address_, size_);
}

}  // namespace thresher
