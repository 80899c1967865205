#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace thresher {

// What the folders above do to a disk, as an interface: production has the machine's, a simulation
// one that tears, fills and fails. Everything that reads or writes files of a run goes through
// Files(), mostly by way of file_handle.h, files.h and folder.h. Errors as in ErrnoStatus
// (file_handle.h), naming the path, unless a function says otherwise.
//
// A substitute may block in any function and may end the calling task there
// (common/sync/scheduler.h), but for those that destructors call: Truncate, Remove, RemoveAll and
// the end of a File or Mapping neither block nor throw.

struct FileInfo {
  enum class Kind { kNone, kFile, kDirectory, kLink, kOther };
  Kind kind = Kind::kNone;
  std::uint64_t size = 0;  // of a file, in bytes
  int mode = 0;            // permission bits, 07777
  bool own = false;        // belongs to the user of this process
  friend bool operator==(const FileInfo&, const FileInfo&) = default;
};

// The bytes of a file, read-only. They lie in pages of a mapping of a file, so that a reader may
// give them back (madvise MADV_DONTNEED) and read them again.
class FileMapping {
 public:
  virtual ~FileMapping() = default;
  virtual std::string_view bytes() const = 0;
};

// An open file or directory; closed by its destructor, without a word. Operations at explicit
// offsets are thread-safe.
class File {
 public:
  virtual ~File() = default;

  virtual Result<FileInfo> Stat() const = 0;
  // Writes all of `bytes` at `offset`. `*written` (never null) counts what was written, also when
  // an error ends it.
  virtual Status WriteAt(std::uint64_t offset, std::string_view bytes, std::size_t* written) = 0;
  // Up to `size` bytes from `offset`; fewer at the end of the file, and never more than it holds.
  virtual Result<std::string> ReadAt(std::uint64_t offset, std::size_t size) const = 0;
  // From the beginning to the end, whatever Stat says of the size. Once, on a file just opened.
  virtual Result<std::string> ReadAll() = 0;
  virtual Status Truncate(std::uint64_t size) = 0;
  // Gives the first `size` bytes their space on the disk; what is new reads as zeros and counts to
  // the file's size. Ok, without effect, where the file system cannot. Message: "...:
  // preallocation".
  virtual Status Preallocate(std::uint64_t size) = 0;
  virtual Status SetMode(int mode) = 0;  // permission bits, whatever the umask
  virtual Status Sync() = 0;             // data and metadata; of a directory: its names
  virtual Status SyncData() = 0;         // data, and the size that is needed to read it
  // Hints of who writes much and hardly reads it again, without effect where the system knows none:
  // bytes [begin, end) begin to go to the disk now; of the first `end` bytes, those that are there
  // leave the machine's memory.
  virtual void StartWriting(std::uint64_t /*begin*/, std::uint64_t /*end*/) {}
  virtual void DropCached(std::uint64_t /*end*/) {}
  // An exclusive lock on the file or directory that ends with this File (flock). Never waits.
  // Errors: kFailedPrecondition (another File holds it, of this process or another), others (the
  // file system cannot lock).
  virtual Status TryLock() = 0;
  // The whole file; what is written to it later may be seen or not. Outlives the File.
  virtual Result<std::unique_ptr<FileMapping>> Map() const = 0;
  // Closes, with the error that only closing tells; the File is not used again.
  virtual Status Close() = 0;
};

class FileSystem {
 public:
  struct Entry {
    std::string name;
    FileInfo::Kind kind = FileInfo::Kind::kNone;  // of the entry itself: links are not followed
    friend bool operator==(const Entry&, const Entry&) = default;
  };

  virtual ~FileSystem() = default;

  // open(2): one of O_RDONLY, O_WRONLY, O_RDWR, with any of O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY,
  // O_NOFOLLOW; never inherited by children. `mode`: of a file that is made.
  virtual Result<std::unique_ptr<File>> Open(const std::filesystem::path& path, int flags,
                                             int mode) = 0;
  // Of what is there; kind kNone, and no error, when nothing is.
  virtual Result<FileInfo> Stat(const std::filesystem::path& path, bool follow_links) = 0;
  // Without "." and "..", by name in byte order.
  virtual Result<std::vector<Entry>> List(const std::filesystem::path& folder) = 0;
  // rename(2): what stands at `to` is replaced. Errors name `to`.
  virtual Status Rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  // The same, but kAlreadyExists when something stands at `to`; where the file system cannot check
  // that, an empty folder is replaced.
  virtual Status RenameNew(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  // link(2): a second name of a file. Errors name `to`: kAlreadyExists.
  virtual Status Link(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  // A file, a link or an empty folder. Error: kNotFound.
  virtual Status Remove(const std::filesystem::path& path) = 0;
  // With all that is in it; nothing there is no error.
  virtual Status RemoveAll(const std::filesystem::path& path) = 0;
  // mkdir(2): one folder, its parent is there. Error: kAlreadyExists.
  virtual Status CreateDirectory(const std::filesystem::path& path, int mode) = 0;
  // Like `mkdir -p`. Error: kInvalidArgument when a file is in the way.
  virtual Status CreateDirectories(const std::filesystem::path& path) = 0;
};

// The machine's; lives as long as the process. Thread-safe.
FileSystem& MachineFiles();
// The machine's, or what this thread has put in its place.
FileSystem& Files();
// From now on Files() on this thread is `files` (borrowed; null: the machine's). Returns what it
// was before. Files that are open stay those of the system that opened them.
FileSystem* SubstituteFiles(FileSystem* files);

}  // namespace thresher
