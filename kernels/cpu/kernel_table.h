#pragma once

#include <cstdint>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/head.h"
#include "kernels/cpu/head_filter.h"
#include "kernels/cpu/value_head.h"
#include "kernels/cpu/weight_type.h"

// The entry points of one variant. The public functions check their preconditions, pin the
// floating-point environment and call through the active table; each has the contract of its
// public header.
namespace thresher::kernels {

// A packed matrix, or a part of its depth, as the products read it.
struct GemmWeights {
  const unsigned char* data;  // the first panel
  WeightType type;
  std::int64_t panel_bytes;  // from one panel to the next
};

// The values of a packed matrix of depth k from k0 on; k0 is even.
GemmWeights WeightsFrom(PackedMatrix w, std::int64_t k, std::int64_t k0);

struct KernelTable {
  void (*exp)(std::int64_t, const float*, float*);
  void (*log)(std::int64_t, const float*, float*);
  void (*gemm)(std::int64_t, std::int64_t, std::int64_t, const float*, std::int64_t, PackedMatrix,
               const float*, float*, std::int64_t);
  // bf16 weights in the kernel sets kBf16Dot and kBf16Amx.
  void (*gemm_bf16_dot)(std::int64_t, std::int64_t, std::int64_t, const float*, std::int64_t,
                        const GemmWeights&, const float*, float*, std::int64_t);
  void (*gemm_bf16_amx)(std::int64_t, std::int64_t, std::int64_t, const float*, std::int64_t,
                        const GemmWeights&, const float*, float*, std::int64_t);
  void (*weight_grad)(std::int64_t, std::int64_t, std::int64_t, const float*, std::int64_t,
                      const float*, std::int64_t, float*, std::int64_t);
  void (*bias_grad)(std::int64_t, std::int64_t, const float*, std::int64_t, float*);
  void (*rmsnorm_forward)(std::int64_t, std::int64_t, const float*, const float*, float, float*,
                          float*);
  void (*rmsnorm_backward)(std::int64_t, std::int64_t, const float*, const float*, const float*,
                           const float*, float*, float*);
  void (*rope_apply)(std::int64_t, std::int64_t, std::int64_t, const std::int32_t*, const float*,
                     const float*, float*, std::int64_t, bool);
  void (*attention)(std::int64_t, std::int64_t, std::int64_t, std::int64_t, const float*,
                    std::int64_t, const std::int32_t* const*, const std::int32_t*, float,
                    const KvPages&, float*, std::int64_t, float*);
  void (*attention_backward)(const AttentionBackwardArgs&);
  void (*swiglu_forward)(std::int64_t, std::int64_t, const float*, std::int64_t, const float*,
                         std::int64_t, float*, std::int64_t);
  void (*swiglu_backward)(std::int64_t, std::int64_t, const float*, std::int64_t, const float*,
                          std::int64_t, const float*, std::int64_t, float*, std::int64_t, float*,
                          std::int64_t, float*, std::int64_t);
  void (*add_rows)(std::int64_t, float*, const float*);  // y[i] += x[i]
  void (*head_scan)(const HeadRows&, const std::int32_t*, std::int64_t, std::int64_t, HeadBlock*,
                    float* const*);
  void (*head_fold)(const HeadRows&, const std::int32_t*, const HeadBlock*, float*, float*, float*);
  void (*head_choose)(const HeadRows&, const HeadBlock*, const float* const*, const double*,
                      std::int32_t*, float*);
  HeadDraw (*head_sample_filtered)(std::int64_t, const float*, const HeadBlock*, const HeadFilter&,
                                   double, std::uint64_t*);
  HeadSupport (*head_find_support)(std::int64_t, const float*, const HeadBlock*, const HeadFilter&,
                                   std::int32_t, float);
  void (*head_top_log_probs)(std::int64_t, const float*, const HeadBlock*, float, std::int64_t,
                             std::int32_t*, float*);
  void (*head_backward)(const HeadBackwardArgs&);
  void (*value_head_forward)(std::int64_t, std::int64_t, const float*, std::int64_t, const float*,
                             const float*, float*);
  void (*value_head_backward)(const ValueHeadBackwardArgs&);
};

const KernelTable& PortableTable();
const KernelTable& Avx2Table();
const KernelTable& Avx512Table();
const KernelTable& Avx512Bf16Table();  // Avx512Table with vdpbf16ps
const KernelTable& AmxTable();         // Avx512Bf16Table with tdpbf16ps

// The table of the active variant.
const KernelTable& ActiveTable();

// Lets `table` (borrowed) stand in for the active variant's until nullptr is given: for tests that
// plant an error and must see it caught.
void PlantTable(const KernelTable* table);

}  // namespace thresher::kernels
