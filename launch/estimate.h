#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "actor/tasks/environment.h"
#include "common/base/status.h"
#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/model/model_config.h"

namespace thresher::launch {

// What CUDA takes of a GPU for each process (context, kernels). Assumed: drivers differ.
inline constexpr std::uint64_t kCudaDeviceBytes = 550u << 20;

// Where the memory of one kind of process goes, in bytes of one process.
struct ProcessEstimate {
  std::string name;  // "broker", "learner rank", "actor"
  int count = 1;
  int threads = 1;
  struct Part {
    std::string what;
    std::uint64_t bytes = 0;
  };
  std::vector<Part> parts;           // of this machine's memory
  std::vector<Part> first_parts;     // what the first of them needs besides
  std::vector<Part> gpu_parts;       // of a GPU's; empty: none is used
  std::uint64_t gpu_least = 0;       // of those, without what a process can do without: further KV
                                     // pages, room for the next version of the weights
  std::uint64_t TotalBytes() const;  // of one
  std::uint64_t FirstBytes() const;  // of the first
  std::uint64_t AllBytes() const;    // of all
  std::uint64_t GpuBytes() const;
};

// What a run writes at most, in bytes: trajectories before compression and at full length.
struct DiskEstimate {
  std::uint64_t journal = 0;
  std::uint64_t trajectories = 0;
  std::uint64_t weights = 0;
  std::uint64_t checkpoints = 0;
  std::uint64_t TotalBytes() const { return journal + trajectories + weights + checkpoints; }
};

// What retention leaves and deletes.
struct RetentionEstimate {
  std::uint32_t published = 0;       // versions that the run publishes
  std::uint32_t retained = 0;        // of these, kept to the end
  std::uint32_t first_retained = 0;  // step of the oldest one kept
  std::uint32_t checkpoints = 0;     // written
  std::uint32_t checkpoints_kept = 0;
};

// A run foreseen from its configuration: pure, no side effects.
struct RunEstimate {
  model::ModelConfig shape;
  std::uint64_t parameters = 0;
  std::uint64_t weights_bytes = 0;     // one published version
  std::uint64_t trajectory_bytes = 0;  // the largest one, encoded
  std::uint64_t message_bytes = 0;     // the largest one with its envelope
  std::uint64_t supervised_samples = 0, train_samples = 0, eval_samples = 0;
  std::uint64_t generated_tokens = 0;  // at most
  std::vector<ProcessEstimate> processes;
  DiskEstimate disk;
  RetentionEstimate retention;
};

// The environment that a configuration asks for. Throws ConfigError (task.*).
std::unique_ptr<tasks::Environment> EnvironmentOf(const Config& config);

// Throws ConfigError for what only shows when task, model and transport are put together: a context
// too short for the task's prompts and answers, a trajectory larger than one message, a model.init
// that is no model folder or has another shape.
void CheckConsistency(const Config& config, const tasks::Environment& environment);

// Throws ConfigError when a learner rank needs more than learner.memory_bytes allows or, where that
// is 0, all ranks together more than `machine_bytes`. Of a run whose learner is not on this
// machine: machine_bytes 0, which is not compared with.
void RequireMemory(const Config& config, const RunEstimate& estimate, std::uint64_t machine_bytes);
// What this machine has.
std::uint64_t MachineMemory();

RunEstimate Estimate(const Config& config, const tasks::Environment& environment);
// The same for a model of this shape, whatever model.* and the task's alphabet say.
RunEstimate Estimate(const Config& config, const model::ModelConfig& shape);

}  // namespace thresher::launch
