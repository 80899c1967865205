#include "kernels/cuda/group_loop.cuh"
#include "kernels/cuda/pack_weights.h"
#include "kernels/cuda/round_weight.cuh"

namespace thresher::kernels::cuda {
namespace {

template <WeightType kType>
__global__ void Narrow(std::int64_t n, const float* x, void* y) {
  ForEachUnitOfThread(n, [=](std::int64_t i) {
    if constexpr (kType == WeightType::kF32) {
      static_cast<float*>(y)[i] = x[i];
    } else {
      static_cast<std::uint16_t*>(y)[i] = NarrowBits<kType>(x[i]);
    }
  });
}

template <WeightType kType>
__global__ void Round(std::int64_t n, const float* x, float* y) {
  ForEachUnitOfThread(n, [=](std::int64_t i) { y[i] = Rounded<kType>(x[i]); });
}

constexpr int kDepth = 64;        // values of K in a tile of a panel
constexpr int kRow = kDepth + 1;  // of the tile in shared memory: no two lanes meet in a bank

// A tile's values, column after column, to their places in the panel, which hold depths k0 on.
template <WeightType kType>
THRESHER_DEVICE void StoreTile(const float* tile, std::int64_t depths, void* at, int lane, int warp,
                               int warps) {
  constexpr int kUnit = kType == WeightType::kBf16 ? 2 : 1;  // values side by side
  for (int d = warp * kUnit; d < depths; d += warps * kUnit) {
    const float value = tile[lane * kRow + d];
    if constexpr (kType == WeightType::kF32) {
      static_cast<float*>(at)[d * kGemmPanel + lane] = value;
    } else if constexpr (kType == WeightType::kF16) {
      static_cast<std::uint16_t*>(at)[d * kGemmPanel + lane] = HalfBits(value);
    } else {  // an odd K ends with a zero, which the tile holds
      const std::uint32_t pair = Bf16Pair(value, tile[lane * kRow + d + 1]);
      static_cast<std::uint32_t*>(at)[d / 2 * kGemmPanel + lane] = pair;
    }
  }
}

// Tiles of 32 outputs x kDepth values of K through shared memory: rows are read along K and written
// along the outputs.
template <WeightType kType>
__global__ void Panels(std::int64_t n, std::int64_t k, const float* w, void* image) {
  auto* tile = simt::SharedMemory<float>();  // [32 outputs][kRow]
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  constexpr std::int64_t kDepthBytes = kGemmPanel * (kType == WeightType::kF32 ? 4 : 2);
  const std::int64_t steps = (k + kDepth - 1) / kDepth, panels = (n + kGemmPanel - 1) / kGemmPanel;
  for (std::int64_t unit = blockIdx.x; unit < panels * steps; unit += gridDim.x) {
    const std::int64_t panel = unit / steps, k0 = unit % steps * kDepth;
    __syncthreads();  // the last tile has been written out
    for (int row = warp; row < kGemmPanel; row += warps) {
      const std::int64_t output = panel * kGemmPanel + row;
      for (int d = lane; d < kDepth; d += 32) {
        const bool there = output < n && k0 + d < k;
        tile[row * kRow + d] = there ? w[output * k + k0 + d] : 0.0f;
      }
    }
    __syncthreads();
    auto* at = static_cast<char*>(image) + panel * PanelBytesOf(kType, k) + k0 * kDepthBytes;
    StoreTile<kType>(tile, k - k0 < kDepth ? k - k0 : kDepth, at, lane, warp, warps);
  }
}

// [ceil(K / 32)][N][32]: read and written along K.
template <WeightType kType>
__global__ void TransposedPanels(std::int64_t n, std::int64_t k, const float* w, float* image) {
  const std::int64_t panels = (k + kGemmPanel - 1) / kGemmPanel;
  ForEachUnitOfThread(panels * n * kGemmPanel, [=](std::int64_t unit) {
    const std::int64_t row = unit / kGemmPanel % n;
    const std::int64_t column = unit / kGemmPanel / n * kGemmPanel + unit % kGemmPanel;
    image[unit] = column < k ? Rounded<kType>(w[row * k + column]) : 0.0f;
  });
}

}  // namespace

cudaError_t NarrowWeights(cudaStream_t stream, WeightType type, std::int64_t n, const float* x,
                          void* y) {
  if (n == 0) return cudaSuccess;
  return WithWeightType(type, [&](auto constant) {
    return simt::Launch(stream, {BlocksFor(n, kBlock), kBlock}, Narrow<constant.value>, n, x, y);
  });
}

cudaError_t RoundWeights(cudaStream_t stream, WeightType type, std::int64_t n, const float* x,
                         float* y) {
  if (n == 0) return cudaSuccess;
  return WithWeightType(type, [&](auto constant) {
    return simt::Launch(stream, {BlocksFor(n, kBlock), kBlock}, Round<constant.value>, n, x, y);
  });
}

cudaError_t PackPanels(cudaStream_t stream, WeightType type, std::int64_t n, std::int64_t k,
                       const float* w, void* image) {
  if (n * k == 0) return cudaSuccess;
  const std::int64_t tiles = (n + kGemmPanel - 1) / kGemmPanel * ((k + kDepth - 1) / kDepth);
  const simt::Shape shape{BlocksFor(tiles, 1), kBlock, kGemmPanel * kRow * sizeof(float)};
  return WithWeightType(type, [&](auto constant) {
    return simt::Launch(stream, shape, Panels<constant.value>, n, k, w, image);
  });
}

cudaError_t PackPanelsTransposed(cudaStream_t stream, WeightType type, std::int64_t n,
                                 std::int64_t k, const float* w, float* image) {
  if (n * k == 0) return cudaSuccess;
  const std::int64_t values = (k + kGemmPanel - 1) / kGemmPanel * kGemmPanel * n;
  return WithWeightType(type, [&](auto constant) {
    return simt::Launch(stream, {BlocksFor(values, kBlock), kBlock},
                        TransposedPanels<constant.value>, n, k, w, image);
  });
}

}  // namespace thresher::kernels::cuda
