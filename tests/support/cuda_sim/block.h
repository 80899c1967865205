#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

// How a grid runs on the host: its blocks one after another, the threads of a block as fibers of
// the calling thread, which change only where threads meet. So whatever one thread leaves to
// another without a meeting is found by running the threads in another order: they start forwards
// in even blocks and backwards in odd ones.
//
// The process ends with a message when a meeting is not reached by all who should be there: on a
// device that would hang or be undefined.
namespace cuda_sim {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

struct Grid {
  Extent blocks, threads;
  std::size_t shared_bytes = 0;
};

// Of the running thread. Outside a kernel the process ends.
struct Position {
  Extent thread, block, threads, blocks;
};
const Position& This();
int LaneOfWarp();
// Of the running thread, in its block.
unsigned ThreadIndex();
// The block's dynamic shared memory: poisoned when the block begins, guarded behind its end.
void* SharedMemory();
std::size_t SharedBytes();
// Where `at` lies in the block's window of shared memory, and back. The process ends where it does
// not.
std::uint32_t SharedAddress(const void* at);
unsigned char* SharedAt(std::uint32_t address);

// Meets `count` threads of the block at barrier `id` (0: all that have not ended).
void Barrier(int id, int count);
// Meets the lanes in `mask` (this one among them); returns the value of `from_lane`.
std::uint64_t Exchange(unsigned mask, std::uint64_t value, int from_lane);

// The running thread goes on when another has called Changed: for what is waited for by asking.
void AwaitChange();
void Changed();

// Ends the process with a message.
[[noreturn]] void Die(const char* text);

// Runs `thread` as every thread of the grid. Not re-entrant.
void RunGrid(const Grid& grid, const std::function<void()>& thread);

}  // namespace cuda_sim
