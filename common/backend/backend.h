#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/model/step_runner.h"
#include "common/sync/worker_pool.h"

namespace thresher::backend {

enum class DeviceKind : std::uint8_t { kCpu, kCuda };

// Where a model is computed: "cpu", "cuda" (the first GPU) or "cuda:N".
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;  // of GPUs, as the CUDA runtime counts them (CUDA_VISIBLE_DEVICES applies)
  std::string ToString() const;
  friend bool operator==(const Device&, const Device&) = default;
};
// `key`: the option or configuration key, for the error. Error: kInvalidArgument.
Result<Device> ParseDevice(const std::string& text, const std::string& key);

// Whether this build has kernels for GPUs.
bool HasCuda();
// That the device is there and can run this build's kernels; of the CPU always. Errors:
// kFailedPrecondition (no CUDA in this build, no driver, too old, another architecture), kNotFound
// (no such device), kUnavailable (another process has it for itself), each with its remedy.
Status CheckDevice(const Device& device);

struct RunnerOptions {
  std::int32_t pages = 0;      // KV pages of 16 positions
  std::int32_t slots = 0;      // sequences at once
  std::int32_t max_rows = 0;   // of a step
  WorkerPool* pool = nullptr;  // of the CPU; borrowed
};
// What computes the engine's steps on `device`. Errors: those of CheckDevice; kResourceExhausted.
Result<std::unique_ptr<model::StepRunner>> MakeRunner(const Device& device,
                                                      const model::ModelConfig& config,
                                                      const RunnerOptions& options);

}  // namespace thresher::backend
