#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/base/ids.h"
#include "common/base/status.h"

namespace thresher {

// Folders that are published whole (checkpoints, exported models). A complete folder holds
// MANIFEST.json, a JSON object {"format": 1, "files": {"relative/path": {"bytes": n, "xxh3_128":
// "32 hexadecimal digits"}}} of all its other files, sorted by path, and appears under its name
// only when everything is on disk.

inline constexpr const char* kManifestName = "MANIFEST.json";

struct FolderManifest {
  struct File {
    std::uint64_t bytes = 0;
    Hash128 hash;
    friend bool operator==(const File&, const File&) = default;
  };
  std::map<std::string, File> files;  // by path relative to the folder, '/' between parts
  Hash128 hash;                       // of MANIFEST.json itself: names the whole content
  friend bool operator==(const FolderManifest&, const FolderManifest&) = default;
};

// Writes one folder. One owner, not thread-safe. Without Commit nothing appears under the name, and
// the destructor removes what was written; what a killed process leaves is removed by
// RemoveTemporaries (files.h).
class FolderWriter {
 public:
  // Makes `folder`.tmp-<random>, and the parents of `folder` when they are missing. Errors:
  // kAlreadyExists (`folder` exists), and as in ErrnoStatus.
  static Result<FolderWriter> Open(const std::filesystem::path& folder);
  FolderWriter(FolderWriter&& other) noexcept;
  FolderWriter& operator=(FolderWriter&& other) noexcept;
  ~FolderWriter();

  // Where files that other code writes go (a tokenizer that saves itself); AddFile lists them.
  const std::filesystem::path& path() const { return temporary_; }
  // Writes and lists one file; folders in `relative` are made. Errors: kInvalidArgument (an
  // absolute path, "..", the manifest's name), kAlreadyExists (listed before), kResourceExhausted,
  // ...
  Status WriteFile(const std::string& relative, std::string_view bytes);
  // The same of a file that consists of `pieces`, one behind the other.
  Status WriteFile(const std::string& relative, std::span<const std::string_view> pieces);
  // Lists a file that stands below path() already.
  Status AddFile(const std::string& relative);
  // Writes the manifest, syncs every file and folder, renames, syncs the parent and, where it may
  // be read, the parent's. Blocks on the disk. Returns the manifest as VerifyFolder would. Errors:
  // kAlreadyExists (the name was taken meanwhile), kFailedPrecondition (a file in path() that is
  // not listed; or a second Commit).
  Result<FolderManifest> Commit();

 private:
  FolderWriter(std::filesystem::path folder, std::filesystem::path temporary)
      : folder_(std::move(folder)), temporary_(std::move(temporary)) {}
  Status CheckName(const std::string& relative) const;
  Status SyncFolders() const;

  std::filesystem::path folder_;
  std::filesystem::path temporary_;  // empty when committed
  FolderManifest manifest_;
};

// A folder that another process published stays where it is, whatever happens to the machine: that
// process may have died before its Commit had ended. Blocks on the disk. Errors: I/O.
Status SyncFolderName(const std::filesystem::path& folder);

// Reads the manifest and every file it lists. Errors: kNotFound (no such folder), kDataLoss naming
// what is wrong: no manifest, not a manifest, a file missing, of another size or content, not
// listed.
Result<FolderManifest> VerifyFolder(const std::filesystem::path& folder);

// Deletes a folder that was published whole. Its name goes first, and for good: who dies meanwhile
// leaves a temporary, never a folder that lacks something. Errors: as in ErrnoStatus.
Status RemoveFolder(const std::filesystem::path& folder);

}  // namespace thresher
