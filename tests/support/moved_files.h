#pragma once

#include <atomic>
#include <filesystem>
#include <string>
#include <utility>

#include "common/data/file_system.h"

namespace thresher {

// This thread's files while it lives: what is asked for below kDisk, a folder that no machine has,
// happens below `folder`. Code that passes by Files() finds nothing there.
class MovedFiles : public FileSystem {
 public:
  static constexpr const char* kDisk = "/no-machine-has-this";

  explicit MovedFiles(std::filesystem::path folder)
      : folder_(std::move(folder)), before_(SubstituteFiles(this)) {}
  ~MovedFiles() override { SubstituteFiles(before_); }
  MovedFiles(const MovedFiles&) = delete;
  MovedFiles& operator=(const MovedFiles&) = delete;

  Result<std::unique_ptr<File>> Open(const std::filesystem::path& path, int flags,
                                     int mode) override {
    ++calls;
    return MachineFiles().Open(Moved(path), flags, mode);
  }
  Result<FileInfo> Stat(const std::filesystem::path& path, bool follow_links) override {
    ++calls;
    return MachineFiles().Stat(Moved(path), follow_links);
  }
  Result<std::vector<Entry>> List(const std::filesystem::path& folder) override {
    ++calls;
    return MachineFiles().List(Moved(folder));
  }
  Status Rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    ++calls;
    return MachineFiles().Rename(Moved(from), Moved(to));
  }
  Status RenameNew(const std::filesystem::path& from, const std::filesystem::path& to) override {
    ++calls;
    return MachineFiles().RenameNew(Moved(from), Moved(to));
  }
  Status Link(const std::filesystem::path& from, const std::filesystem::path& to) override {
    ++calls;
    return MachineFiles().Link(Moved(from), Moved(to));
  }
  Status Remove(const std::filesystem::path& path) override {
    ++calls;
    return MachineFiles().Remove(Moved(path));
  }
  Status RemoveAll(const std::filesystem::path& path) override {
    ++calls;
    return MachineFiles().RemoveAll(Moved(path));
  }
  Status CreateDirectory(const std::filesystem::path& path, int mode) override {
    ++calls;
    return MachineFiles().CreateDirectory(Moved(path), mode);
  }
  Status CreateDirectories(const std::filesystem::path& path) override {
    ++calls;
    return MachineFiles().CreateDirectories(Moved(path));
  }

  std::atomic<int> calls = 0;  // of all threads

 private:
  std::filesystem::path Moved(const std::filesystem::path& path) const {
    const std::string text = path.string();
    if (!text.starts_with(kDisk)) return path;
    return folder_.string() + text.substr(std::string(kDisk).size());
  }

  std::filesystem::path folder_;
  FileSystem* before_;
};

}  // namespace thresher
