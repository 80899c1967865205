#pragma once

#include <algorithm>
#include <cstdint>

#include "common/sync/worker_pool.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/weight_type.h"

namespace thresher::model {

// Divides operations by their outputs over the pool of a workspace, never by what is summed over,
// so no bit depends on the number of threads. Without a pool, and where the work is too little to
// pay for other threads' attention, the calling thread does it alone. Borrows the pool.
class Parallel {
 public:
  // `part_cost`: multiply-adds worth a thread's attention.
  Parallel(WorkerPool* pool, double part_cost) : pool_(pool), part_cost_(part_cost) {}
  int threads() const { return pool_ == nullptr ? 1 : pool_->threads(); }

  // fn(begin, end) for consecutive parts of [0, count), each a multiple of `grain` long but the
  // last. `cost`: of one item, in multiply-adds.
  template <class Fn>
  void Parts(std::int64_t count, std::int64_t grain, double cost, Fn&& fn) const {
    const std::int64_t parts = PartCount(count, grain, cost);
    if (parts <= 1) {
      if (count > 0) fn(std::int64_t{0}, count);
      return;
    }
    const std::int64_t grains = (count + grain - 1) / grain;
    pool_->Run(parts, [&](int, std::int64_t part) {
      const std::int64_t begin = grains * part / parts * grain;
      const std::int64_t end = std::min(count, grains * (part + 1) / parts * grain);
      fn(begin, end);
    });
  }

 private:
  // As many parts as there are threads, or a few times that when the work is large: who is late
  // then has less left to do.
  std::int64_t PartCount(std::int64_t count, std::int64_t grain, double cost) const;

  WorkerPool* pool_;
  double part_cost_;
};

// Attention of rows whose log-sum-exp is wanted (training) or not (`lse` null), as
// kernels::Attention, divided over rows and, without lse, over KV heads.
struct AttentionRows {
  std::int64_t t, heads, kv_heads, head_dim;
  const float* q;
  std::int64_t ldq;
  const std::int32_t* const* page_tables;
  const std::int32_t* positions;
  float scale;
  kernels::KvPages pages;
  float* out;
  std::int64_t ldo;
  float* lse;
};
void AttendInParallel(const Parallel& parallel, const AttentionRows& rows);

// kernels::Gemm for columns [begin, end) of y alone; begin is a multiple of kernels::kGemmPanel.
void GemmColumns(std::int64_t begin, std::int64_t end, std::int64_t t, std::int64_t k,
                 const float* x, std::int64_t ldx, kernels::PackedMatrix w, const float* bias,
                 float* y, std::int64_t ldy);

}  // namespace thresher::model
