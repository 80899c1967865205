#include "kernels/cpu/embedding.h"

#include <algorithm>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

void EmbeddingForward(std::int64_t t, std::int64_t d, std::int64_t v, const std::int32_t* ids,
                      const float* table, float* y) {
  for (std::int64_t i = 0; i < t; ++i) {
    Require(ids[i] >= 0 && ids[i] < v, "EmbeddingForward: id out of range");
    std::copy_n(table + ids[i] * d, d, y + i * d);
  }
}

void EmbeddingBackward(std::int64_t t, std::int64_t d, std::int64_t v, const std::int32_t* ids,
                       const float* dy, float* dtable) {
  const ScopedFpEnv env;
  const KernelTable& table = ActiveTable();
  for (std::int64_t i = 0; i < t; ++i) {
    Require(ids[i] >= 0 && ids[i] < v, "EmbeddingBackward: id out of range");
    table.add_rows(d, dtable + ids[i] * d, dy + i * d);
  }
}

}  // namespace thresher::kernels
