#include "kernels/cuda/tensor_map.h"

namespace thresher::kernels::hopper {
namespace {

// Of CUDA 12.0, the first with tensor maps.
using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                                 const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                 const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
constexpr unsigned kSince = 12000;
constexpr cuuint32_t kBoxColumns = 64;  // 128 bytes: the swizzle's width

}  // namespace

cudaError_t FindMapEncoder(MapEncoder* encoder) {
  *encoder = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", encoder,
                                                             kSince, cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  return found == cudaDriverEntryPointSuccess && *encoder != nullptr ? cudaSuccess
                                                                     : cudaErrorSymbolNotFound;
}

cudaError_t MakeTileMap(MapEncoder encoder, const std::uint16_t* data, std::int64_t rows,
                        std::int64_t columns, std::int64_t ld, int box_rows, TensorMap* map) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(ld) * sizeof(std::uint16_t)};
  const cuuint32_t box[] = {kBoxColumns, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t every[] = {1, 1};
  const CUresult result = reinterpret_cast<EncodeTiled>(encoder)(
      map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<std::uint16_t*>(data), sizes, strides,
      box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace thresher::kernels::hopper
