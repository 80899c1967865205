#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace thresher {

enum class DeviceKind : std::uint8_t { kCpu, kCuda };

// Where a model is computed.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;  // of GPUs, as the CUDA runtime counts them (CUDA_VISIBLE_DEVICES applies)
  std::string ToString() const;  // "cpu", "cuda:1"
  friend bool operator==(const Device&, const Device&) = default;
};

// What a key or an option names: "cpu", or GPUs, which processes take in turn: "cuda" for all that
// there are, "cuda:0" or "cuda:1,cuda:3" for these.
struct DeviceChoice {
  DeviceKind kind = DeviceKind::kCpu;
  std::vector<int> indices;  // of kCuda; empty: all
  // Of the process's number among its like. gpu_count: how many there are, at least 1; used when
  // all are meant.
  Device Of(int process, int gpu_count) const;
};

// Error: kInvalidArgument with `key`, what was found and what is allowed.
Result<DeviceChoice> ParseDevices(const std::string& text, const std::string& key);

}  // namespace thresher
