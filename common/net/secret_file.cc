#include "common/net/secret_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "common/base/check.h"

namespace thresher::net {
namespace {

constexpr std::size_t kMaxSecretBytes = 4096;

std::string Reason() { return std::strerror(errno); }

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// kNotFound when there is none.
Result<std::string> ReadSecret(const std::filesystem::path& file) {
  FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.get() < 0 && errno == ENOENT) return NotFound(file.string());
  if (fd.get() < 0) return PermissionDenied(file.string() + ": cannot be opened: " + Reason());
  struct stat info {};
  THRESHER_CHECK(::fstat(fd.get(), &info) == 0, file.string() + ": " + Reason());
  if (!S_ISREG(info.st_mode) || info.st_uid != ::geteuid() || (info.st_mode & 077) != 0) {
    return PermissionDenied(file.string() +
                            ": allowed: a regular file of this user with mode 0600 (chmod 600)");
  }
  std::string bytes(kMaxSecretBytes + 1, '\0');
  ssize_t size = ::read(fd.get(), bytes.data(), bytes.size());
  if (size < 0) return Unavailable(file.string() + ": " + Reason());
  if (static_cast<std::size_t>(size) > kMaxSecretBytes) {
    return DataLoss(file.string() + ": longer than any secret");
  }
  bytes.resize(static_cast<std::size_t>(size));
  return bytes;
}

// Writes a complete file under a name of its own, then links it to `file` unless that exists.
Status CreateSecret(const std::filesystem::path& file, const std::string& bytes) {
  std::string pattern = file.string() + ".XXXXXX";
  std::vector<char> name(pattern.begin(), pattern.end());
  name.push_back('\0');
  FileDescriptor fd(::mkostemp(name.data(), O_CLOEXEC));  // mode 0600
  if (fd.get() < 0) return Unavailable(file.string() + ": cannot be made: " + Reason());
  bool written =
      ::write(fd.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()) &&
      ::fsync(fd.get()) == 0;
  bool linked = written && (::link(name.data(), file.c_str()) == 0 || errno == EEXIST);
  Status status =
      linked ? Status::Ok() : Unavailable(file.string() + ": cannot be written: " + Reason());
  ::unlink(name.data());
  return status;
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
  std::error_code error;
  if (folder.has_parent_path()) std::filesystem::create_directories(folder.parent_path(), error);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return Unavailable(folder.string() + ": cannot be made: " + Reason());
  }
  return CheckPrivateFolder(folder);
}

Status CheckPrivateFolder(const std::filesystem::path& folder) {
  struct stat info {};
  if (::lstat(folder.c_str(), &info) != 0) return Unavailable(folder.string() + ": " + Reason());
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid() || (info.st_mode & 077) != 0) {
    return PermissionDenied(folder.string() + ": allowed: a folder of this user with mode 0700");
  }
  return Status::Ok();
}

std::string RandomBytes(std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t have = 0; have < count;) {
    ssize_t got = ::getrandom(bytes.data() + have, count - have, 0);
    THRESHER_CHECK(got > 0 || errno == EINTR, "no entropy: " + Reason());
    if (got > 0) have += static_cast<std::size_t>(got);
  }
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
