#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace thresher::gpu {

struct DeviceInfo {
  int index = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  std::size_t total_bytes = 0;
  int multiprocessors = 0;
  std::string pci_bus;  // "0000:65:00.0"
};

// Of the runtime that this program is linked with, and of the driver it found (0: none): 13000 is
// 13.0.
struct Versions {
  int runtime = 0, driver = 0;
};
Versions CudaVersions();

// Devices that the driver shows this process (CUDA_VISIBLE_DEVICES). Empty, with an error that says
// what to do: kFailedPrecondition (no driver, or one too old).
Result<std::vector<DeviceInfo>> ListDevices();

// Makes a device current for the calling thread and its context ready. Errors, one line each with
// the remedy: those of ListDevices; kNotFound (no such index, listing those there are);
// kFailedPrecondition (older than compute capability 8.0, or not one this build has kernels for);
// kUnavailable (taken by another process); kResourceExhausted (no memory left for a context).
Result<DeviceInfo> OpenDevice(int index);

// Compute capabilities whose kernels are in this program: "90a", or "80, 90a".
const char* BuiltArchitectures();
// Whether one of `architectures`, a list as above, runs on a device of capability major.minor: one
// of the same major and no later minor; with a letter, exactly that one. Source: CUDA C++
// Programming Guide, "Binary Compatibility" and "Architecture-Specific Features".
bool RunsOn(const std::string& architectures, int major, int minor);

// Makes the device, opened before, the calling thread's: the CUDA runtime keeps one for each
// thread.
Status UseDevice(int index);

}  // namespace thresher::gpu
