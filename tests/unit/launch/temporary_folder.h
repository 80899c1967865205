#pragma once

#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "tests/unit/data/temp_folder.h"

namespace thresher::launch {

using TemporaryFolder = TempFolder;

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
