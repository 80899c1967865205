#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

// Data of measurements, made on the device: random, since a device may run faster on zeros.
namespace thresher::bench {

// Values uniform in (-scale, scale), a function of seed and index.
cudaError_t FillBf16(cudaStream_t stream, std::uint16_t* data, std::size_t count,
                     std::uint32_t seed, float scale);
cudaError_t FillF32(cudaStream_t stream, float* data, std::size_t count, std::uint32_t seed,
                    float scale);

// Reads `bytes` (a multiple of 16) at `data` once and leaves something of it in *sink: the rate at
// which a kernel that only reads can go.
cudaError_t ReadAll(cudaStream_t stream, const void* data, std::size_t bytes, unsigned* sink);

}  // namespace thresher::bench
