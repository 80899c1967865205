#pragma once

#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/comm/nccl_abi.h"

namespace thresher::comm {

// A loaded libnccl. It stays loaded until the process ends: its threads and the device's kernels
// may outlive every communicator.
struct NcclLibrary {
  nccl::Api api;
  int version = 0;   // 22703 is 2.27.3
  std::string path;  // of the file
};

// Where the library may lie, in the order of preference.
struct NcclSearch {
  // Taken before all others when a library of this name is in the process already, such as the one
  // that a CUDA libtorch brought: two in one process corrupt each other. Empty: not looked for.
  std::string loaded = "libnccl.so.2";
  // Files or names for the loader. With `only`, the first must be the one.
  std::vector<std::string> candidates;
  bool only = false;
};
// THRESHER_NCCL_LIBRARY alone if it is set; else the one beside the torch that the build chose
// (site-packages/nvidia/nccl/lib), then the system's.
NcclSearch DefaultNcclSearch();

// Loads the first that is there. Errors, one line each with the remedy: kNotFound (none; where was
// looked), kFailedPrecondition (older than nccl::kOldestVersion, or no NCCL).
Result<NcclLibrary> OpenNccl(const NcclSearch& search);

// The one of this process: DefaultNcclSearch at the first call, its result ever after. Thread-safe.
Result<const NcclLibrary*> ProcessNccl();

// "2.27.3" of 22703.
std::string NcclVersionText(int version);

}  // namespace thresher::comm
