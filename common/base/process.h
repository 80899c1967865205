#pragma once

#include <cstdint>
#include <string>

namespace thresher {

// What a process tells others of itself, for people to read.
struct ProcessName {
  std::uint32_t pid = 0;
  std::string host;  // "unknown" where the machine has no name
};

// This process on this machine, or what this thread has put in its place.
ProcessName ThisProcess();
// From now on ThisProcess() on this thread is *name (borrowed; null: the real one). Returns what it
// was before.
const ProcessName* SubstituteProcess(const ProcessName* name);

}  // namespace thresher
