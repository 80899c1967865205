#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

// Tensor maps: how the copy engine of compute capability 9.0 sees a matrix in device memory.
namespace thresher::kernels::hopper {

using TensorMap = CUtensorMap;

// The driver's function that makes maps, looked up in the driver that runs (the program links
// none). Null, with the runtime's error, if that driver has none.
using MapEncoder = void*;
cudaError_t FindMapEncoder(MapEncoder* encoder);

// A map of the bf16 matrix [rows, columns] at `data`, device memory, 16-byte aligned; rows are `ld`
// elements apart, a multiple of 8. Copies take boxes of `box_rows` (at most 256) x 64 columns into
// tiles with rows of 128 bytes under the 128-byte swizzle; what lies outside the matrix is zero.
// cudaErrorInvalidValue if the driver refuses it.
cudaError_t MakeTileMap(MapEncoder encoder, const std::uint16_t* data, std::int64_t rows,
                        std::int64_t columns, std::int64_t ld, int box_rows, TensorMap* map);

}  // namespace thresher::kernels::hopper
