#include "common/data/folder.h"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/files.h"
#include "common/data/json.h"

namespace thresher {
namespace {

namespace fs = std::filesystem;

constexpr int kManifestFormat = 1;

std::string EncodeManifest(const FolderManifest& manifest) {
  nlohmann::ordered_json files = nlohmann::ordered_json::object();
  for (const auto& [name, file] : manifest.files) {
    files[name] = {{"bytes", file.bytes}, {"xxh3_128", file.hash.ToString()}};
  }
  nlohmann::ordered_json root = {{"format", kManifestFormat}, {"files", std::move(files)}};
  return root.dump(1) + "\n";
}

Result<FolderManifest> DecodeManifest(const std::string& text) {
  THRESHER_ASSIGN_OR_RETURN(nlohmann::json root, ParseJson(text));
  if (!root.is_object() || root.size() != 2 || !root.contains("format") ||
      root["format"] != kManifestFormat || !root.contains("files") || !root["files"].is_object()) {
    return DataLoss("is no manifest of format " + std::to_string(kManifestFormat));
  }
  FolderManifest manifest;
  for (const auto& [name, file] : root["files"].items()) {
    if (!file.is_object() || !file.contains("bytes") || !file["bytes"].is_number_unsigned() ||
        !file.contains("xxh3_128") || !file["xxh3_128"].is_string()) {
      return DataLoss("'" + name + "' has no size or no hash");
    }
    Result<Hash128> hash = Hash128::Parse(file["xxh3_128"].get<std::string>());
    if (!hash.ok()) return DataLoss("'" + name + "': " + hash.status().message());
    manifest.files[name] = {file["bytes"].get<std::uint64_t>(), *hash};
  }
  manifest.hash = HashText128(text);
  return manifest;
}

// Paths of the regular files below `folder`, relative to it; and, to *folders, the folders.
Result<std::set<std::string>> ListFiles(const fs::path& folder, std::vector<fs::path>* folders) {
  std::set<std::string> names;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (it->is_directory(error)) {
      if (folders != nullptr) folders->push_back(it->path());
    } else {
      names.insert(it->path().lexically_relative(folder).generic_string());
    }
  }
  if (error) return ErrnoStatus(error.value(), folder.string());
  return names;
}

Status VerifyFile(const fs::path& path, const FolderManifest::File& expected) {
  Result<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return DataLoss(file.status().message());
  if (file->bytes().size() != expected.bytes) {
    return DataLoss(path.string() + ": " + std::to_string(file->bytes().size()) +
                    " bytes; the manifest says " + std::to_string(expected.bytes));
  }
  if (HashText128(file->bytes()) != expected.hash) {
    return DataLoss(path.string() + ": content differs from its hash in the manifest");
  }
  return Status::Ok();
}

// rename(2) would replace an empty folder, so that two writers could both believe they published.
Status RenameToNewName(const fs::path& from, const fs::path& to) {
  int error =
      ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0 ? 0 : errno;
  if (error == EINVAL || error == ENOSYS) {  // NFS and others know only the plain call
    error = ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
  }
  if (error == ENOTEMPTY) error = EEXIST;
  return error == 0 ? Status::Ok() : ErrnoStatus(error, to.string());
}

}  // namespace

Result<FolderWriter> FolderWriter::Open(const fs::path& folder) {
  fs::path plain = folder.has_filename() ? folder : folder.parent_path();
  std::error_code error;
  if (fs::exists(fs::symlink_status(plain, error))) return ErrnoStatus(EEXIST, plain.string());
  fs::path temporary = TemporaryName(plain);
  THRESHER_RETURN_IF_ERROR(CreateDirectories(temporary));
  return FolderWriter(plain, temporary);
}

FolderWriter::FolderWriter(FolderWriter&& other) noexcept
    : folder_(std::move(other.folder_)),
      temporary_(std::exchange(other.temporary_, fs::path())),
      manifest_(std::move(other.manifest_)) {}

FolderWriter& FolderWriter::operator=(FolderWriter&& other) noexcept {
  std::swap(folder_, other.folder_);
  std::swap(temporary_, other.temporary_);
  std::swap(manifest_, other.manifest_);
  return *this;
}

FolderWriter::~FolderWriter() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

Status FolderWriter::CheckName(const std::string& relative) const {
  fs::path path(relative);
  bool inside = !relative.empty() && path.is_relative() && path.has_filename() &&
                path.lexically_normal().string() == relative && *path.begin() != "..";
  if (!inside || relative == kManifestName || relative == ".") {
    return InvalidArgument(folder_.string() + ": '" + relative +
                           "' is not allowed as the name of a file in the folder");
  }
  if (manifest_.files.contains(relative)) {
    return AlreadyExists(folder_.string() + ": '" + relative + "' is listed already");
  }
  return Status::Ok();
}

Status FolderWriter::WriteFile(const std::string& relative, std::string_view bytes) {
  THRESHER_RETURN_IF_ERROR(CheckName(relative));
  fs::path path = temporary_ / relative;
  THRESHER_RETURN_IF_ERROR(CreateDirectories(path.parent_path()));
  THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(path, O_WRONLY | O_CREAT | O_TRUNC));
  THRESHER_RETURN_IF_ERROR(file.WriteAt(0, bytes));
  THRESHER_RETURN_IF_ERROR(file.Close());
  manifest_.files[relative] = {bytes.size(), HashText128(bytes)};
  return Status::Ok();
}

Status FolderWriter::AddFile(const std::string& relative) {
  THRESHER_RETURN_IF_ERROR(CheckName(relative));
  THRESHER_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(temporary_ / relative));
  manifest_.files[relative] = {file.bytes().size(), HashText128(file.bytes())};
  return Status::Ok();
}

Status FolderWriter::SyncFolders() const {
  std::vector<fs::path> folders = {temporary_};
  THRESHER_ASSIGN_OR_RETURN(std::set<std::string> names, ListFiles(temporary_, &folders));
  for (const std::string& name : names) {
    if (name != kManifestName && !manifest_.files.contains(name)) {
      return FailedPrecondition((temporary_ / name).string() + ": not listed before Commit");
    }
    THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(temporary_ / name, O_RDONLY));
    THRESHER_RETURN_IF_ERROR(file.Sync());
  }
  for (const fs::path& folder : folders) THRESHER_RETURN_IF_ERROR(SyncDirectory(folder));
  return Status::Ok();
}

Result<FolderManifest> FolderWriter::Commit() {
  if (temporary_.empty()) return FailedPrecondition(folder_.string() + ": committed before");
  std::string text = EncodeManifest(manifest_);
  manifest_.hash = HashText128(text);
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(temporary_ / kManifestName, text));
  THRESHER_RETURN_IF_ERROR(SyncFolders());
  THRESHER_RETURN_IF_ERROR(RenameToNewName(temporary_, folder_));
  temporary_.clear();
  fs::path parent = folder_.has_parent_path() ? folder_.parent_path() : fs::path(".");
  THRESHER_RETURN_IF_ERROR(SyncDirectory(parent));
  return manifest_;
}

Result<FolderManifest> VerifyFolder(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) return NotFound(folder.string() + ": no such folder");
  Result<std::string> text = ReadFile(folder / kManifestName);
  if (!text.ok()) return DataLoss(text.status().message());
  Result<FolderManifest> manifest = DecodeManifest(*text);
  if (!manifest.ok()) return manifest.status().WithContext((folder / kManifestName).string());

  THRESHER_ASSIGN_OR_RETURN(std::set<std::string> names, ListFiles(folder, nullptr));
  for (const std::string& name : names) {
    if (name != kManifestName && !manifest->files.contains(name)) {
      return DataLoss((folder / name).string() + ": not in the manifest");
    }
  }
  for (const auto& [name, file] : manifest->files) {
    // A name that leads elsewhere is not in `names`, so nothing outside the folder is opened.
    if (!names.contains(name)) return DataLoss((folder / name).string() + ": missing");
    THRESHER_RETURN_IF_ERROR(VerifyFile(folder / name, file));
  }
  return manifest;
}

}  // namespace thresher
