#include "kernels/cpu/scratch.h"

#include <cstdlib>

#include "kernels/cpu/require.h"

namespace thresher::kernels {
namespace {

struct Buffers {
  float* data[static_cast<int>(ScratchSlot::kCount)] = {};
  std::size_t floats[static_cast<int>(ScratchSlot::kCount)] = {};
  ~Buffers() {
    for (float* buffer : data) std::free(buffer);
  }
};

thread_local Buffers buffers;

}  // namespace

float* Scratch(ScratchSlot slot, std::size_t floats) {
  const int index = static_cast<int>(slot);
  if (buffers.floats[index] < floats) {
    std::free(buffers.data[index]);
    const std::size_t rounded = (floats + 4095) / 4096 * 4096;
    buffers.data[index] = static_cast<float*>(std::aligned_alloc(64, rounded * sizeof(float)));
    buffers.floats[index] = rounded;
    Require(buffers.data[index] != nullptr, "scratch memory exhausted");
  }
  return buffers.data[index];
}

}  // namespace thresher::kernels
