#pragma once

#include "kernels/cuda/kv_cache.h"
#include "kernels/cuda/simt.h"

// Queries that read the same keys. They are numbered through the rows and the heads of a KV head's
// group: e = row * group + head.
namespace thresher::kernels::cuda {

// Some queries of one sequence, no padding among them.
struct QueryRun {
  std::int64_t begin, end;      // queries
  std::int64_t first_position;  // the least
  std::int64_t last_position;   // the greatest
};

// The run that begins with query `begin`, which is no padding.
__device__ inline QueryRun QueryRunFrom(const PagedRows& rows, std::int64_t group,
                                        std::int64_t begin, std::int64_t end) {
  const std::int64_t first = begin / group;
  QueryRun run{begin, begin, rows.position[first], rows.position[first]};
  for (std::int64_t t = first; t * group < end; ++t) {
    const std::int64_t position = rows.position[t];
    if (position < 0 || rows.sequence[t] != rows.sequence[first]) break;
    run.first_position = position < run.first_position ? position : run.first_position;
    run.last_position = position > run.last_position ? position : run.last_position;
    run.end = (t + 1) * group < end ? (t + 1) * group : end;
  }
  return run;
}

}  // namespace thresher::kernels::cuda
