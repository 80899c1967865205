// The simulated device: that it computes as a device does, and catches what it says it catches.
#include "tests/support/cuda_sim/cuda_sim.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/simt.h"

namespace cuda_sim {
namespace {

using thresher::kernels::simt::Launch;
using thresher::kernels::simt::SharedMemory;

template <class T>
T* Device(std::size_t count) {
  void* data = nullptr;
  EXPECT_EQ(cudaMalloc(&data, count * sizeof(T)), cudaSuccess);
  return static_cast<T*>(data);
}

template <class T>
std::vector<T> Read(const T* device, std::size_t count) {
  std::vector<T> host(count);
  EXPECT_EQ(cudaMemcpy(host.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost),
            cudaSuccess);
  return host;
}

void Positions(int* out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] =
      static_cast<int>(1000 * blockIdx.x + threadIdx.x + gridDim.x);
}

TEST(SimulatedDevice, RunsEveryThreadOfEveryBlock) {
  int* out = Device<int>(12);
  ASSERT_EQ(Launch(nullptr, {3, 4}, Positions, out), cudaSuccess);
  EXPECT_EQ(Read(out, 12),
            (std::vector<int>{3, 4, 5, 6, 1003, 1004, 1005, 1006, 2003, 2004, 2005, 2006}));
  cudaFree(out);
}

void Reverse(int* data, int n) {
  int* shared = SharedMemory<int>();
  const int i = static_cast<int>(threadIdx.x);
  shared[i] = data[i];
  __syncthreads();
  data[i] = shared[n - 1 - i];
}

TEST(SimulatedDevice, ThreadsExchangeThroughSharedMemoryAndLanes) {
  int* data = Device<int>(64);
  std::vector<int> host(64);
  for (int i = 0; i < 64; ++i) host[static_cast<std::size_t>(i)] = i;
  cudaMemcpy(data, host.data(), 64 * sizeof(int), cudaMemcpyHostToDevice);
  ASSERT_EQ(Launch(nullptr, {1, 64, 64 * sizeof(int)}, Reverse, data, 64), cudaSuccess);
  EXPECT_EQ(Read(data, 64).front(), 63);
  EXPECT_EQ(Read(data, 64).back(), 0);
  cudaFree(data);
}

void Shuffle(float* out) {
  const auto lane = static_cast<float>(threadIdx.x);
  const float a = thresher::kernels::simt::ShuffleXor(lane, 5);
  out[threadIdx.x] = a * 100 + thresher::kernels::simt::ShuffleXor(a, 8);
}

TEST(SimulatedDevice, GroupsOfAWarpShuffleByThemselves) {
  float* out = Device<float>(64);
  ASSERT_EQ(Launch(nullptr, {1, 64}, Shuffle, out), cudaSuccess);
  const auto seen = Read(out, 64);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(seen[static_cast<std::size_t>(i)], static_cast<float>((i ^ 5) * 100 + (i ^ 13)));
  }
  cudaFree(out);
}

TEST(SimulatedDevice, WorkOfAStreamIsDoneWhenSomebodyWaits) {
  int* out = Device<int>(4);
  int* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(reinterpret_cast<void**>(&pinned), 4 * sizeof(int)), cudaSuccess);
  pinned[0] = -1;
  cudaStream_t stream = nullptr, other = nullptr;
  cudaEvent_t event = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  Launch(stream, {1, 4}, Positions, out);
  cudaEventRecord(event, stream);
  cudaStreamWaitEvent(other, event);
  cudaMemcpyAsync(pinned, out, 4 * sizeof(int), cudaMemcpyDeviceToHost, other);
  EXPECT_EQ(pinned[0], -1);
  EXPECT_EQ(cudaStreamQuery(other), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamSynchronize(other), cudaSuccess);
  EXPECT_EQ(pinned[0], 1);
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  cudaEventDestroy(event);
  cudaStreamDestroy(stream);
  cudaStreamDestroy(other);
  cudaFreeHost(pinned);
  cudaFree(out);
}

TEST(SimulatedDevice, AGraphIsDoneAsOftenAsItIsLaunched) {
  int* out = Device<int>(4);
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  const std::uint64_t before = KernelsRun();
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  Launch(stream, {1, 4}, Positions, out);
  Launch(stream, {1, 4}, Positions, out);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph), cudaSuccess);
  cudaStreamSynchronize(stream);
  EXPECT_EQ(KernelsRun(), before);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
  cudaStreamSynchronize(stream);
  EXPECT_EQ(KernelsRun(), before + 6);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  cudaFree(out);
}

void StuckShuffle() {
  if (threadIdx.x < 3) thresher::kernels::simt::ShuffleXor(1, 1);
}
void EarlyEnd() {
  if (threadIdx.x % 2 == 0) return;
  thresher::kernels::simt::ShuffleXor(1, 1);
}
void StuckBarrier() {
  if (threadIdx.x < 5) Barrier(1, 8);
}
void BehindShared() { SharedMemory<char>()[128 + threadIdx.x] = 1; }
void Write(int* at) { *at = 1; }

TEST(SimulatedDeviceDeath, AMeetingThatNotAllReachIsCaught) {
  EXPECT_DEATH(Launch(nullptr, {1, 16}, StuckShuffle), "lane that has ended|not all reach");
  EXPECT_DEATH(Launch(nullptr, {1, 16}, EarlyEnd), "lane that has ended|not all reach");
  EXPECT_DEATH(Launch(nullptr, {1, 16}, StuckBarrier), "not all reach.*5 wait at a barrier");
}

TEST(SimulatedDeviceDeath, AccessesBehindTheEndAreCaught) {
  int* one = Device<int>(4);
  EXPECT_DEATH(Launch(nullptr, {1, 1}, Write, one + 4), "");
  EXPECT_DEATH(Launch(nullptr, {1, 1, 128}, BehindShared), "");
  cudaFree(one);
}

TEST(SimulatedDeviceDeath, TheHostCannotTouchDeviceMemory) {
  int* one = Device<int>(4);
  EXPECT_DEATH(*one = 1, "");
  int host = 0;
  EXPECT_DEATH(cudaMemcpy(&host, one, 4, cudaMemcpyHostToDevice), "wrong side");
  cudaFree(one);
}

}  // namespace
}  // namespace cuda_sim
