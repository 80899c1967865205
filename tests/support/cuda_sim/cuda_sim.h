#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_runtime_api.h"

// What tests may ask of the simulated device beyond the CUDA runtime's interface.
namespace cuda_sim {

inline constexpr std::size_t kDeviceBytes = std::size_t{2} << 30;
inline constexpr int kMajor = 9, kMinor = 0, kMultiprocessors = 4;

// How many kernels have run since the process began.
std::uint64_t KernelsRun();
// Bytes of device memory that are taken.
std::size_t UsedBytes();
// Every kernel launch from now on fails with `error`; cudaSuccess: no more.
void FailLaunches(cudaError_t error);
// cudaMalloc beyond this many bytes in all fails, and so does a graph for which there is no room in
// them; 0: kDeviceBytes.
void LimitMemory(std::size_t bytes);
// What cudaDeviceGetAttribute and cudaGetDeviceProperties say from now on; kMajor, kMinor at first.
void PretendCapability(int major, int minor);

}  // namespace cuda_sim
