#include "common/model/parallel.h"

#include "kernels/cpu/gemm.h"

namespace thresher::model {
namespace {

// More would share the work better with threads that come late, but each part of a product copies
// its input again.
constexpr std::int64_t kPartsPerThread = 2;
constexpr std::int64_t kAttentionGrain = 8;  // rows; neighbours of one sequence share its keys

// Mean number of positions that a row looks at.
double MeanPositions(const AttentionRows& rows) {
  double sum = 0;
  for (std::int64_t i = 0; i < rows.t; ++i) sum += rows.positions[i] + 1.0;
  return sum / static_cast<double>(rows.t);
}

// Rows [begin, end), KV heads [head, head + count). With lse, all heads.
void AttendPart(const AttentionRows& rows, std::int64_t begin, std::int64_t end, std::int64_t head,
                std::int64_t count) {
  const std::int64_t group = rows.heads / rows.kv_heads;
  const std::int64_t column = head * group * rows.head_dim;
  const std::int64_t page_part = head * kernels::kKvPageSize * rows.head_dim;
  const kernels::KvPages pages{rows.pages.k_base + page_part, rows.pages.v_base + page_part,
                               rows.pages.page_stride_floats};
  kernels::Attention(end - begin, count * group, count, rows.head_dim,
                     rows.q + begin * rows.ldq + column, rows.ldq, rows.page_tables + begin,
                     rows.positions + begin, rows.scale, pages,
                     rows.out + begin * rows.ldo + column, rows.ldo,
                     rows.lse == nullptr ? nullptr : rows.lse + begin * rows.heads);
}

}  // namespace

std::int64_t Parallel::PartCount(std::int64_t count, std::int64_t grain, double cost) const {
  if (pool_ == nullptr || count <= grain) return 1;
  const std::int64_t grains = (count + grain - 1) / grain;
  const double worth = static_cast<double>(count) * cost / part_cost_;
  const std::int64_t most = std::min(grains, kPartsPerThread * threads());
  return worth >= static_cast<double>(most) ? most : static_cast<std::int64_t>(worth);
}

void AttendInParallel(const Parallel& parallel, const AttentionRows& rows) {
  if (rows.t == 0) return;
  const double row_cost = MeanPositions(rows) * static_cast<double>(2 * rows.heads * rows.head_dim);
  if (rows.lse != nullptr || rows.t >= kAttentionGrain * parallel.threads()) {
    parallel.Parts(rows.t, kAttentionGrain, row_cost, [&](std::int64_t begin, std::int64_t end) {
      AttendPart(rows, begin, end, 0, rows.kv_heads);
    });
    return;
  }
  const double head_cost = row_cost / static_cast<double>(rows.kv_heads);
  parallel.Parts(rows.t * rows.kv_heads, 1, head_cost, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end;) {
      const std::int64_t row = i / rows.kv_heads, head = i % rows.kv_heads;
      const std::int64_t count = std::min(end - i, rows.kv_heads - head);
      AttendPart(rows, row, row + 1, head, count);
      i += count;
    }
  });
}

void GemmColumns(std::int64_t begin, std::int64_t end, std::int64_t t, std::int64_t k,
                 const float* x, std::int64_t ldx, kernels::PackedMatrix w, const float* bias,
                 float* y, std::int64_t ldy) {
  kernels::Gemm(t, end - begin, k, x, ldx, kernels::PackedFrom(w, k, begin),
                bias == nullptr ? nullptr : bias + begin, y + begin, ldy);
}

}  // namespace thresher::model
