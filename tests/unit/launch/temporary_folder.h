#pragma once

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "common/base/check.h"

namespace thresher::launch {

// A folder of its own, removed with the object; in memory where that is possible, since tests that
// write hundreds of journals would wait for the disk.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = "/dev/shm/thresher-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) {
      name = (std::filesystem::temp_directory_path() / "thresher-XXXXXX").string();
      THRESHER_CHECK(mkdtemp(name.data()) != nullptr, name);
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Polls until `condition` holds; false after 20 s.
inline bool WaitUntil(const std::function<bool()>& condition) {
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// Whether a process runs; one that has ended and waits for its parent does not.
inline bool IsAlive(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  if (!std::getline(in, text)) return false;
  char state = text[text.rfind(')') + 2];
  return state != 'Z' && state != 'X';
}

inline void Reap(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
}

}  // namespace thresher::launch
