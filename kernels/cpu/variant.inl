// All operations of one variant and their table. Included once by each variant_*.cc.
#include "kernels/cpu/attention.inl"
#include "kernels/cpu/attention_backward.inl"
#include "kernels/cpu/gemm.inl"
#include "kernels/cpu/head.inl"
#include "kernels/cpu/head_backward.inl"
#include "kernels/cpu/head_filter.inl"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/math.inl"
#include "kernels/cpu/rmsnorm.inl"
#include "kernels/cpu/rope.inl"
#include "kernels/cpu/swiglu.inl"
#include "kernels/cpu/value_head.inl"
#include "kernels/cpu/weight_grad.inl"

namespace thresher::kernels::THRESHER_VARIANT {

static constexpr KernelTable kTable = {
    .exp = ExpArray,
    .log = LogArray,
    .gemm = GemmPacked,
    .gemm_bf16_dot = GemmBf16Dot,
    .gemm_bf16_amx = GemmBf16Amx,
    .weight_grad = WeightGrad,
    .bias_grad = BiasGrad,
    .rmsnorm_forward = RmsNormForward,
    .rmsnorm_backward = RmsNormBackward,
    .rope_apply = RopeApply,
    .attention = Attention,
    .attention_backward = AttentionBackward,
    .swiglu_forward = SwigluForward,
    .swiglu_backward = SwigluBackward,
    .add_rows = AddRows,
    .head_scan = ScanBlocks,
    .head_fold = FoldTargets,
    .head_choose = ChooseTokens,
    .head_sample_filtered = SampleFiltered,
    .head_find_support = FindSupport,
    .head_top_log_probs = TopLogProbs,
    .head_backward = HeadBackward,
    .value_head_forward = ValueHeadForward,
    .value_head_backward = ValueHeadBackward,
};

}  // namespace thresher::kernels::THRESHER_VARIANT
