#include "common/data/file_handle.h"

#include <cerrno>
#include <system_error>

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
  THRESHER_ASSIGN_OR_RETURN(std::unique_ptr<File> file, Files().Open(path, flags, mode));
  return FileHandle(std::move(file), path);
}

Result<std::uint64_t> FileHandle::Size() const {
  THRESHER_ASSIGN_OR_RETURN(const FileInfo info, file_->Stat());
  return info.size;
}

Status FileHandle::WriteAt(std::uint64_t offset, std::string_view bytes, std::size_t* written) {
  std::size_t ignored = 0;
  return file_->WriteAt(offset, bytes, written != nullptr ? written : &ignored);
}

Status FileHandle::Close() {
  const std::unique_ptr<File> file = std::move(file_);
  return file != nullptr ? file->Close() : Status::Ok();
}

}  // namespace thresher
