#include "broker/freed_memory.h"

#include <malloc.h>

namespace thresher::broker {

void KeepFreedMemory() {
  constexpr int kMappedFrom = 32 << 20;   // the most that glibc takes
  constexpr int kKept = 2 * kMappedFrom;  // a batch, and its encrypted copy
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, kMappedFrom);
  mallopt(M_TRIM_THRESHOLD, kKept);
}

}  // namespace thresher::broker
