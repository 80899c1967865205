#include "common/data/folder.h"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

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
  // Another case of a digit, other spaces: it means the same, and yet a byte is not what was written.
  if (EncodeManifest(manifest) != text) return DataLoss("is not as it was written");
  manifest.hash = HashText128(text);
  return manifest;
}

// Adds the paths of what is below `folder` / `below` and no folder to *names, relative to `folder`;
// those of the folders, whole, to *folders. Links are not entered.
Status CollectFiles(const fs::path& folder, const fs::path& below, std::set<std::string>* names,
                    std::vector<fs::path>* folders) {
  THRESHER_ASSIGN_OR_RETURN(const auto entries, Files().List(folder / below));
  for (const FileSystem::Entry& entry : entries) {
    const fs::path relative = below / entry.name;
    FileInfo::Kind kind = entry.kind;
    if (kind == FileInfo::Kind::kLink) {
      THRESHER_ASSIGN_OR_RETURN(const FileInfo target,
                                Files().Stat(folder / relative, /*follow_links=*/true));
      kind = target.kind;
    }
    if (kind != FileInfo::Kind::kDirectory) {
      names->insert(relative.generic_string());
      continue;
    }
    folders->push_back(folder / relative);
    if (entry.kind == FileInfo::Kind::kLink) continue;
    THRESHER_RETURN_IF_ERROR(CollectFiles(folder, relative, names, folders));
  }
  return Status::Ok();
}

// Piece by piece: a file may be as large as what its writer has in memory.
Result<FolderManifest::File> Digest(const fs::path& path) {
  constexpr std::size_t kPiece = 1 << 20;
  THRESHER_ASSIGN_OR_RETURN(const FileHandle file, FileHandle::Open(path, O_RDONLY));
  FolderManifest::File digest;
  Hasher128 hasher;
  for (std::size_t got = kPiece; got == kPiece; digest.bytes += got) {
    THRESHER_ASSIGN_OR_RETURN(const std::string piece, file.ReadAt(digest.bytes, kPiece));
    hasher.Update(piece);
    got = piece.size();
  }
  digest.hash = hasher.Finish();
  return digest;
}

Status VerifyFile(const fs::path& path, const FolderManifest::File& expected) {
  const auto found = Digest(path);
  if (!found.ok()) return DataLoss(found.status().message());
  if (found->bytes != expected.bytes) {
    return DataLoss(path.string() + ": " + std::to_string(found->bytes) +
                    " bytes; the manifest says " + std::to_string(expected.bytes));
  }
  if (found->hash != expected.hash) {
    return DataLoss(path.string() + ": content differs from its hash in the manifest");
  }
  return Status::Ok();
}

}  // namespace

Result<FolderWriter> FolderWriter::Open(const fs::path& folder) {
  fs::path plain = folder.has_filename() ? folder : folder.parent_path();
  const Result<FileInfo> there = Files().Stat(plain, /*follow_links=*/false);
  if (there.ok() && there->kind != FileInfo::Kind::kNone) {
    return ErrnoStatus(EEXIST, plain.string());
  }
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
  if (!temporary_.empty()) (void)Files().RemoveAll(temporary_).ok();
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
  return WriteFile(relative, std::span(&bytes, 1));
}

Status FolderWriter::WriteFile(const std::string& relative,
                               std::span<const std::string_view> pieces) {
  THRESHER_RETURN_IF_ERROR(CheckName(relative));
  fs::path path = temporary_ / relative;
  THRESHER_RETURN_IF_ERROR(CreateDirectories(path.parent_path()));
  THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(path, O_WRONLY | O_CREAT | O_TRUNC));
  Hasher128 hasher;
  std::uint64_t size = 0;
  for (const std::string_view piece : pieces) {
    THRESHER_RETURN_IF_ERROR(file.WriteAt(size, piece));
    hasher.Update(piece);
    size += piece.size();
  }
  THRESHER_RETURN_IF_ERROR(file.Close());
  manifest_.files[relative] = {size, hasher.Finish()};
  return Status::Ok();
}

Status FolderWriter::AddFile(const std::string& relative) {
  THRESHER_RETURN_IF_ERROR(CheckName(relative));
  THRESHER_ASSIGN_OR_RETURN(manifest_.files[relative], Digest(temporary_ / relative));
  return Status::Ok();
}

Status FolderWriter::SyncFolders() const {
  std::vector<fs::path> folders = {temporary_};
  std::set<std::string> names;
  THRESHER_RETURN_IF_ERROR(CollectFiles(temporary_, "", &names, &folders));
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
  // Not Rename: it replaces an empty folder, so that two writers could both believe they published.
  THRESHER_RETURN_IF_ERROR(Files().RenameNew(temporary_, folder_));
  temporary_.clear();
  THRESHER_RETURN_IF_ERROR(SyncFolderName(folder_));
  return manifest_;
}

Status SyncFolderName(const fs::path& folder) {
  const fs::path parent = folder.has_parent_path() ? folder.parent_path() : fs::path(".");
  THRESHER_RETURN_IF_ERROR(SyncDirectory(parent));
  // Its own name may be as new (the first checkpoint of a run), and as easily lost with the power.
  const Status above = SyncDirectory(parent.has_parent_path() ? parent.parent_path() : "..");
  return above.code() == StatusCode::kPermissionDenied ? Status::Ok() : above;
}

Result<FolderManifest> VerifyFolder(const fs::path& folder) {
  const Result<FileInfo> there = Files().Stat(folder, /*follow_links=*/true);
  if (!there.ok() || there->kind != FileInfo::Kind::kDirectory) {
    return NotFound(folder.string() + ": no such folder");
  }
  Result<std::string> text = ReadFile(folder / kManifestName);
  if (!text.ok()) return DataLoss(text.status().message());
  Result<FolderManifest> manifest = DecodeManifest(*text);
  if (!manifest.ok()) return manifest.status().WithContext((folder / kManifestName).string());

  std::set<std::string> names;
  std::vector<fs::path> folders;
  THRESHER_RETURN_IF_ERROR(CollectFiles(folder, "", &names, &folders));
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

Status RemoveFolder(const fs::path& folder) {
  const fs::path temporary = TemporaryName(folder);
  THRESHER_RETURN_IF_ERROR(Files().Rename(folder, temporary));
  THRESHER_RETURN_IF_ERROR(SyncDirectory(temporary.parent_path()));
  return Files().RemoveAll(temporary);
}

}  // namespace thresher
