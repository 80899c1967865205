#include "common/net/secret_file.h"

#include <fcntl.h>

#include <cerrno>
#include <span>

#include "common/base/entropy.h"
#include "common/data/files.h"

namespace thresher::net {
namespace {

constexpr std::size_t kMaxSecretBytes = 4096;

bool IsPrivate(const FileInfo& info) { return info.own && (info.mode & 077) == 0; }

// kNotFound when there is none.
Result<std::string> ReadSecret(const std::filesystem::path& file) {
  Result<FileHandle> opened = FileHandle::Open(file, O_RDONLY | O_NOFOLLOW);
  if (!opened.ok() && opened.status().code() == StatusCode::kNotFound) return opened.status();
  if (!opened.ok()) return PermissionDenied("cannot be opened: " + opened.status().message());
  THRESHER_ASSIGN_OR_RETURN(const FileInfo info, opened->Stat());
  if (info.kind != FileInfo::Kind::kFile || !IsPrivate(info)) {
    return PermissionDenied(file.string() +
                            ": allowed: a regular file of this user with mode 0600 (chmod 600)");
  }
  Result<std::string> bytes = opened->ReadAt(0, kMaxSecretBytes + 1);
  if (!bytes.ok()) return Unavailable(bytes.status().message());
  if (bytes->size() > kMaxSecretBytes) return DataLoss(file.string() + ": longer than any secret");
  return bytes;
}

Status WriteSecret(const std::filesystem::path& file, const std::string& bytes) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle opened,
                            FileHandle::Open(file, O_WRONLY | O_CREAT | O_EXCL, 0600));
  THRESHER_RETURN_IF_ERROR(opened.WriteAt(0, bytes));
  return opened.Sync();
}

// Writes a complete file under a name of its own, then links it to `file` unless that exists.
Status CreateSecret(const std::filesystem::path& file, const std::string& bytes) {
  const std::filesystem::path temporary = TemporaryName(file);
  Status status = WriteSecret(temporary, bytes);
  if (status.ok()) status = Files().Link(temporary, file);
  (void)Files().Remove(temporary).ok();
  if (status.ok() || status.code() == StatusCode::kAlreadyExists) return Status::Ok();
  return Unavailable(file.string() + ": cannot be written: " + status.message());
}

}  // namespace

Result<std::string> LoadOrCreateSecret(const std::filesystem::path& file,
                                       const std::function<Result<std::string>()>& make) {
  Result<std::string> found = ReadSecret(file);
  if (found.ok() || found.status().code() != StatusCode::kNotFound) return found;
  THRESHER_ASSIGN_OR_RETURN(std::string bytes, make());
  THRESHER_RETURN_IF_ERROR(CreateSecret(file, bytes));
  return ReadSecret(file);
}

Status MakePrivateFolder(const std::filesystem::path& folder) {
  if (folder.has_parent_path()) (void)CreateDirectories(folder.parent_path()).ok();
  const Status made = Files().CreateDirectory(folder, 0700);
  if (!made.ok() && made.code() != StatusCode::kAlreadyExists) {
    return Unavailable("cannot be made: " + made.message());
  }
  return CheckPrivateFolder(folder);
}

Status CheckPrivateFolder(const std::filesystem::path& folder) {
  const Result<FileInfo> info = Files().Stat(folder, /*follow_links=*/false);
  if (!info.ok()) return Unavailable(info.status().message());
  if (info->kind == FileInfo::Kind::kNone)
    return Unavailable(ErrnoStatus(ENOENT, folder.string()).message());
  if (info->kind != FileInfo::Kind::kDirectory || !IsPrivate(*info)) {
    return PermissionDenied(folder.string() + ": allowed: a folder of this user with mode 0700");
  }
  return Status::Ok();
}

std::string RandomBytes(std::size_t count) {
  std::string bytes(count, '\0');
  FillEntropy(std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

bool EqualInConstantTime(const std::string& a, const std::string& b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < b.size(); ++i) {
    unsigned char left = a.empty() ? 0 : static_cast<unsigned char>(a[i % a.size()]);
    difference |= left ^ static_cast<unsigned char>(b[i]);
  }
  return difference == 0;
}

}  // namespace thresher::net
