// The simulated device's copies of single threads (cp.async): what they write, and that each misuse
// is caught.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cuda/hopper.cuh"

namespace thresher::kernels {
namespace {

enum class Fault {
  kNone,
  kNotAwaited,  // before the product
  kNoProxyFence,
  kOverwrittenEarly,
  kLeftBehind,
  kTargetUnaligned,
  kSourceUnaligned,
};

// A tile [64, 64] of ones, but for its last row, which is not there; D [64, 8] = A A^T.
void PiecesProduct(const std::uint16_t* ones, Fault fault, float* out) {
  const auto is = [fault](Fault f) { return fault == f; };
  unsigned char* tile = hopper::AlignTile(simt::SharedMemory<unsigned char>());
  const auto thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < 64 * 8; i += 128) {
    const int row = i / 8, unit = i % 8;
    hopper::CopyPiece(tile + row * 128 + (unit ^ row % 8) * 16, ones + unit * 8, row < 63);
  }
  hopper::CommitPieces();
  if (is(Fault::kTargetUnaligned)) hopper::CopyPiece(tile + 8192 + 8, ones, true);
  if (is(Fault::kSourceUnaligned)) hopper::CopyPiece(tile + 8192, ones + 1, true);
  if (!is(Fault::kNotAwaited)) hopper::AwaitPieces<0>();
  if (!is(Fault::kNoProxyFence)) hopper::FenceProxy();
  __syncthreads();
  const std::uint64_t at = hopper::TileDescriptor(hopper::SharedAddress(tile), 16, 1024);
  hopper::Fragment<8> sums;
  hopper::FenceSums();
  for (unsigned k = 0; k < 4; ++k) {
    hopper::Multiply<false, false>(sums, at + 2 * k, at + 2 * k, k > 0);
  }
  hopper::Commit();
  if (is(Fault::kOverwrittenEarly)) hopper::CopyPiece(tile, ones, true);
  hopper::Await<0>();
  hopper::Settle(sums);
  for (int i = 0; i < 4; ++i) out[thread * 4 + i] = sums.Get(i);
  if (is(Fault::kLeftBehind)) hopper::CopyPiece(tile + 8192, ones, true);
}

std::vector<float> RunPieces(Fault fault) {
  std::uint16_t* ones = nullptr;
  float* out = nullptr;
  const std::vector<std::uint16_t> host(72, 0x3f80);
  EXPECT_EQ(cudaMalloc(&ones, host.size() * 2), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&out, 512 * sizeof(float)), cudaSuccess);
  cudaMemcpy(ones, host.data(), host.size() * 2, cudaMemcpyHostToDevice);
  // The first block copies at the latest moment, the second at once.
  EXPECT_EQ(simt::Launch(nullptr, {2, 128, 3 * 8192}, PiecesProduct, ones, fault, out),
            cudaSuccess);
  std::vector<float> found(512);
  EXPECT_EQ(cudaMemcpy(found.data(), out, 512 * sizeof(float), cudaMemcpyDeviceToHost),
            cudaSuccess);
  cudaFree(ones);
  cudaFree(out);
  return found;
}

TEST(CopiesOfThreads, ReachAProductAndAreZerosWhereNothingIs) {
  const std::vector<float> out = RunPieces(Fault::kNone);
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < 4; ++i) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + (i >= 2 ? 8 : 0);
      ASSERT_EQ(out[static_cast<std::size_t>(thread * 4 + i)], row < 63 ? 64.0f : 0.0f);
    }
  }
}

TEST(CopiesOfThreads, CatchesEachMisuse) {
  const struct {
    Fault fault;
    const char* message;
  } kCases[] = {
      {Fault::kNotAwaited, "before a piece of it has been awaited"},
      {Fault::kNoProxyFence, "without a proxy fence"},
      {Fault::kOverwrittenEarly, "a tile that a product still reads"},
      {Fault::kLeftBehind, "pieces that were not awaited"},
      {Fault::kTargetUnaligned, "to an address that is not 16-byte aligned"},
      {Fault::kSourceUnaligned, "from an address that is not 16-byte aligned"},
  };
  for (const auto& one : kCases) EXPECT_DEATH(RunPieces(one.fault), one.message);
}

TEST(CopiesOfThreads, PowersOfTwoAreRoundedAndFlushed) {
  EXPECT_EQ(hopper::Exp2(0.0f), 1.0f);
  EXPECT_EQ(hopper::Exp2(-3.0f), 0.125f);
  EXPECT_EQ(hopper::Exp2(-126.0f), 0x1p-126f);
  EXPECT_EQ(hopper::Exp2(-126.5f), 0.0f);
  EXPECT_EQ(hopper::Exp2(-INFINITY), 0.0f);
  EXPECT_TRUE(std::isnan(hopper::Exp2(NAN)));
}

}  // namespace
}  // namespace thresher::kernels
