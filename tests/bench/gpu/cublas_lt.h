#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>

#include "common/gpu/handles.h"
#include "kernels/cuda/bf16_rows.h"

namespace thresher::bench {

// cuBLASLt as the fastest path that promises nothing about bits: its heuristics choose. Loaded when
// asked for; nothing of it is linked.
class CublasLt {
 public:
  // From THRESHER_CUBLASLT, the loader's path, the CUDA toolkit, or beside the torch that this
  // build uses. Null with `why` where there is none.
  static std::unique_ptr<CublasLt> Load(std::string* why);
  ~CublasLt();

  const std::string& path() const { return path_; }
  // Readies y16 [T, N] = x [T, K] w [N, K]^T, bf16 with fp32 sums, for Run. False: no algorithm.
  bool Prepare(std::int64_t t, std::int64_t n, std::int64_t k, std::int64_t ldx, std::int64_t ldw,
               std::int64_t ldy);
  cudaError_t Run(cudaStream_t stream, const std::uint16_t* x, const std::uint16_t* w,
                  std::uint16_t* y);

 private:
  struct Calls;
  struct Product;
  CublasLt();
  std::string path_;
  std::unique_ptr<Calls> calls_;
  std::unique_ptr<Product> product_;
  void* handle_ = nullptr;
  gpu::DeviceMemory workspace_;
};

}  // namespace thresher::bench
