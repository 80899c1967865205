#include "kernels/cpu/head_filter.h"

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

HeadDraw HeadSampleFiltered(std::int64_t valid_vocab, const float* logits, const HeadBlock* blocks,
                            const HeadFilter& filter, double uniform, std::uint64_t* kept) {
  Require(valid_vocab >= 1, "HeadSampleFiltered: valid_vocab");
  Require(filter.temperature >= 0 && filter.repetition_penalty > 0, "HeadSampleFiltered: filter");
  const ScopedFpEnv env;
  return ActiveTable().head_sample_filtered(valid_vocab, logits, blocks, filter, uniform, kept);
}

HeadSupport HeadFindSupport(std::int64_t valid_vocab, const float* logits, const HeadBlock* blocks,
                            const HeadFilter& filter, std::int32_t target, float logprob) {
  Require(target >= 0 && target < valid_vocab, "HeadFindSupport: target out of range");
  Require(filter.temperature > 0 && filter.repetition_penalty > 0, "HeadFindSupport: filter");
  const ScopedFpEnv env;
  return ActiveTable().head_find_support(valid_vocab, logits, blocks, filter, target, logprob);
}

void HeadTopLogProbs(std::int64_t valid_vocab, const float* logits, const HeadBlock* blocks,
                     float temperature, std::int64_t n, std::int32_t* ids, float* logprobs) {
  Require(n >= 1 && n <= valid_vocab, "HeadTopLogProbs: n");
  const ScopedFpEnv env;
  ActiveTable().head_top_log_probs(valid_vocab, logits, blocks, temperature, n, ids, logprobs);
}

}  // namespace thresher::kernels
