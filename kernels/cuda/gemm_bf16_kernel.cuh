#pragma once

#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/gemm_bf16_pipeline.cuh"

// The kernel of every form of cuda-bf16-sm90-v1's products: y = x w^T, or with kAcross dx = dy w.
namespace thresher::kernels::cuda {

struct Bf16Task {
  Bf16Plan plan;
  Bf16Output out;
  unsigned* arrived;  // of each tile's blocks, by warpgroup; zero between products
  float* sums;        // of chunks, for tiles that several blocks share
};

// The copying warp's one thread: the operands of all items of the block, in order.
template <class Shape, bool kAcross>
THRESHER_DEVICE void CopyItems(const Bf16Plan& plan, const hopper::TensorMap* weights,
                               const hopper::TensorMap* tokens, const Stages<Shape>& at) {
  hopper::PrefetchMap(weights);
  hopper::PrefetchMap(tokens);
  RingPlace<Shape> place;
  for (std::int64_t index = blockIdx.x; index < plan.items; index += gridDim.x) {
    const Bf16Item item = ItemAt(plan, index);
    const int end = item.chunk_end * plan.chunk_steps;
    const int last = end < plan.steps ? end : plan.steps;
    for (int step = item.chunk_begin * plan.chunk_steps; step < last; ++step) {
      hopper::Mbarrier* full = &at.full[place.stage];
      hopper::Wait(&at.empty[place.stage], place.parity ^ 1);
      hopper::ArriveExpecting(full, Shape::kStageBytes);
      const int k = step * static_cast<int>(kBf16Step);
      for (int group = 0; group < Shape::kGroups; ++group) {
        const int output = (item.output_tile * Shape::kGroups + group) * 64;
        hopper::CopyBox(at.Weights(place.stage, group), weights, full, kAcross ? output : k,
                        kAcross ? k : output);
      }
      hopper::CopyBox(at.Tokens(place.stage), tokens, full, k, item.token_tile * Shape::kTokens);
      place.Advance();
    }
  }
}

// This thread's values of the sums of `chunk` of a tile that several blocks share.
template <class Shape>
THRESHER_DEVICE float* Slot(const Bf16Task& task, const Bf16Item& item, int group, int chunk) {
  const std::int64_t slot =
      (std::int64_t{item.tile} * Shape::kGroups + group) * task.plan.chunks + chunk;
  return task.sums + slot * static_cast<std::int64_t>(Shape::kSlotFloats) +
         threadIdx.x % hopper::kWarpgroup;
}

template <int kValues>
THRESHER_DEVICE void Leave(const float (&values)[kValues], float* slot) {
  THRESHER_UNROLL
  for (int i = 0; i < kValues; ++i) slot[i * hopper::kWarpgroup] = values[i];
}

// After a block has left its sums: true in the last block of the tile to come here, with the sums
// of all chunks, added ascending, in `total`.
template <class Shape, int kValues>
THRESHER_DEVICE bool FoldIfLast(const Bf16Task& task, const Bf16Item& item, int group,
                                unsigned* word, float (&total)[kValues]) {
  const bool first_thread = threadIdx.x % hopper::kWarpgroup == 0;
  unsigned* arrived = task.arrived + std::int64_t{item.tile} * Shape::kGroups + group;
  __threadfence();  // the sums are seen before the arrival
  hopper::Meet(1 + group, hopper::kWarpgroup);
  if (first_thread) *word = atomicAdd(arrived, 1u);
  hopper::Meet(1 + group, hopper::kWarpgroup);
  if (*word != static_cast<unsigned>(task.plan.splits - 1)) return false;
  __threadfence();
  if (first_thread) *arrived = 0;
  const float* slot = Slot<Shape>(task, item, group, 0);
  THRESHER_UNROLL
  for (int i = 0; i < kValues; ++i) total[i] = __ldcg(slot + i * hopper::kWarpgroup);
  for (int chunk = FirstChunk(task.plan, 1); chunk < task.plan.chunks; ++chunk) {
    slot = Slot<Shape>(task, item, group, chunk);
    THRESHER_UNROLL
    for (int i = 0; i < kValues; ++i) {
      total[i] = simt::Add(total[i], __ldcg(slot + i * hopper::kWarpgroup));
    }
  }
  return true;
}

// The sums of an item's chunks: in `total`, and true, if they are the tile's.
template <class Shape, bool kAcross>
THRESHER_DEVICE bool SumItem(const Bf16Task& task, const Bf16Item& item, const Stages<Shape>& at,
                             int group, RingPlace<Shape>& place,
                             hopper::Fragment<Shape::kTokens>& sums,
                             float (&total)[Shape::kTokens / 2]) {
  const Bf16Plan& plan = task.plan;
  for (int chunk = item.chunk_begin; chunk < item.chunk_end; ++chunk) {
    const int left = plan.steps - chunk * plan.chunk_steps;
    MultiplyStages<Shape, kAcross, false>(
        at, group, left < plan.chunk_steps ? left : plan.chunk_steps, false, place, sums);
    const bool begins = chunk == item.chunk_begin || item.split > 0;
    THRESHER_UNROLL
    for (int i = 0; i < Shape::kTokens / 2; ++i) {
      total[i] = begins ? sums.Get(i) : simt::Add(total[i], sums.Get(i));
    }
    if (item.split > 0) Leave(total, Slot<Shape>(task, item, group, chunk));
  }
  if (plan.splits == 1) return true;
  if (item.split == 0) Leave(total, Slot<Shape>(task, item, group, 0));
  return FoldIfLast<Shape>(task, item, group, at.Word(group), total);
}

// Four neighbouring outputs of a token.
THRESHER_DEVICE void StoreFour(const Bf16Output& out, std::int64_t token, std::int64_t output,
                               float (&v)[4]) {
  const float* base = out.base == nullptr ? nullptr : out.base + token * out.ldbase + output;
  if (out.bias != nullptr) {
    const float4 bias = *reinterpret_cast<const float4*>(out.bias + output);
    const float b[4] = {bias.x, bias.y, bias.z, bias.w};
    for (int i = 0; i < 4; ++i) v[i] = simt::Add(v[i], b[i]);
  }
  if (base != nullptr) {
    const float4 at = *reinterpret_cast<const float4*>(base);
    const float b[4] = {at.x, at.y, at.z, at.w};
    for (int i = 0; i < 4; ++i) v[i] = simt::Add(b[i], v[i]);
  }
  if (out.y != nullptr) {
    *reinterpret_cast<float4*>(out.y + token * out.ldy + output) = {v[0], v[1], v[2], v[3]};
  }
  if (out.y16 != nullptr) {
    *reinterpret_cast<uint2*>(out.y16 + token * out.ldy16 + output) = {Bf16Pair(v[0], v[1]),
                                                                       Bf16Pair(v[2], v[3])};
  }
}

// One output; what GemmBf16Plain uses too.
THRESHER_DEVICE void StoreOne(const Bf16Output& out, std::int64_t token, std::int64_t output,
                              float v) {
  if (out.bias != nullptr) v = simt::Add(v, out.bias[output]);
  if (out.base != nullptr) v = simt::Add(out.base[token * out.ldbase + output], v);
  if (out.y != nullptr) out.y[token * out.ldy + output] = v;
  if (out.y16 != nullptr) out.y16[token * out.ldy16 + output] = Bf16Bits(v);
}

// Whether StoreFour may be used throughout.
THRESHER_DEVICE bool FoursAligned(const Bf16Output& out) {
  const auto aligned = [](const void* at, std::int64_t ld, unsigned bytes) {
    return at == nullptr || (reinterpret_cast<std::uintptr_t>(at) % bytes == 0 && ld % 4 == 0);
  };
  return aligned(out.y, out.ldy, 16) && aligned(out.base, out.ldbase, 16) &&
         aligned(out.bias, 0, 16) && aligned(out.y16, out.ldy16, 8);
}

// A warpgroup's tile [tokens, 64 outputs] from fragments to its place, through shared memory: a
// token's 64 outputs are written by 16 neighbouring threads.
template <class Shape>
THRESHER_DEVICE void StoreTile(const Bf16Plan& plan, const Bf16Output& out, const Bf16Item& item,
                               int group, float* shared, const float (&total)[Shape::kTokens / 2]) {
  const int thread = static_cast<int>(threadIdx.x) % hopper::kWarpgroup, lane = thread % 32;
  THRESHER_UNROLL
  for (int i = 0; i < Shape::kTokens / 2; ++i) {
    const int row = thread / 32 * 16 + lane / 4 + 8 * (i / 2 % 2);
    const int column = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
    shared[column * Shape::kOutStride + row] = total[i];
  }
  hopper::Meet(1 + group, hopper::kWarpgroup);
  const bool fours = FoursAligned(out);
  const std::int64_t output =
      (std::int64_t{item.output_tile} * Shape::kGroups + group) * 64 + thread % 16 * 4;
  for (int row = thread / 16; row < Shape::kTokens; row += hopper::kWarpgroup / 16) {
    const std::int64_t token = std::int64_t{item.token_tile} * Shape::kTokens + row;
    if (token >= plan.tokens) break;
    const float4 from =
        *reinterpret_cast<const float4*>(shared + row * Shape::kOutStride + thread % 16 * 4);
    float v[4] = {from.x, from.y, from.z, from.w};
    if (fours && output + 4 <= plan.outputs) {
      StoreFour(out, token, output, v);
    } else {
      THRESHER_UNROLL
      for (int i = 0; i < 4; ++i) {
        if (output + i < plan.outputs) StoreOne(out, token, output + i, v[i]);
      }
    }
  }
  hopper::Meet(1 + group, hopper::kWarpgroup);  // before the next tile's values
}

// The warpgroup `group`'s part in all items of the block.
template <class Shape, bool kAcross>
THRESHER_DEVICE void MultiplyItems(const Bf16Task& task, const Stages<Shape>& at, int group) {
  RingPlace<Shape> place;
  hopper::Fragment<Shape::kTokens> sums;
  float total[Shape::kTokens / 2];
  for (std::int64_t index = blockIdx.x; index < task.plan.items; index += gridDim.x) {
    const Bf16Item item = ItemAt(task.plan, index);
    if (SumItem<Shape, kAcross>(task, item, at, group, place, sums, total)) {
      StoreTile<Shape>(task.plan, task.out, item, group, at.Out(group), total);
    }
  }
}

template <class Shape, bool kAcross>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kResident)
    Bf16Product(const __grid_constant__ hopper::TensorMap weights,
                const __grid_constant__ hopper::TensorMap tokens, Bf16Task task) {
#if THRESHER_HOPPER_CODE
  const auto at = Stages<Shape>::Of(simt::SharedMemory<unsigned char>());
  at.Begin();
  const int group = static_cast<int>(threadIdx.x) / hopper::kWarpgroup;
  if (group == Shape::kGroups) {
    if constexpr (Shape::kMovesRegisters) hopper::GiveRegisters<kCopyingRegisters>();
    if (threadIdx.x % hopper::kWarpgroup == 0) {
      CopyItems<Shape, kAcross>(task.plan, &weights, &tokens, at);
    }
  } else {
    if constexpr (Shape::kMovesRegisters) hopper::TakeRegisters<kMultiplyingRegisters>();
    MultiplyItems<Shape, kAcross>(task, at, group);
  }
#endif
}

}  // namespace thresher::kernels::cuda
