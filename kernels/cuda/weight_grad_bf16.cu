#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/gemm_bf16_pipeline.cuh"
#include "kernels/cuda/group_loop.cuh"
#include "kernels/cuda/weight_grad_bf16.h"

namespace thresher::kernels::cuda {
namespace {

// A block's tile is 128 outputs n x 128 inputs k: what are tokens in a product are inputs here.
using GradShape = FormShape<128, 2, 4, 1>;
constexpr int kInputs = GradShape::kTokens, kOutputs = GradShape::kOutputs;

struct GradTask {
  std::int64_t outputs, inputs, lddw;
  int steps;  // of kBf16Step tokens
  int output_tiles, input_tiles;
  float* dw;
};

#if THRESHER_HOPPER_CODE
// Items with the same outputs are neighbours: dy's tiles stay in the cache.
THRESHER_DEVICE int OutputTile(const GradTask& task, int item) { return item / task.input_tiles; }
THRESHER_DEVICE int InputTile(const GradTask& task, int item) { return item % task.input_tiles; }
THRESHER_DEVICE int Items(const GradTask& task) { return task.output_tiles * task.input_tiles; }

THRESHER_DEVICE void CopyItems(const GradTask& task, const hopper::TensorMap* dy,
                               const hopper::TensorMap* x, const Stages<GradShape>& at) {
  constexpr int kBoxBytes = 64 * 128;
  hopper::PrefetchMap(dy);
  hopper::PrefetchMap(x);
  RingPlace<GradShape> place;
  for (int item = static_cast<int>(blockIdx.x); item < Items(task); item += gridDim.x) {
    for (int step = 0; step < task.steps; ++step) {
      hopper::Mbarrier* full = &at.full[place.stage];
      hopper::Wait(&at.empty[place.stage], place.parity ^ 1);
      hopper::ArriveExpecting(full, GradShape::kStageBytes);
      const int token = step * static_cast<int>(kBf16Step);
      for (int group = 0; group < GradShape::kGroups; ++group) {
        hopper::CopyBox(at.Weights(place.stage, group), dy, full,
                        OutputTile(task, item) * kOutputs + group * 64, token);
      }
      for (int half = 0; half < kInputs / 64; ++half) {
        hopper::CopyBox(at.Tokens(place.stage) + half * kBoxBytes, x, full,
                        InputTile(task, item) * kInputs + half * 64, token);
      }
      place.Advance();
    }
  }
}

// visit(i, address) for the thread's values of a tile: value i of its fragment and its place in dw.
template <class Visit>
THRESHER_DEVICE void ForEachValue(const GradTask& task, int item, int group, const Visit& visit) {
  const int thread = static_cast<int>(threadIdx.x) % hopper::kWarpgroup, lane = thread % 32;
  const std::int64_t output =
      std::int64_t{OutputTile(task, item)} * kOutputs + group * 64 + thread / 32 * 16 + lane / 4;
  const std::int64_t input = std::int64_t{InputTile(task, item)} * kInputs + lane % 4 * 2;
  float* const at = task.dw + output * task.lddw + input;
  THRESHER_UNROLL
  for (int i = 0; i < kInputs / 2; ++i) {
    const int down = 8 * (i / 2 % 2), right = 8 * (i / 4) + i % 2;
    if (output + down < task.outputs && input + right < task.inputs) {
      visit(i, at + down * task.lddw + right);
    }
  }
}

THRESHER_DEVICE void MultiplyItems(const GradTask& task, const Stages<GradShape>& at, int group) {
  RingPlace<GradShape> place;
  hopper::Fragment<kInputs> sums;
  for (int item = static_cast<int>(blockIdx.x); item < Items(task); item += gridDim.x) {
    THRESHER_UNROLL
    for (int i = 0; i < kInputs / 2; ++i) sums.Set(i, 0.0f);
    ForEachValue(task, item, group, [&](int i, const float* from) { sums.Set(i, *from); });
    MultiplyStages<GradShape, true, true>(at, group, task.steps, /*keep=*/true, place, sums);
    ForEachValue(task, item, group, [&](int i, float* to) { *to = sums.Get(i); });
  }
}

#endif  // THRESHER_HOPPER_CODE

__global__ void __launch_bounds__(GradShape::kThreads, GradShape::kResident)
    WeightGrad(const __grid_constant__ hopper::TensorMap dy,
               const __grid_constant__ hopper::TensorMap x, GradTask task) {
#if THRESHER_HOPPER_CODE
  const auto at = Stages<GradShape>::Of(simt::SharedMemory<unsigned char>());
  at.Begin();
  const int group = static_cast<int>(threadIdx.x) / hopper::kWarpgroup;
  if (group == GradShape::kGroups) {
    hopper::GiveRegisters<kCopyingRegisters>();
    if (threadIdx.x % hopper::kWarpgroup == 0) CopyItems(task, &dy, &x, at);
  } else {
    hopper::TakeRegisters<kMultiplyingRegisters>();
    MultiplyItems(task, at, group);
  }
#endif
}

__global__ void Plain(Bf16Rows dy, Bf16Rows x, float* dw, std::int64_t lddw) {
  ForEachUnitOfThread(dy.columns * x.columns, [=](std::int64_t unit) {
    const std::int64_t output = unit / x.columns, input = unit % x.columns;
    float sum = dw[output * lddw + input];
    for (std::int64_t t = 0; t < dy.rows; ++t) {
      sum = simt::Fma(Bf16Value(dy.data[t * dy.ld + output]), Bf16Value(x.data[t * x.ld + input]),
                      sum);
    }
    dw[output * lddw + input] = sum;
  });
}

}  // namespace

cudaError_t WeightGradBf16(const Bf16Device& device, cudaStream_t stream, Bf16Rows dy, Bf16Rows x,
                           float* dw, std::int64_t lddw) {
  if (!FollowsRules(dy) || !FollowsRules(x) || dy.rows != x.rows || lddw < x.columns) {
    return cudaErrorInvalidValue;
  }
  if (dy.rows == 0) return cudaSuccess;
  hopper::TensorMap outputs, inputs;
  cudaError_t error =
      hopper::MakeTileMap(device.map_encoder, dy.data, dy.rows, dy.columns, dy.ld, 64, &outputs);
  if (error != cudaSuccess) return error;
  error = hopper::MakeTileMap(device.map_encoder, x.data, x.rows, x.columns, x.ld, 64, &inputs);
  if (error != cudaSuccess) return error;
  const auto pieces = [](std::int64_t n, std::int64_t size) {
    return static_cast<int>((n + size - 1) / size);
  };
  const GradTask task{dy.columns,
                      x.columns,
                      lddw,
                      pieces(dy.rows, kBf16Step),
                      pieces(dy.columns, kOutputs),
                      pieces(x.columns, kInputs),
                      dw};
  const std::int64_t items = std::int64_t{task.output_tiles} * task.input_tiles;
  const std::int64_t blocks = items < device.multiprocessors ? items : device.multiprocessors;
  return simt::Launch(stream,
                      {static_cast<unsigned>(blocks), GradShape::kThreads, GradShape::kSharedBytes},
                      WeightGrad, outputs, inputs, task);
}

cudaError_t WeightGradBf16Plain(cudaStream_t stream, Bf16Rows dy, Bf16Rows x, float* dw,
                                std::int64_t lddw) {
  if (dy.rows != x.rows || lddw < x.columns) return cudaErrorInvalidValue;
  const std::int64_t units = dy.columns * x.columns;
  if (dy.rows * units == 0) return cudaSuccess;
  return simt::Launch(stream, {BlocksFor(units, kBlock), kBlock}, Plain, dy, x, dw, lddw);
}

}  // namespace thresher::kernels::cuda
