#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/gpu/device.h"
#include "kernels/cuda/gemm_bf16.h"
#include "tests/bench/gpu/cublas_lt.h"
#include "tests/bench/gpu/measure.h"

namespace thresher::bench {

// What all sections share: the open device, the clock, the tensor-core products and their peer.
struct Session {
  gpu::DeviceInfo device;
  Meter meter;
  kernels::cuda::Bf16Device bf16;
  gpu::DeviceMemory bf16_scratch;
  std::string without_bf16;      // why the tensor-core products cannot be used; empty: they can
  std::unique_ptr<CublasLt> lt;  // null: `without_lt` says why
  std::string without_lt;

  explicit Session(gpu::DeviceInfo info);
};

// What this device can do, measured beside whatever is compared with it.
struct DeviceLimits {
  double copy_gbytes = 0;    // per second: cudaMemcpy on the device, bytes read and written
  double read_gbytes = 0;    // a kernel that only reads
  double matrix_tflops = 0;  // bf16 products of 8192 x 8192 x 8192, the better of the two libraries
  std::vector<nlohmann::json> rows;
};
DeviceLimits MeasureLimits(Session& session);

// Models whose shapes are measured: Qwen2.5-0.5B and 1.5B, Llama-3.1-8B.
struct BenchShape {
  const char* name;
  std::int64_t width, layers, heads, kv_heads, head_dim, ffn_width, vocab;
};
inline constexpr BenchShape kBenchShapes[] = {
    {"0.5B", 896, 24, 14, 2, 64, 4864, 151936},
    {"1.5B", 1536, 28, 12, 2, 128, 8960, 151936},
    {"8B", 4096, 32, 32, 8, 128, 14336, 128256},
};

// Sections: {"results": [...], "details": [...], "notes": [...]}; results are rows of docs/gpu.md.
nlohmann::json BenchLimits(Session& session);
nlohmann::json BenchGemm(Session& session);
nlohmann::json BenchAttention(Session& session);
nlohmann::json BenchHead(Session& session);
// Of one shape: its weights are as large as the model.
nlohmann::json BenchTraining(Session& session, const BenchShape& shape);

}  // namespace thresher::bench
