#include "common/data/files.h"

#include <fcntl.h>

#include <cstdio>
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

}  // namespace

Result<std::string> ReadFile(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(path, O_RDONLY));
  return file.ReadAll();
}

Status WriteFileAtomic(const std::filesystem::path& path, std::string_view bytes, int mode) {
  THRESHER_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path, mode));
  THRESHER_RETURN_IF_ERROR(file.Append(bytes));
  return file.Publish();
}

Result<AtomicFile> AtomicFile::Create(const std::filesystem::path& path, int mode) {
  const std::filesystem::path temporary = TemporaryName(path);
  THRESHER_ASSIGN_OR_RETURN(FileHandle handle,
                            FileHandle::Open(temporary, O_WRONLY | O_CREAT | O_EXCL, mode));
  AtomicFile file(path, temporary, std::move(handle));
  THRESHER_RETURN_IF_ERROR(file.file_.SetMode(mode));
  return file;
}

AtomicFile::~AtomicFile() {
  if (file_.is_open()) (void)Files().Remove(temporary_).ok();
}

Status AtomicFile::Append(std::string_view bytes) {
  THRESHER_RETURN_IF_ERROR(file_.WriteAt(bytes_, bytes));
  bytes_ += bytes.size();
  return Status::Ok();
}

Status AtomicFile::Publish() {
  THRESHER_RETURN_IF_ERROR(file_.Sync());
  Status status = file_.Close();
  if (status.ok()) status = Files().Rename(temporary_, path_);
  if (status.ok()) return SyncDirectory(FolderOf(path_));
  (void)Files().Remove(temporary_).ok();
  return status;
}

Status SyncDirectory(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle folder, FileHandle::Open(path, O_RDONLY | O_DIRECTORY));
  return folder.Sync();
}

Status CreateDirectories(const std::filesystem::path& path) {
  return Files().CreateDirectories(path);
}

bool Exists(const std::filesystem::path& path) {
  const Result<FileInfo> info = Files().Stat(path, /*follow_links=*/true);
  return info.ok() && info->kind != FileInfo::Kind::kNone;
}

std::vector<std::string> NamesIn(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  const Result<std::vector<FileSystem::Entry>> entries = Files().List(folder);
  if (!entries.ok()) return names;
  for (const FileSystem::Entry& entry : *entries) names.push_back(entry.name);
  return names;
}

std::filesystem::path TemporaryName(const std::filesystem::path& path) {
  char mark[32];
  std::snprintf(mark, sizeof mark, ".tmp-%016llx",
                static_cast<unsigned long long>(NewIncarnation().value));
  std::filesystem::path plain = path.has_filename() ? path : path.parent_path();
  return plain.string() + mark;
}

Result<std::uint64_t> RemoveTemporaries(const std::filesystem::path& folder) {
  THRESHER_ASSIGN_OR_RETURN(const std::vector<FileSystem::Entry> entries, Files().List(folder));
  std::uint64_t removed = 0;
  for (const FileSystem::Entry& entry : entries) {
    if (entry.name.find(".tmp-") == std::string::npos) continue;
    THRESHER_RETURN_IF_ERROR(Files().RemoveAll(folder / entry.name));
    ++removed;
  }
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
  THRESHER_ASSIGN_OR_RETURN(std::unique_ptr<FileMapping> mapping, file.Map());
  return MappedFile(std::move(mapping));
}

}  // namespace thresher
