#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace thresher::launch {

// One thing a machine has or lacks.
struct Finding {
  enum class Level { kGood, kNote, kMissing };  // kMissing: `thresher run` needs it
  Level level = Level::kGood;
  std::string what;    // "mpirun"
  std::string found;   // "Open MPI 4.1.4"
  std::string remedy;  // empty when good
};

// Looks at everything; `folder`: where runs would be kept. Starts short-lived programs (nvidia-smi,
// mpirun, srun) with a deadline of 5 s each, opens each GPU and loads NCCL.
std::vector<Finding> Diagnose(const std::filesystem::path& folder);

// The kind of file system a path is on: its name, and whether it is shared between hosts, where
// locks and mapped files behave otherwise. A path that does not exist: that of its nearest parent.
struct FileSystemKind {
  std::string name;  // "ext4", "nfs", "0x1234" when unknown
  bool shared = false;
};
FileSystemKind FileSystemOf(const std::filesystem::path& path);

// First line that `command` (a program and its arguments, found on the PATH) prints; empty when it
// is missing, fails, prints nothing or takes over 5 s.
std::string FirstLineOf(const std::vector<std::string>& command);

}  // namespace thresher::launch
