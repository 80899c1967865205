#include "kernels/cpu/gemm.h"
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/convert_bf16.h"
#include "kernels/cuda/group_loop.cuh"

namespace thresher::kernels::cuda {
namespace {

__global__ void Round(std::int64_t t, std::int64_t n, const float* x, std::int64_t ldx,
                      std::uint16_t* y, std::int64_t ldy) {
  ForEachUnitOfThread(t * ldy, [=](std::int64_t unit) {
    const std::int64_t column = unit % ldy;
    y[unit] = column < n ? Bf16Bits(x[unit / ldy * ldx + column]) : std::uint16_t{0};
  });
}

constexpr int kPairs = 32;  // of a block's tile: 32 outputs x 64 values of K

// A panel's tile through shared memory: pairs of values are read by output and written by K.
__global__ void Unpack(std::int64_t n, std::int64_t k, const std::uint32_t* image, std::uint16_t* w,
                       std::int64_t ldw) {
  auto* tile = simt::SharedMemory<std::uint32_t>();  // [32 outputs][kPairs + 1]
  const std::int64_t pairs = (k + 1) / 2, out_pairs = ldw / 2;
  const std::int64_t panel = blockIdx.y, first = std::int64_t{blockIdx.x} * kPairs;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  for (int pair = warp; pair < kPairs; pair += warps) {
    const std::int64_t from = (panel * pairs + first + pair) * kGemmPanel + lane;
    tile[lane * (kPairs + 1) + pair] = first + pair < pairs ? image[from] : 0u;
  }
  __syncthreads();
  for (int row = warp; row < 32; row += warps) {
    const std::int64_t output = panel * kGemmPanel + row, pair = first + lane;
    if (output >= n || pair >= out_pairs) continue;
    const std::uint32_t value = tile[row * (kPairs + 1) + lane];
    reinterpret_cast<std::uint32_t*>(w + output * ldw)[pair] = value;
  }
}

}  // namespace

cudaError_t RoundToBf16(cudaStream_t stream, std::int64_t t, std::int64_t n, const float* x,
                        std::int64_t ldx, std::uint16_t* y, std::int64_t ldy) {
  if (ldy < n) return cudaErrorInvalidValue;
  if (t * ldy == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(t * ldy, kBlock), kBlock}, Round, t, n, x, ldx, y, ldy);
}

cudaError_t UnpackBf16(cudaStream_t stream, std::int64_t n, std::int64_t k, const void* image,
                       std::uint16_t* w, std::int64_t ldw) {
  if (ldw < k || ldw % 2 != 0) return cudaErrorInvalidValue;
  if (n * ldw == 0) return cudaSuccess;
  constexpr std::int64_t kMostPanels = 65535;  // a grid's second dimension
  const std::int64_t panels = (n + kGemmPanel - 1) / kGemmPanel;
  if (panels > kMostPanels) return cudaErrorInvalidValue;
  simt::Shape shape{static_cast<unsigned>((ldw / 2 + kPairs - 1) / kPairs), kBlock,
                    kGemmPanel * (kPairs + 1) * sizeof(std::uint32_t)};
  shape.blocks_y = static_cast<unsigned>(panels);
  return simt::Launch(stream, shape, Unpack, n, k, static_cast<const std::uint32_t*>(image), w,
                      ldw);
}

}  // namespace thresher::kernels::cuda
