#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/config/device.h"
#include "common/model/resident_parameters.h"
#include "common/model/step_runner.h"
#include "common/model/training_pass.h"
#include "common/sync/device_turn.h"
#include "common/sync/worker_pool.h"

namespace thresher::backend {

// The device of a process: `choice` for its number among its like. Errors: those of CheckDevice.
Result<Device> DeviceOf(const DeviceChoice& choice, int process);
// That the device is there and can run this build's kernels; of the CPU always. Errors:
// kFailedPrecondition (no CUDA in this build, no driver, too old, another architecture), kNotFound
// (no such device), kUnavailable (another process has it for itself), each with its remedy.
Status CheckDevice(const Device& device);

struct RunnerOptions {
  std::int32_t pages = 0;      // KV pages of 16 positions
  std::int32_t slots = 0;      // sequences at once
  std::int32_t max_rows = 0;   // of a step
  bool colocated = false;      // the GPU is shared with a learner that takes turns
  WorkerPool* pool = nullptr;  // of the CPU; borrowed
};
// What computes the engine's steps on `device`. Errors: those of CheckDevice; kResourceExhausted.
Result<std::unique_ptr<model::StepRunner>> MakeRunner(const Device& device,
                                                      const model::ModelConfig& config,
                                                      const RunnerOptions& options);

// What computes the learner's leaves on `device`. Errors: as MakeRunner.
Result<std::unique_ptr<model::TrainingPass>> MakeTrainingPass(const Device& device,
                                                              const model::ModelConfig& config,
                                                              bool colocated);

// What this process has of its GPUs' memory, in bytes, and the most that it ever had; without what
// CUDA takes for itself.
struct GpuMemory {
  std::size_t taken = 0, most = 0;
};
GpuMemory GpuMemoryTaken();

// The turns of `side` on `device`, a GPU that actors and learners of the run in `run_folder` share
// (RunnerOptions::colocated). Errors: those of CheckDevice; kUnavailable (the folder knows no
// locks).
Result<std::unique_ptr<DeviceTurn>> OpenTurn(const Device& device,
                                             const std::filesystem::path& run_folder,
                                             TurnSide side);

struct TrainingOptions {
  bool colocated = false;        // the GPU is shared with an engine that takes turns
  bool resident = false;         // on a GPU: masters, moments and sums of gradients are there too
  std::int32_t valid_vocab = 0;  // see model::PackedModel::Make
  bool critic = false;           // a pass for a critic, too
};
// The same with the parameters; nothing for the CPU, whose learner makes a pass for each thread.
Result<model::TrainingDevice> MakeTrainingDevice(const Device& device,
                                                 const model::ModelConfig& config,
                                                 const TrainingOptions& options);

}  // namespace thresher::backend
