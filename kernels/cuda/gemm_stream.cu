#include "kernels/cuda/gemm_forms.cuh"
#include "kernels/cuda/product_stream.cuh"

namespace thresher::kernels::cuda {
namespace {

constexpr int kMostWarps = 8;

// What a block keeps in shared memory; chunks and stages are a warp's.
template <int kRows>
struct StreamShared {
  float stage[kMostWarps][kRows * kStage];
  float chunk[kMostWarps][kRows * kGemmPanel];
  float total[kRows * kGemmPanel];
};

// Block (x, y): panel x, rows [kRows y, kRows y + kRows). Its warps take the chunks of K, which are
// added ascending after every round.
template <WeightType kType, int kRows>
__global__ void __launch_bounds__(kMostWarps * 32) Stream(GemmCall a) {
  auto* shared = simt::SharedMemory<StreamShared<kRows>>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const std::int64_t row0 = std::int64_t{blockIdx.y} * kRows;
  const char* panel = static_cast<const char*>(a.w.data) + blockIdx.x * PanelBytesOf(kType, a.k);
  for (std::int64_t round = 0; round == 0 || round < a.k; round += warps * kGemmKChunk) {
    const std::int64_t begin = round + warp * kGemmKChunk;
    const std::int64_t end = begin + kGemmKChunk < a.k ? begin + kGemmKChunk : a.k;
    float chain[kRows];
    StreamChunk<kType, kRows, WarpTeam>(a.x + row0 * a.ldx, a.ldx, a.t - row0, panel, a.k, begin,
                                        end, shared->stage[warp], chain);
#pragma unroll
    for (int r = 0; r < kRows; ++r) shared->chunk[warp][r * kGemmPanel + lane] = chain[r];
    __syncthreads();
    for (int i = thread; i < kRows * kGemmPanel; i += static_cast<int>(blockDim.x)) {
      float total = round == 0 ? shared->chunk[0][i] : shared->total[i];
      for (int c = round == 0 ? 1 : 0; c < warps && round + c * kGemmKChunk < a.k; ++c) {
        total = simt::Add(total, shared->chunk[c][i]);
      }
      shared->total[i] = total;
    }
    __syncthreads();
  }
  for (int i = thread; i < kRows * kGemmPanel; i += static_cast<int>(blockDim.x)) {
    const std::int64_t row = row0 + i / kGemmPanel,
                       column = blockIdx.x * kGemmPanel + i % kGemmPanel;
    if (row >= a.t || column >= a.n) continue;
    const float total = shared->total[i];
    a.y[row * a.ldy + column] = a.bias == nullptr ? total : simt::Add(total, a.bias[column]);
  }
}

template <WeightType kType, int kRows>
cudaError_t LaunchStream(cudaStream_t stream, const GemmCall& a) {
  const std::int64_t chunks = (a.k + kGemmKChunk - 1) / kGemmKChunk;
  const std::int64_t warps = chunks < 1 ? 1 : chunks < kMostWarps ? chunks : kMostWarps;
  return simt::Launch(stream,
                      {static_cast<unsigned>((a.n + kGemmPanel - 1) / kGemmPanel),
                       static_cast<unsigned>(warps * 32), sizeof(StreamShared<kRows>),
                       static_cast<unsigned>((a.t + kRows - 1) / kRows)},
                      Stream<kType, kRows>, a);
}

template <WeightType kType>
cudaError_t StreamOf(cudaStream_t stream, const GemmCall& a) {
  if (a.t == 1) return LaunchStream<kType, 1>(stream, a);
  if (a.t == 2) return LaunchStream<kType, 2>(stream, a);
  if (a.t <= 4) return LaunchStream<kType, 4>(stream, a);
  if (a.t <= 8) return LaunchStream<kType, 8>(stream, a);
  return LaunchStream<kType, 16>(stream, a);
}

}  // namespace

cudaError_t GemmStream(cudaStream_t stream, const GemmCall& call) {
  switch (call.w.type) {
    case WeightType::kF32:
      return StreamOf<WeightType::kF32>(stream, call);
    case WeightType::kBf16:
      return StreamOf<WeightType::kBf16>(stream, call);
    case WeightType::kF16:
      return StreamOf<WeightType::kF16>(stream, call);
  }
  return cudaErrorInvalidValue;
}

}  // namespace thresher::kernels::cuda
