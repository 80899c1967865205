#include "kernels/cpu/head.h"

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {
namespace {

void RequireTargets(std::int64_t t, std::int64_t valid_vocab, const std::int32_t* targets) {
  for (std::int64_t i = 0; i < t; ++i) {
    Require(targets[i] >= 0 && targets[i] < valid_vocab, "head: target out of range");
  }
}

void RequireVocabulary(std::int64_t v, std::int64_t valid_vocab) {
  Require(valid_vocab >= 1 && valid_vocab <= v, "head: valid_vocab");
}

}  // namespace

void HeadLogProb(std::int64_t t, std::int64_t d, std::int64_t v, std::int64_t valid_vocab,
                 const float* hidden, std::int64_t ldh, PackedMatrix packed_head,
                 const float* temperature, const std::int32_t* targets, float* logprob, float* lse,
                 float* entropy) {
  RequireVocabulary(v, valid_vocab);
  RequireTargets(t, valid_vocab, targets);
  const ScopedFpEnv env;
  ActiveTable().head_log_prob(t, d, valid_vocab, hidden, ldh, packed_head, temperature, targets,
                              logprob, lse, entropy);
}

void HeadSample(std::int64_t t, std::int64_t d, std::int64_t v, std::int64_t valid_vocab,
                const float* hidden, std::int64_t ldh, PackedMatrix packed_head,
                const float* temperature, const double* uniform, std::int32_t* token,
                float* logprob) {
  RequireVocabulary(v, valid_vocab);
  const ScopedFpEnv env;
  ActiveTable().head_sample(t, d, valid_vocab, hidden, ldh, packed_head, temperature, uniform,
                            token, logprob);
}

void HeadLogits(std::int64_t t, std::int64_t d, std::int64_t valid_vocab, const float* hidden,
                std::int64_t ldh, PackedMatrix packed_head, float* logits, std::int64_t ldl) {
  Gemm(t, valid_vocab, d, hidden, ldh, packed_head, nullptr, logits, ldl);
}

void HeadBackward(const HeadBackwardArgs& args) {
  RequireVocabulary(args.v, args.valid_vocab);
  RequireTargets(args.t, args.valid_vocab, args.targets);
  Require(args.dentropy == nullptr || args.entropy != nullptr, "HeadBackward: entropy missing");
  const ScopedFpEnv env;
  ActiveTable().head_backward(args);
}

}  // namespace thresher::kernels
