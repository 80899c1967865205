#pragma once

// The threads of one group (kernels/cuda/simt.h) on the host, each as a fiber, so that a kernel's
// code can be tested where there is no device. Shuffles are where fibers meet; one that a thread of
// the group does not reach ends the process, as it would hang a device. Not thread-safe.
#include <ucontext.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/simt.h"

namespace thresher::kernels::simt {
namespace host {

inline constexpr std::size_t kStackBytes = 256 << 10;

struct Group {
  explicit Group(const std::function<void()>& thread) : body(thread) {}

  const std::function<void()>& body;
  std::array<ucontext_t, kGroup> fibers{};
  std::array<bool, kGroup> ended{};
  ucontext_t scheduler{};
  int current = 0;
  std::array<float, kGroup> values{};
  int arrived = 0;
  std::uint64_t meetings = 0;
};

inline Group* group = nullptr;

inline void Yield() { swapcontext(&group->fibers[group->current], &group->scheduler); }

// Returns once all threads of the group have called it.
inline void Meet() {
  const std::uint64_t meeting = group->meetings;
  if (++group->arrived == kGroup) {
    group->arrived = 0;
    ++group->meetings;
  }
  while (group->meetings == meeting) Yield();
}

inline void Body() {
  group->body();
  group->ended[group->current] = true;
  Yield();
}

}  // namespace host

inline int Lane() { return host::group->current; }

inline float ShuffleXor(float value, int mask) {
  host::group->values[Lane()] = value;
  host::Meet();
  const float other = host::group->values[Lane() ^ mask];
  host::Meet();  // nobody writes the next value before all have read this one
  return other;
}

// Runs `thread` as the threads of one group, to their ends.
inline void RunGroup(const std::function<void()>& thread) {
  host::Group here(thread);
  host::group = &here;
  std::vector<std::unique_ptr<char[]>> stacks;
  for (int i = 0; i < kGroup; ++i) {
    stacks.push_back(std::make_unique<char[]>(host::kStackBytes));
    getcontext(&here.fibers[i]);
    here.fibers[i].uc_stack.ss_sp = stacks.back().get();
    here.fibers[i].uc_stack.ss_size = host::kStackBytes;
    here.fibers[i].uc_link = &here.scheduler;
    makecontext(&here.fibers[i], host::Body, 0);
  }
  for (bool running = true; running;) {
    running = false;
    const std::uint64_t meetings = here.meetings;
    const int arrived = here.arrived;
    bool ended = false;
    for (here.current = 0; here.current < kGroup; ++here.current) {
      if (here.ended[here.current]) continue;
      running = true;
      swapcontext(&here.scheduler, &here.fibers[here.current]);
      ended |= here.ended[here.current];
    }
    if (running && !ended && here.meetings == meetings && here.arrived == arrived) {
      std::fprintf(stderr, "simt: a shuffle that %d of %d threads reached\n", arrived, kGroup);
      std::abort();
    }
  }
  host::group = nullptr;
}

}  // namespace thresher::kernels::simt
