#include "broker/freed_memory.h"

#include <malloc.h>

namespace thresher::broker {

void KeepFreedMemory() {
  constexpr int kMappedFrom = 32 << 20, kKept = 16 << 20;
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, kMappedFrom);
  mallopt(M_TRIM_THRESHOLD, kKept);
}

}  // namespace thresher::broker
