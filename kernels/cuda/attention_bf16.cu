#include "kernels/cuda/attention_bf16.h"
#include "kernels/cuda/attention_bf16_forms.cuh"

// The choice of a form.
namespace thresher::kernels::cuda {
namespace {

int ColumnsOf(Bf16AttentionForm form) {
  constexpr int kColumns[kBf16AttentionForms] = {64, 64, 32, 16, 8};
  return kColumns[static_cast<int>(form)];
}

bool Serves(const AttentionArgs& a) {
  return a.kv_heads > 0 && a.heads > 0 && a.heads % a.kv_heads == 0 &&
         ServesAttentionBf16(a.head_dim) && a.kv.type == KvType::kBf16 && a.scale > 0;
}

bool FitsSplits(const AttentionArgs& a, const AttentionScratch& scratch) {
  return a.max_positions > 0 &&
         scratch.bytes >= AttentionScratchBytes(a.rows.t, a.heads, a.head_dim, a.max_positions);
}

}  // namespace

const char* Bf16AttentionFormName(Bf16AttentionForm form) {
  constexpr const char* kNames[kBf16AttentionForms] = {"rows", "splits64", "splits32", "splits16",
                                                       "splits8"};
  return kNames[static_cast<int>(form)];
}

Bf16AttentionForm Bf16SplitsFormFor(unsigned forms, std::int64_t group) {
  constexpr int kWidest = static_cast<int>(Bf16AttentionForm::kSplits64);
  const auto may = [forms](int form) { return (forms >> form & 1) != 0; };
  for (int form = kBf16AttentionForms - 1; form >= kWidest; --form) {
    const auto found = static_cast<Bf16AttentionForm>(form);
    if (may(form) && ColumnsOf(found) >= group) return found;
  }
  for (int form = kWidest; form < kBf16AttentionForms; ++form) {
    if (may(form)) return static_cast<Bf16AttentionForm>(form);
  }
  return Bf16AttentionForm::kRows;
}

cudaError_t AttentionBf16By(cudaStream_t stream, const AttentionArgs& args,
                            const AttentionScratch& scratch, Bf16AttentionForm form) {
  if (!Serves(args)) return cudaErrorInvalidValue;
  if (args.rows.t == 0) return cudaSuccess;
  const float scale = Bf16AttentionScale(args.scale);
  if (form == Bf16AttentionForm::kRows) return AttentionBf16Rows(stream, args, scale);
  if (!FitsSplits(args, scratch)) return cudaErrorInvalidValue;
  return AttentionBf16Splits(stream, args, scale, ColumnsOf(form), scratch.data);
}

cudaError_t AttentionBf16(cudaStream_t stream, const AttentionArgs& args,
                          const AttentionScratch& scratch, unsigned forms, AttentionForm form) {
  if (!Serves(args)) return cudaErrorInvalidValue;
  if ((forms & 1) == 0) return cudaErrorNotSupported;
  const bool fits = FitsSplits(args, scratch);
  if (form == AttentionForm::kSplits && !fits) return cudaErrorInvalidValue;
  if (form == AttentionForm::kRows || !fits) {
    return AttentionBf16By(stream, args, scratch, Bf16AttentionForm::kRows);
  }
  return AttentionBf16By(stream, args, scratch,
                         Bf16SplitsFormFor(forms, args.heads / args.kv_heads));
}

}  // namespace thresher::kernels::cuda
