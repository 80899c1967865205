#pragma once

#include <cstdint>

#include "kernels/cpu/weight_type.h"

// Language-model head: log-probabilities, sampling and their gradient. Logits exist for a block of
// rows x kVocabBlock ids at a time; only a row that asks for its own (filtered sampling, the
// likeliest ids: head_filter.h) has them whole.
//
// hidden: fp32 [T, D], row t at hidden + t * ldh. head: the packed W [V, D] (gemm.h).
// valid_vocab: in [1, V]; ids at or beyond it (padding of the head) have no mass anywhere.
// temperature: fp32 [T], >= 0; z = logit / temperature; 0 means greedy, and counts as 1 in every
// log-probability.
//
// Bits: z's logit is Gemm's. Vocabulary blocks of kVocabBlock ids ascending; in a block the maximum
// and the sum of exp(z - maximum) over 16 virtual lanes and a fixed tree; blocks fold ascending by
// the online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867); lse = maximum + Log(sum);
// logprob = z[target] - lse. The one-call forms HeadLogProb and HeadSample are HeadScan over all
// blocks, then HeadFold or HeadChoose: the log-probability that HeadSample returns with a token is,
// bit for bit, what HeadLogProb returns for it, and no division of blocks or rows over calls or
// threads changes a bit. Row-pure.
namespace thresher::kernels {

inline constexpr std::int64_t kVocabBlock = 256;  // part of the kernel set's identity

constexpr std::int64_t HeadBlockCount(std::int64_t valid_vocab) {
  return (valid_vocab + kVocabBlock - 1) / kVocabBlock;
}

// Rows of hidden states and the head they meet; borrowed.
struct HeadRows {
  std::int64_t t = 0, d = 0, v = 0, valid_vocab = 0;
  const float* hidden = nullptr;  // [T, D]
  std::int64_t ldh = 0;
  PackedMatrix head;
  const float* temperature = nullptr;  // [T]
};

// Softmax of one row over one vocabulary block: maximum of z, with s = z - maximum the sums of
// exp(s) and of s exp(s), and z of the target if the block holds it.
struct HeadBlock {
  float maximum, sum, weighted, target;
};

// Blocks [block_begin, block_end) of all rows: blocks[t * HeadBlockCount(valid_vocab) + b].
// targets: int32 [T], in [0, valid_vocab), or nullptr: none. logits: nullptr, or [T] pointers, each
// nullptr or to [valid_vocab] floats where that row's plain logits of these blocks are stored.
// Blocks and rows may be divided over threads.
void HeadScan(const HeadRows& rows, const std::int32_t* targets, std::int64_t block_begin,
              std::int64_t block_end, HeadBlock* blocks, float* const* logits);

// After HeadScan over all blocks: log-probabilities of the targets; see HeadLogProb.
void HeadFold(const HeadRows& rows, const std::int32_t* targets, const HeadBlock* blocks,
              float* logprob, float* lse, float* entropy);

// After HeadScan over all blocks: draws; see HeadSample. logits: as HeadScan filled them (for every
// row), or nullptr: the block drawn from is computed once more.
void HeadChoose(const HeadRows& rows, const HeadBlock* blocks, const float* const* logits,
                const double* uniform, std::int32_t* token, float* logprob);

// logprob[t] = log softmax(z[t])[targets[t]], natural log. targets: int32 [T], in [0, valid_vocab):
// the caller has checked them; one outside ends the process.
// lse [T] or nullptr: log sum exp(z), wanted by HeadBackward. entropy [T] or nullptr: of
// softmax(z), in nats.
void HeadLogProb(std::int64_t t, std::int64_t d, std::int64_t v, std::int64_t valid_vocab,
                 const float* hidden, std::int64_t ldh, PackedMatrix packed_head,
                 const float* temperature, const std::int32_t* targets, float* logprob, float* lse,
                 float* entropy);

// Draws token[t] by inverting the CDF in ascending id. uniform: double [T], in [0, 1). The mass of
// a vocabulary block is double(block sum) * double(Exp(block maximum - maximum)), the total their
// sum ascending in double; u * total picks the first block whose cumulated mass exceeds it, and the
// remainder, scaled to the block's mass summed id by id in double, the first id whose cumulated
// mass exceeds it. An id without mass is never drawn. Temperature 0: the id of the greatest logit,
// the lowest on ties; uniform is not used. logprob [T]: as HeadLogProb for the token drawn.
void HeadSample(std::int64_t t, std::int64_t d, std::int64_t v, std::int64_t valid_vocab,
                const float* hidden, std::int64_t ldh, PackedMatrix packed_head,
                const float* temperature, const double* uniform, std::int32_t* token,
                float* logprob);

// Plain logits [T, valid_vocab] of few rows, for tools, tests and parity checks: Gemm's bits.
void HeadLogits(std::int64_t t, std::int64_t d, std::int64_t valid_vocab, const float* hidden,
                std::int64_t ldh, PackedMatrix packed_head, float* logits, std::int64_t ldl);

// Gradient of sum_t dlogprob[t] * logprob[t] + dentropy[t] * entropy[t]:
//   dlogit = (dlogprob * (1[id = target] - p) - dentropy * p * (log p + entropy)) / temperature,
// with p = exp(z - lse). With `support` (no entropy term then) logprob is that under the
// distribution drawn from (head_filter.h), whose ids are taken as they are:
//   dlogit = dlogprob * (1[id = target] - p) * d score / dlogit / temperature,
// with p = exp(s - support.lse) within the support, and 0 outside; a score's slope is 1, for an id
// under a penalty the penalty (logit below 0) or its inverse. dhidden [T, D] is overwritten: a
// chain per vocabulary block, blocks added ascending. dhead [V, D] is accumulated in token order,
// one chain per element continued from its present value (rows at or beyond valid_vocab are left
// alone); nullptr: not wanted.
struct HeadFilter;
struct HeadSupport;
struct HeadBackwardArgs {
  std::int64_t t, d, v, valid_vocab;
  const float* hidden;  // [T, D]
  std::int64_t ldh;
  PackedMatrix packed_head;             // W [V, D], by PackRows
  PackedMatrix packed_head_transposed;  // by PackRowsTransposed; used for dhidden
  const float* temperature;             // [T]
  const std::int32_t* targets;          // [T]
  const float* lse;                     // [T], from HeadLogProb
  const float* dlogprob;                // [T]
  const float* entropy = nullptr;       // [T], from HeadLogProb; needed with dentropy
  const float* dentropy = nullptr;      // [T], or nullptr: no entropy term
  float* dhidden;  // [T, D], or nullptr: not wanted
  std::int64_t lddh;
  float* dhead;  // [V, D], accumulated, or nullptr
  const HeadFilter* filter = nullptr;  // [T], needed with support
  // [T], from HeadFindSupport, or nullptr: full distributions; lse is not read. {0, lse, -inf}: of
  // a row that is drawn from the full one.
  const HeadSupport* support = nullptr;
  // [T], or nullptr: of each row its plain logits [valid_vocab], as HeadScan leaves them, or null:
  // they are computed again. No bit depends on it.
  const float* const* logits = nullptr;
};
void HeadBackward(const HeadBackwardArgs& args);

}  // namespace thresher::kernels
