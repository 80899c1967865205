#include "kernels/cpu/head.h"

#include <algorithm>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"
#include "kernels/cpu/scratch.h"

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

// Rows of one pass over the weights of the head in the one-call forms: enough to read the weights
// seldom, few enough that what is kept of each block stays near.
constexpr std::int64_t kPassRows = 192;

HeadRows RowsFrom(const HeadRows& rows, std::int64_t begin, std::int64_t count) {
  HeadRows part = rows;
  part.t = count;
  part.hidden += begin * rows.ldh;
  part.temperature += begin;
  return part;
}

HeadBlock* PassBlocks(const HeadRows& rows) {
  const auto floats = static_cast<std::size_t>(kPassRows * HeadBlockCount(rows.valid_vocab)) *
                      sizeof(HeadBlock) / sizeof(float);
  return reinterpret_cast<HeadBlock*>(Scratch(ScratchSlot::kHeadBlocks, floats));
}

}  // namespace

void HeadScan(const HeadRows& rows, const std::int32_t* targets, std::int64_t block_begin,
              std::int64_t block_end, HeadBlock* blocks, float* const* logits) {
  RequireVocabulary(rows.v, rows.valid_vocab);
  Require(block_begin >= 0 && block_end <= HeadBlockCount(rows.valid_vocab), "HeadScan: blocks");
  const ScopedFpEnv env;
  ActiveTable().head_scan(rows, targets, block_begin, block_end, blocks, logits);
}

void HeadFold(const HeadRows& rows, const std::int32_t* targets, const HeadBlock* blocks,
              float* logprob, float* lse, float* entropy) {
  RequireVocabulary(rows.v, rows.valid_vocab);
  RequireTargets(rows.t, rows.valid_vocab, targets);
  const ScopedFpEnv env;
  ActiveTable().head_fold(rows, targets, blocks, logprob, lse, entropy);
}

void HeadChoose(const HeadRows& rows, const HeadBlock* blocks, const float* const* logits,
                const double* uniform, std::int32_t* token, float* logprob) {
  RequireVocabulary(rows.v, rows.valid_vocab);
  const ScopedFpEnv env;
  ActiveTable().head_choose(rows, blocks, logits, uniform, token, logprob);
}

void HeadLogProb(std::int64_t t, std::int64_t d, std::int64_t v, std::int64_t valid_vocab,
                 const float* hidden, std::int64_t ldh, PackedMatrix packed_head,
                 const float* temperature, const std::int32_t* targets, float* logprob, float* lse,
                 float* entropy) {
  const HeadRows all{t, d, v, valid_vocab, hidden, ldh, packed_head, temperature};
  RequireVocabulary(v, valid_vocab);
  HeadBlock* blocks = PassBlocks(all);
  for (std::int64_t t0 = 0; t0 < t; t0 += kPassRows) {
    const HeadRows rows = RowsFrom(all, t0, std::min(kPassRows, t - t0));
    RequireTargets(rows.t, valid_vocab, targets + t0);
    HeadScan(rows, targets + t0, 0, HeadBlockCount(valid_vocab), blocks, nullptr);
    HeadFold(rows, targets + t0, blocks, logprob + t0, lse == nullptr ? nullptr : lse + t0,
             entropy == nullptr ? nullptr : entropy + t0);
  }
}

void HeadSample(std::int64_t t, std::int64_t d, std::int64_t v, std::int64_t valid_vocab,
                const float* hidden, std::int64_t ldh, PackedMatrix packed_head,
                const float* temperature, const double* uniform, std::int32_t* token,
                float* logprob) {
  const HeadRows all{t, d, v, valid_vocab, hidden, ldh, packed_head, temperature};
  RequireVocabulary(v, valid_vocab);
  HeadBlock* blocks = PassBlocks(all);
  // The logits of a vocabulary of one block are kept rather than computed again.
  float* logits[kPassRows];
  const bool keep = valid_vocab <= kVocabBlock;
  if (keep) {
    float* row = Scratch(ScratchSlot::kHeadLogits, kPassRows * kVocabBlock);
    for (std::int64_t r = 0; r < kPassRows; ++r) logits[r] = row + r * kVocabBlock;
  }
  float* const* kept = keep ? logits : nullptr;
  for (std::int64_t t0 = 0; t0 < t; t0 += kPassRows) {
    const HeadRows rows = RowsFrom(all, t0, std::min(kPassRows, t - t0));
    HeadScan(rows, nullptr, 0, HeadBlockCount(valid_vocab), blocks, kept);
    HeadChoose(rows, blocks, kept, uniform + t0, token + t0, logprob + t0);
  }
}

void HeadLogits(std::int64_t t, std::int64_t d, std::int64_t valid_vocab, const float* hidden,
                std::int64_t ldh, PackedMatrix packed_head, float* logits, std::int64_t ldl) {
  Gemm(t, valid_vocab, d, hidden, ldh, packed_head, nullptr, logits, ldl);
}

void HeadBackward(const HeadBackwardArgs& args) {
  RequireVocabulary(args.v, args.valid_vocab);
  RequireTargets(args.t, args.valid_vocab, args.targets);
  Require(args.dentropy == nullptr || args.entropy != nullptr, "HeadBackward: entropy missing");
  Require(args.support == nullptr || (args.filter != nullptr && args.dentropy == nullptr),
          "HeadBackward: a support without filters, or with an entropy term");
  const ScopedFpEnv env;
  ActiveTable().head_backward(args);
}

}  // namespace thresher::kernels
