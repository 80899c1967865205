#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace thresher {

// A folder of its own for one test, removed at its end; in memory where that is possible, since a
// test that syncs thousands of times says nothing about a disk.
class TempFolder {
 public:
  enum class On { kMemory, kDisk };
  explicit TempFolder(On on = On::kMemory) {
    std::string name = "/dev/shm/thresher-test-XXXXXX";
    if (on == On::kDisk || ::mkdtemp(name.data()) == nullptr) {
      name = (std::filesystem::temp_directory_path() / "thresher-test-XXXXXX").string();
      EXPECT_NE(::mkdtemp(name.data()), nullptr);
    }
    path_ = name;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace thresher
