#pragma once

#include <cstdint>

namespace thresher::kernels {

// y [T, D]: y[t] = table[ids[t]]. table: [V, D]; ids: int32 [T], each in [0, V): the caller has
// checked them; an id outside ends the process.
void EmbeddingForward(std::int64_t t, std::int64_t d, std::int64_t v, const std::int32_t* ids,
                      const float* table, float* y);

// dtable[ids[t]] += dy[t], tokens ascending: one chain of additions per element, continued from its
// present value. dtable: [V, D]; dy: [T, D].
void EmbeddingBackward(std::int64_t t, std::int64_t d, std::int64_t v, const std::int32_t* ids,
                       const float* dy, float* dtable);

}  // namespace thresher::kernels
