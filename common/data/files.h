#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/data/file_handle.h"

namespace thresher {

// Whole files, written so that a reader or a crash sees the old content or the new one, never a
// part. Errors as in ErrnoStatus (file_handle.h), naming the path.

// Errors: kNotFound, kPermissionDenied, kInvalidArgument (a directory), kUnavailable.
Result<std::string> ReadFile(const std::filesystem::path& path);
// Temporary name in the same folder, fsync, rename, fsync of the folder. `mode` is exact (no
// umask). After an error the old file is as it was and no temporary is left.
Status WriteFileAtomic(const std::filesystem::path& path, std::string_view bytes, int mode = 0644);
// The same piece by piece, for what is not to lie in memory as a whole. What is not published
// leaves no trace. Move-only, one owner. Errors as above.
class AtomicFile {
 public:
  static Result<AtomicFile> Create(const std::filesystem::path& path, int mode = 0644);
  AtomicFile(AtomicFile&&) = default;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  Status Append(std::string_view bytes);
  // The file stands under its name, on the disk. Once.
  Status Publish();

 private:
  AtomicFile(std::filesystem::path path, std::filesystem::path temporary, FileHandle file)
      : path_(std::move(path)), temporary_(std::move(temporary)), file_(std::move(file)) {}
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  FileHandle file_;  // open until it is published
  std::uint64_t bytes_ = 0;
};
// fsync of a directory: makes names created, renamed or removed in it durable.
Status SyncDirectory(const std::filesystem::path& path);
// Like `mkdir -p`. Error: kInvalidArgument when a file is in the way.
Status CreateDirectories(const std::filesystem::path& path);
// "`name`.tmp-0123456789abcdef": the mark of what is not yet complete.
std::filesystem::path TemporaryName(const std::filesystem::path& path);
// Whether something stands at `path`, links followed; false also when that cannot be told.
bool Exists(const std::filesystem::path& path);
// Names of what is in `folder`, in byte order; none when it cannot be read.
std::vector<std::string> NamesIn(const std::filesystem::path& folder);
// Removes the `*.tmp-*` entries of a folder that a killed process left. Returns their number.
Result<std::uint64_t> RemoveTemporaries(const std::filesystem::path& folder);

// A file of lines that only grows (metrics.jsonl, events.jsonl). One owner, not thread-safe.
class AppendFile {
 public:
  // Creates the file when it is missing. A last line without its newline (a process died in it) is
  // cut off; `repaired_bytes` tells its size.
  static Result<AppendFile> Open(const std::filesystem::path& path);
  // Appends `line` and a newline in one write. After an error nothing of the line is in the file.
  // Errors: kInvalidArgument (a newline inside), kResourceExhausted (disk full), kUnavailable.
  Status AppendLine(std::string_view line);
  Status Sync();  // fdatasync
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t repaired_bytes() const { return repaired_bytes_; }

 private:
  AppendFile(FileHandle file, std::uint64_t bytes, std::uint64_t repaired_bytes)
      : file_(std::move(file)), bytes_(bytes), repaired_bytes_(repaired_bytes) {}
  FileHandle file_;
  std::uint64_t bytes_;
  std::uint64_t repaired_bytes_;
};

// A file mapped read-only. Move-only; views of it live as long as it does. The file must not be
// shortened meanwhile (published files never are: they are replaced by renaming).
class MappedFile {
 public:
  static Result<MappedFile> Open(const std::filesystem::path& path);
  std::string_view bytes() const { return mapping_ ? mapping_->bytes() : std::string_view(); }

 private:
  explicit MappedFile(std::unique_ptr<FileMapping> mapping) : mapping_(std::move(mapping)) {}
  std::unique_ptr<FileMapping> mapping_;
};

}  // namespace thresher
