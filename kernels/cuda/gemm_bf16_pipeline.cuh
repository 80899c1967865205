#pragma once

#include "kernels/cuda/gemm_bf16_plan.h"
#include "kernels/cuda/hopper.cuh"

// The pipeline of a block: one warp copies tiles of both operands into a ring of stages, warpgroups
// multiply them. Each stage has two mbarriers: `full` (its bytes have come) and `empty` (every warp
// that multiplies has done with it).
namespace thresher::kernels::cuda {

// The registers of a thread that copies, and of one that multiplies: 40 + 2 * 232 = 3 * 168, what a
// block of three warpgroups has.
inline constexpr int kCopyingRegisters = 40, kMultiplyingRegisters = 232;

// Where things lie in the block's shared memory.
template <class Shape>
struct Stages {
  unsigned char* tiles;
  float* out;
  hopper::Mbarrier *full, *empty;

  THRESHER_DEVICE static Stages Of(unsigned char* shared) {
    Stages at;
    at.tiles = hopper::AlignTile(shared);
    unsigned char* behind = at.tiles + Shape::kStages * Shape::kStageBytes;
    at.out = reinterpret_cast<float*>(behind);
    behind += Shape::kGroups * Shape::kOutBytes;
    at.full = reinterpret_cast<hopper::Mbarrier*>(behind);
    at.empty = at.full + Shape::kStages;
    return at;
  }
  THRESHER_DEVICE unsigned char* Weights(int stage, int group) const {
    return tiles + stage * Shape::kStageBytes + group * Shape::kWeightBytes;
  }
  THRESHER_DEVICE unsigned char* Tokens(int stage) const { return Weights(stage, Shape::kGroups); }
  THRESHER_DEVICE float* Out(int group) const { return out + group * (Shape::kOutBytes / 4); }
  // A word for a warpgroup, behind the barriers.
  THRESHER_DEVICE unsigned* Word(int group) const {
    return reinterpret_cast<unsigned*>(empty + Shape::kStages + group);
  }

  // By the whole block.
  THRESHER_DEVICE void Begin() const {
    if (threadIdx.x == 0) {
      for (int i = 0; i < Shape::kStages; ++i) {
        hopper::Init(&full[i], 1);
        hopper::Init(&empty[i], 4 * Shape::kGroups);
      }
      hopper::FenceInit();
    }
    __syncthreads();
  }
};

// A place in the ring: the stage and the parity of the phase that its barriers are in.
template <class Shape>
struct RingPlace {
  int stage = 0;
  unsigned parity = 0;
  THRESHER_DEVICE void Advance() {
    if (++stage == Shape::kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Makes stage `stage` free for the next copy, once this warp's products on it are awaited.
template <class Shape>
THRESHER_DEVICE void Release(const Stages<Shape>& at, int stage) {
  if (threadIdx.x % 32 == 0) hopper::Arrive(&at.empty[stage]);
}

// The k16 steps of a stage into sums. kAcross: how the operands lie (hopper::Multiply).
template <class Shape, bool kAcrossA, bool kAcrossB>
THRESHER_DEVICE void MultiplyStage(const Stages<Shape>& at, int stage, int group, bool keep,
                                   hopper::Fragment<Shape::kTokens>& sums) {
  constexpr std::uint32_t kEightRows = 1024, kTile = 64 * 128;
  constexpr std::uint32_t kNextA = kAcrossA ? 2 * kEightRows : 32;
  constexpr std::uint32_t kNextB = kAcrossB ? 2 * kEightRows : 32;
  const std::uint32_t a = hopper::SharedAddress(at.Weights(stage, group));
  const std::uint32_t b = hopper::SharedAddress(at.Tokens(stage));
  hopper::FenceSums();
  THRESHER_UNROLL
  for (std::uint32_t i = 0; i < kBf16Step / 16; ++i) {
    hopper::Multiply<kAcrossA, kAcrossB>(
        sums, hopper::TileDescriptor(a + i * kNextA, kTile, kEightRows),
        hopper::TileDescriptor(b + i * kNextB, kTile, kEightRows), keep || i > 0);
  }
  hopper::Commit();
}

// `steps` stages from `place` on into sums, which begin at zero or, with `keep`, at what they hold.
// Afterwards they are the thread's, and all those stages are free.
template <class Shape, bool kAcrossA, bool kAcrossB>
THRESHER_DEVICE void MultiplyStages(const Stages<Shape>& at, int group, int steps, bool keep,
                                    RingPlace<Shape>& place,
                                    hopper::Fragment<Shape::kTokens>& sums) {
  int before = place.stage;
  for (int step = 0; step < steps; ++step) {
    hopper::Wait(&at.full[place.stage], place.parity);
    MultiplyStage<Shape, kAcrossA, kAcrossB>(at, place.stage, group, keep || step > 0, sums);
    if (step > 0) {
      hopper::Await<1>();
      Release(at, before);
    }
    before = place.stage;
    place.Advance();
  }
  hopper::Await<0>();
  hopper::Settle(sums);
  Release(at, before);
}

}  // namespace thresher::kernels::cuda
