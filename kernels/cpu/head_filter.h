#pragma once

#include <cstdint>

#include "kernels/cpu/head.h"

// Filtered sampling of one row from its plain logits, without sorting, and its likeliest ids. Works
// on what HeadScan left of the row: its logits and its blocks.
//
// Order, that of Hugging Face's generate(): on the logits the repetition penalty, then the bias,
// then the mask of allowed ids; then temperature, top-k, top-p, min-p. The scores s begin as the
// logits (Gemm's bits); every step below is one correctly rounded fp32 operation per id.
//   penalty p != 1   s = s < 0 ? s * p : s / p                    for each id of `seen`
//   bias             s = s + value                                for each id of the list
//   mask             ids outside have no score and are never kept
//   temperature      s = s / temperature; 0 keeps one id: the greatest s, the lowest id on ties
//   top-k            keeps the ids whose s is at least the k-th greatest
//   top-p            keeps an id if the mass of the kept ids with a greater s is below p x all mass
//   min-p            keeps an id if its mass is at least min-p
// The mass of an id is Exp(s - greatest s); one whose mass is 0 in fp32 is not kept. Masses add up
// over 16 virtual lanes and a fixed tree within a vocabulary block, blocks ascending in double.
// Ties: ids of equal s are kept or dropped together, so top-k may keep more than k ids. (Hugging
// Face does the same in top-k and drops some of the ties in top-p, whichever its sort put last.)
//
// The draw inverts the CDF over the kept masses in ascending id, like HeadSample: u x total picks
// the first block whose cumulated mass exceeds it, and the remainder, scaled to the block's mass
// summed id by id in double, the first id whose cumulated mass exceeds it.
//
// The log-probability under the distribution drawn from is s - lse, lse = greatest s + Log(kept
// mass): where ids are only left out it is the full distribution's less the log of the kept mass.
//
// Row-pure; the same bits in all variants.
namespace thresher::kernels {

// Neutral values (top_k 0, top_p 1, min_p 0, repetition_penalty 1, no lists) leave a step out.
struct HeadFilter {
  float temperature = 1.0f;  // >= 0
  std::uint32_t top_k = 0;
  float top_p = 1.0f;                  // in (0, 1]
  float min_p = 0.0f;                  // in [0, 1]
  float repetition_penalty = 1.0f;     // > 0
  const std::int32_t* seen = nullptr;  // distinct ids of the prompt and the tokens so far
  std::int64_t seen_count = 0;
  const std::int32_t* bias_ids = nullptr;  // distinct
  const float* bias_values = nullptr;      // finite
  std::int64_t bias_count = 0;
  const std::uint64_t* allowed = nullptr;  // bit j % 64 of word j / 64; nullptr: all ids
};

struct HeadDraw {
  std::int32_t token = -1;      // -1: nothing to draw from, or logits that are not finite
  float logprob = 0;            // of the full distribution, before penalty, bias and filters:
                                // HeadLogProb's bits; NaN when token is -1
  float kept_mass_logprob = 0;  // what logprob less this is the token's log-probability under
                                // the distribution drawn from; see HeadSupport
};

// Draws from one row. logits [valid_vocab] and blocks [HeadBlockCount(valid_vocab)]: the row's, as
// HeadScan with the same temperature left them. uniform in [0, 1). kept: nullptr, or
// [ceil(valid_vocab / 64)] words that receive the kept ids, one bit each.
// Ids of `seen` and of the bias list outside [0, valid_vocab) are passed over.
HeadDraw HeadSampleFiltered(std::int64_t valid_vocab, const float* logits, const HeadBlock* blocks,
                            const HeadFilter& filter, double uniform, std::uint64_t* kept);

// The distribution a row is drawn from, given its filter (temperature above 0): p(id) =
// exp(s - lse) over the ids whose s is at least `least`, with s as above, and over `target`, which
// is always among them: where the filters drop it, the others make room for it.
struct HeadSupport {
  // Of the target: its log-probability under the full distribution less that under this one. Where
  // ids are only left out (mask, top-k, top-p, min-p), log of the mass that the full distribution
  // gives those that are kept, at most 0. A penalty or a bias moves mass too: any sign then.
  float kept_mass_logprob = 0;
  float lse = 0;
  float least = 0;
  bool holds_target = false;  // the filters keep it
};

// The support of one row. logits, blocks: as above. logprob: of the target, HeadLogProb's. Where
// the filters keep the target, kept_mass_logprob has the bits of the draw that gave it. With logits
// that are not finite, NaN, and no id but the target.
HeadSupport HeadFindSupport(std::int64_t valid_vocab, const float* logits, const HeadBlock* blocks,
                            const HeadFilter& filter, std::int32_t target, float logprob);

// The n likeliest ids of one row (n in [1, valid_vocab]) with their log-probabilities
// (HeadLogProb's bits), the likeliest first, the lower id first on ties. logits, blocks: as above.
void HeadTopLogProbs(std::int64_t valid_vocab, const float* logits, const HeadBlock* blocks,
                     float temperature, std::int64_t n, std::int32_t* ids, float* logprobs);

}  // namespace thresher::kernels
