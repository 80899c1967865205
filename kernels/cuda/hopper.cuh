#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/simt.h"
#include "kernels/cuda/tensor_map.h"
#if defined(__CUDACC__)
#include "kernels/cuda/hopper_wgmma.cuh"
#endif

// The instructions of compute capability 9.0 that the tensor-core kernels use, one function each:
// inline PTX for a device, a strict model for the simulated one (tests/support/cuda_sim). Names of
// the instructions are in the comments; their meaning is the PTX ISA's.
//
// Code that uses them stands under THRESHER_HOPPER_CODE: another architecture in the same build
// compiles to nothing.
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define THRESHER_HOPPER_CODE 1
#else
#define THRESHER_HOPPER_CODE 0
#endif

namespace thresher::kernels::hopper {

inline constexpr int kWarpgroup = 128;  // threads
inline constexpr int kStepBytes = 128;  // a row of a tile: 64 bf16 values, the swizzle's width
inline constexpr int kTileAlignment = 1024;

#if defined(__CUDACC__)
THRESHER_DEVICE std::uint32_t SharedAddress(const void* at) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(at));
}
#else
THRESHER_DEVICE std::uint32_t SharedAddress(const void* at) {
  return ::cuda_sim::SharedAddress(at);
}
#endif

// The first address at or behind `at` (shared memory) that a tile may begin at.
THRESHER_DEVICE unsigned char* AlignTile(unsigned char* at) {
  return at + (kTileAlignment - SharedAddress(at) % kTileAlignment) % kTileAlignment;
}

// The descriptor of a tile in shared memory with the 128-byte swizzle; base_offset is 0, so that
// the tile begins at a multiple of 1024 bytes (`at` itself may be advanced inside it).
//   contiguous along K: rows of 128 bytes (64 values of k), groups of 8 rows every `stride_bytes`;
//     16 values of k further is 32 bytes further.
//   contiguous along M or N: a row of 128 bytes for each k, 8 k every `stride_bytes`, the next 64
//     values of M or N `leading_bytes` further; 16 values of k further is 2 * stride_bytes.
THRESHER_DEVICE std::uint64_t TileDescriptor(std::uint32_t at, std::uint32_t leading_bytes,
                                             std::uint32_t stride_bytes) {
  constexpr std::uint64_t kSwizzle128 = 1;
  return (at & 0x3ffffu) >> 4 | std::uint64_t{leading_bytes >> 4} << 16 |
         std::uint64_t{stride_bytes >> 4} << 32 | kSwizzle128 << 62;
}

// An mbarrier in shared memory: its phase ends when as many arrivals as `arrivals` have come and
// all bytes expected in it have been written. parity: 0 for the first phase, 1 for the second, 0
// ...
struct Mbarrier {
  std::uint64_t state;
};

#if defined(__CUDACC__)
THRESHER_DEVICE void Init(Mbarrier* barrier, int arrivals) {  // mbarrier.init
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
}
// Between the initialisation of barriers and the block's barrier behind which they are used.
THRESHER_DEVICE void FenceInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Orders this thread's ordinary writes to shared memory before later reads by Multiply and copies.
THRESHER_DEVICE void FenceProxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
THRESHER_DEVICE void Arrive(Mbarrier* barrier) {  // mbarrier.arrive
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
// Arrives, and the phase waits for `bytes` more.
THRESHER_DEVICE void ArriveExpecting(Mbarrier* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}
// Waits for the end of the phase of that parity: the present one or the one before.
THRESHER_DEVICE void Wait(Mbarrier* barrier, unsigned parity) {
  std::uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        "selp.b32 %0, 1, 0, done;\n}\n"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  }
}

// cp.async.bulk.tensor: the box of `map` from (column, row) on into `tile`; places outside the
// matrix become zeros. Its bytes, all of the box's, count towards `barrier`.
THRESHER_DEVICE void CopyBox(void* tile, const TensorMap* map, Mbarrier* barrier, int column,
                             int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];" ::"r"(SharedAddress(tile)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(column), "r"(row)
      : "memory");
}
THRESHER_DEVICE void PrefetchMap(const TensorMap* map) {  // prefetch.tensormap
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// cp.async: this thread starts the copy of 16 bytes from global to shared memory, both 16-byte
// aligned; unless `there` zeros are written and `from` is not read. An ordinary write of the
// thread: others see it once the thread has awaited its group and met them, products behind a
// FenceProxy.
THRESHER_DEVICE void CopyPiece(void* to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(to)),
               "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
               : "memory");
}
// cp.async.commit_group: of the pieces that this thread has started since the last one.
THRESHER_DEVICE void CommitPieces() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// cp.async.wait_group: until at most kPending of this thread's groups are not done.
template <int kPending>
THRESHER_DEVICE void AwaitPieces() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
// ex2.approx.ftz: 2^x within 2^-22 of its value; exact for 0, +0 for what is below 2^-126.
THRESHER_DEVICE float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// bar.sync: meets `threads` threads of the block at barrier `id`, 1 to 15.
THRESHER_DEVICE void Meet(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// A thread's share of a warpgroup's sums D [64, kColumns]: with warp w of the group and lane l,
// value i is D[16 w + l / 4 + 8 (i / 2 % 2), 8 (i / 4) + 2 (l % 4) + i % 2]. It belongs to the
// matrix unit from Multiply until Await has found the product done and Settle has been called.
template <int kColumns>
struct Fragment {
  static constexpr int kValues = kColumns / 2;
  float values[kValues];
  THRESHER_DEVICE float Get(int i) const { return values[i]; }
  THRESHER_DEVICE void Set(int i, float value) { values[i] = value; }
};
// Gives a fragment back to the thread. (Keeps the compiler from using its registers earlier.)
template <int kColumns>
THRESHER_DEVICE void Settle(Fragment<kColumns>& sums) {
  THRESHER_UNROLL
  for (int i = 0; i < kColumns / 2; ++i) asm volatile("" : "+f"(sums.values[i])::"memory");
}
// wgmma.fence: before the first Multiply, and before each that follows a thread's own use of
// `sums`.
THRESHER_DEVICE void FenceSums() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// wgmma.mma_async: the warpgroup starts sums = A B^T (+ sums if keep) for A [64, 16], B [kColumns,
// 16] behind the descriptors. kAcross: the operand is contiguous along M (N) instead of K.
template <bool kAcrossA, bool kAcrossB, int kColumns>
THRESHER_DEVICE void Multiply(Fragment<kColumns>& sums, std::uint64_t a, std::uint64_t b,
                              bool keep) {
  Wgmma<kAcrossA ? 1 : 0, kAcrossB ? 1 : 0>(sums.values, a, b, keep ? 1 : 0);
}
// setmaxnreg: all warps of a warpgroup keep, or wait for, kRegisters for each thread.
template <int kRegisters>
THRESHER_DEVICE void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
THRESHER_DEVICE void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
THRESHER_DEVICE void Commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// wgmma.wait_group: until at most kPending of the committed groups are not done.
template <int kPending>
THRESHER_DEVICE void Await() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
#else
using namespace ::cuda_sim::hopper;  // the same functions, of the simulated device
THRESHER_DEVICE void Init(Mbarrier* barrier, int arrivals) {
  InitBarrier(&barrier->state, arrivals);
}
THRESHER_DEVICE void Arrive(Mbarrier* barrier) { ArriveAt(&barrier->state, 0); }
THRESHER_DEVICE void ArriveExpecting(Mbarrier* barrier, int bytes) {
  ArriveAt(&barrier->state, bytes);
}
THRESHER_DEVICE void Wait(Mbarrier* barrier, unsigned parity) { WaitFor(&barrier->state, parity); }
THRESHER_DEVICE void CopyBox(void* tile, const TensorMap* map, Mbarrier* barrier, int column,
                             int row) {
  CopyBoxTo(tile, *map, &barrier->state, column, row);
}
THRESHER_DEVICE void PrefetchMap(const TensorMap*) {}
template <int kRegisters>
THRESHER_DEVICE void GiveRegisters() {}
template <int kRegisters>
THRESHER_DEVICE void TakeRegisters() {}
THRESHER_DEVICE void Meet(int id, int threads) { ::cuda_sim::Barrier(id, threads); }
#endif

}  // namespace thresher::kernels::hopper
