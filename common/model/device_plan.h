#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "common/model/model_config.h"

namespace thresher::model {

// How generation uses a GPU: how large its buffers are, and which steps share a recorded graph.
// Pure, so that `thresher check` foresees on any machine what a run will take.

// How a GPU multiplies: with the bits of the CPU, or bf16 on tensor cores with keys and values in
// bf16 (kernels/cuda/gemm_bf16.h).
enum class DeviceKernelSet : std::uint8_t { kFp32, kBf16 };
const char* DeviceKernelSetName(DeviceKernelSet set);  // cpu-fp32-v1, cuda-bf16-sm90-v1
// The set of that name, if a GPU computes it.
std::optional<DeviceKernelSet> DeviceKernelSetOf(std::string_view name);

// Ids of the vocabulary whose logits' gradients exist at once in the set kBf16: part of its
// definition.
inline constexpr std::int64_t kHeadGradIds = 8192;
// Rows in one scan of the vocabulary by a training pass.
inline constexpr std::int64_t kHeadRows = 4096;
// What the gradient of the head may take in the set kFp32 beyond the least, in bytes, and the
// blocks of the vocabulary whose logits' gradients exist at once if there is that much.
inline constexpr std::size_t kHeadGradScratch = std::size_t{512} << 20;
inline constexpr std::size_t kHeadGradBlocks = 16;

// Where the memory of a generating device goes, in bytes.
struct DevicePlan {
  std::int32_t pages = 0;          // KV pages
  std::size_t weights = 0;         // one version
  std::size_t second_weights = 0;  // the next one, while it arrives
  std::size_t kv = 0;
  std::size_t workspace = 0;
  std::size_t graphs = 0;  // recorded decode steps; 0: steps are not recorded
  std::size_t total() const { return weights + second_weights + kv + workspace + graphs; }
};

struct DevicePlanOptions {
  DeviceKernelSet set = DeviceKernelSet::kFp32;
  std::int32_t slots = 1;     // sequences at once
  std::int32_t max_rows = 1;  // of a step
  std::int32_t pages = 0;     // 0: as many as sequences of full context need and memory holds
  bool graphs = true;         // decode steps are recorded
};

// Of one page, keys and values of all layers.
std::size_t KvPageBytes(const ModelConfig& config, DeviceKernelSet set);
// Matrices and vectors of one version on a device; with_backward: of kFp32, the transposes too.
std::size_t DeviceMatrixBytes(const ModelConfig& config, DeviceKernelSet set, bool with_backward);
// All that one version takes: those and rotary tables.
std::size_t DeviceWeightBytes(const ModelConfig& config, DeviceKernelSet set, bool with_backward);
// What all versions pass through on their way to a device, into the form of the set.
std::size_t WeightStagingBytes(const ModelConfig& config, DeviceKernelSet set);
// Values of the widest operand of a product that the set kBf16 rounds, a row; with_gradients: of
// the backward pass too.
std::size_t WidestOperand(const ModelConfig& config, bool with_gradients);
// What the set's products take beside their operands in fp32: rounded ones of `rows` rows, scratch.
std::size_t ProductBytes(const ModelConfig& config, DeviceKernelSet set, std::size_t rows,
                         bool with_gradients);
// Activations, tables and scratch of steps, staging of weights.
std::size_t StepWorkspaceBytes(const ModelConfig& config, const DevicePlanOptions& options);

// At least the kernels of a recorded decode step.
std::int64_t DecodeStepKernels(const ModelConfig& config);
// What the CUDA driver takes of the device for recordings of all sizes of steps, over `versions`
// buffers of weights. An estimate: nothing tells it beforehand.
std::size_t RecordingBytes(const ModelConfig& config, std::int32_t slots, int versions);

// free_bytes: what may be taken on the device. Where not all of it fits there is no room for a
// second version, then none for recordings, then fewer pages. Fewer pages than one sequence of full
// context needs: kResourceExhausted, with what is needed and what is free.
Result<DevicePlan> PlanDevice(const ModelConfig& config, const DevicePlanOptions& options,
                              std::size_t free_bytes);

// Rows that attention of few rows may divide over splits (kernels/cuda/attention.h), and the bytes
// that are set aside for it.
std::size_t SplitScratchBytes(const ModelConfig& config, std::int32_t slots);

// A step of decode rows alone is a recorded graph, of which there is one for each of these sizes:
// it takes the smallest that holds it, and its last rows are padding.
struct GraphBucket {
  std::int32_t rows = 0;       // at least those of the step
  std::int32_t positions = 0;  // above every position of the step
  friend auto operator<=>(const GraphBucket&, const GraphBucket&) = default;
};

class GraphBuckets {
 public:
  // slots, context >= 1.
  GraphBuckets(std::int32_t slots, std::int32_t context);
  // The bucket of a step of `rows` rows (1 to slots) whose last position is `position` (below the
  // context).
  GraphBucket Of(std::int32_t rows, std::int32_t position) const;
  const std::vector<std::int32_t>& rows() const { return rows_; }
  const std::vector<std::int32_t>& positions() const { return positions_; }

 private:
  std::vector<std::int32_t> rows_, positions_;  // ascending
};

}  // namespace thresher::model
