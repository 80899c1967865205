#include "kernels/cuda/launch.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/square_sums.h"

namespace thresher::kernels::cuda {
namespace {

// A chain has an order, so a block of the vector is one thread's. A warp takes 32 of them: it
// fetches 32 neighbours of each, as whole lines, turns them round in shared memory, and fetches the
// next ones while it adds.
constexpr int kWarp = 32;
constexpr int kRow = kWarp + 1;  // of the tile: no two lanes meet in a bank

struct Blocks {
  std::int64_t n, block, count;
  const float* x;
};

// Elements from..from + 31 of blocks first..first + 31, of each this lane's; +0, which changes no
// sum of squares, for those that there are not.
THRESHER_DEVICE void Fetch(const Blocks& of, std::int64_t first, std::int64_t from, int lane,
                           float (&to)[kWarp]) {
  const std::int64_t inside = from + lane;
#pragma unroll
  for (int c = 0; c < kWarp; ++c) {
    const std::int64_t at = (first + c) * of.block + inside;
    to[c] = inside < of.block && at < of.n ? of.x[at] : 0.0f;
  }
}

__global__ void Chains(Blocks of, double* sums) {
  auto* tile = simt::SharedMemory<float>();  // [32 blocks][kRow]
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t stride = std::int64_t{gridDim.x} * kWarp;
  for (std::int64_t first = std::int64_t{blockIdx.x} * kWarp; first < of.count; first += stride) {
    double sum = 0;
    float next[kWarp];
    Fetch(of, first, 0, lane, next);
    for (std::int64_t from = 0; from < of.block; from += kWarp) {
      __syncwarp();  // the last tile has been read
#pragma unroll
      for (int c = 0; c < kWarp; ++c) tile[c * kRow + lane] = next[c];
      __syncwarp();
      if (from + kWarp < of.block) Fetch(of, first, from + kWarp, lane, next);
#pragma unroll
      for (int e = 0; e < kWarp; ++e) {
        const double value = tile[lane * kRow + e];
        sum += value * value;  // the product is exact: contracted or not, the same bits
      }
    }
    if (first + lane < of.count) sums[first + lane] = sum;
  }
}

}  // namespace

cudaError_t SquareSums(cudaStream_t stream, std::int64_t n, std::int64_t block, const float* x,
                       double* sums) {
  if (n < 0 || block < 1) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  const Blocks of{n, block, (n + block - 1) / block, x};
  const simt::Shape shape{BlocksFor(of.count, kWarp), kWarp, kWarp * kRow * sizeof(float)};
  return simt::Launch(stream, shape, Chains, of, sums);
}

}  // namespace thresher::kernels::cuda
