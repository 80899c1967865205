#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/model/buffer.h"
#include "common/model/model_config.h"
#include "common/model/zero_pages.h"
#include "kernels/cpu/head_filter.h"

namespace thresher {
class WorkerPool;
}

namespace thresher::model {

// Weights ready for the kernels. Immutable once made and shared by threads. Packing costs one pass
// over the weights, which are rounded to config.dtype (to nearest even; exact when they come from
// that type); `with_backward` packs the transposes as well. `valid_vocab` is the tokenizer's size:
// ids from there to config.vocab are excluded on both sides (0: all are valid). A
// configuration that does not validate, weights of another size and a valid_vocab out of range end
// the process: the caller has checked them. `spare`: a model of no more use, whose memory serves
// again if nobody else has it and it is as large; fresh memory costs its page faults. From a
// folder: LoadPackedModel in model_folder.h.
class PackedModel {
 public:
  static std::shared_ptr<const PackedModel> Make(const ModelConfig& config,
                                                 std::span<const float> flat,
                                                 std::int32_t valid_vocab, bool with_backward,
                                                 std::shared_ptr<const PackedModel> spare = {});
  virtual ~PackedModel() = default;
  virtual const ModelConfig& config() const = 0;
  virtual kernels::WeightType weight_type() const = 0;  // of the packed matrices
  virtual std::size_t packed_bytes() const = 0;         // of all weights
  virtual std::int32_t valid_vocab() const = 0;         // ids below it can be drawn
};

// Paged KV storage for all layers: `pages` pages of 16 positions, which take memory once they have
// been written. Page ids are handed out by the caller (actor/engine has the allocator; the learner
// counts up). The layout of a page is kernels/cpu/attention.h's. Room that the system does not give
// ends the process. Not thread-safe.
class KvCache {
 public:
  KvCache(const ModelConfig& config, std::int32_t pages);
  std::int32_t pages() const { return pages_; }
  float* layer_keys(int layer);
  float* layer_values(int layer);
  std::size_t page_stride_floats() const;  // within one layer

 private:
  ModelConfig config_;
  std::int32_t pages_;
  ZeroPages keys_, values_;
};

// T packed rows; row t is token `token[t]` at position `position[t]` of the sequence whose page
// table is `page_table[t]` (entries for pages 0 .. position/16). Rows of one sequence stand in
// ascending position, contiguous positions within the call.
struct RowBatch {
  std::vector<std::int32_t> token;
  std::vector<std::int32_t> position;
  std::vector<const std::int32_t*> page_table;
  std::int32_t rows() const { return static_cast<std::int32_t>(token.size()); }
};

// What a tape keeps of each layer for the backward pass: all that it reads, or the layer's input
// alone, from which Backward computes the rest again, layer by layer: a third more arithmetic for a
// fraction of the memory. No bit of a gradient depends on it.
enum class TapeKind { kAllActivations, kLayerInputs };

// Activations kept for the backward pass; filled by Forward when given. It refers to the KvCache of
// that Forward, which must live, with its rows' entries, until the backward pass has run.
struct Tape;
struct TapeDeleter {
  void operator()(Tape*) const;
};
using TapePtr = std::unique_ptr<Tape, TapeDeleter>;
TapePtr NewTape(TapeKind kind = TapeKind::kAllActivations);
// What it holds of the last Forward's rows.
std::size_t TapeBytes(const Tape& tape);

// Scratch of one caller, grown on demand and reused. What is called with it divides its work over
// `pool` (borrowed; null: the calling thread does it all) in parts of at least `part_cost`
// multiply-adds: 2 us of an AVX-512 core, about what it takes a spinning thread to notice. No bit
// depends on either.
struct Workspace;
struct WorkspaceDeleter {
  void operator()(Workspace*) const;
};
using WorkspacePtr = std::unique_ptr<Workspace, WorkspaceDeleter>;
WorkspacePtr NewWorkspace(WorkerPool* pool = nullptr, double part_cost = 1e5);

// The one model function: prefill, decode and training. Writes the rows' keys and values to
// `cache`, reads those of earlier positions from it, and returns the final-norm hidden states [T,
// D] in `hidden`. Tokens beyond the vocabulary and positions beyond the context end the process.
// Row-pure: hidden[t] depends on the weights and the tokens of its own sequence up to its position.
void Forward(const PackedModel& model, const RowBatch& rows, KvCache& cache, Workspace& workspace,
             std::span<float> hidden, Tape* tape = nullptr);

// Floats a gradient buffer holds: ParameterCount, and [V, D] more when the embedding is tied: the
// head's contribution has a chain of its own, so that no cut into micro-batches changes a bit.
std::size_t GradientSize(const ModelConfig& config);
// Adds the tail of a tied model's gradient to its embedding part. Once per leaf, at its end.
void FoldTiedGradient(const ModelConfig& config, std::span<float> gradient);

// Of one layer: whether these matrices' gradients are used, and whether any of the layer's is.
struct LayerNeeds {
  bool qkv = true, o = true, gate_up = true, down = true, any = true;
};
// Which weight gradients are used of a backward pass, which then need not take the others: what it
// leaves in their places is no gradient. The default: all.
struct GradientNeeds {
  bool embedding = true, head = true;
  std::vector<LayerNeeds> layers{};  // empty: all
  LayerNeeds layer(int index) const {
    return layers.empty() ? LayerNeeds{} : layers[static_cast<std::size_t>(index)];
  }
};

// Gradient of Forward for rows that are whole sequences from position 0 (as packed for training):
// adds to `gradient` (GradientSize floats) the contribution of `dhidden` [T, D]. Each
// weight-gradient element continues one chain over the rows in order. The head is not part of it
// (LogProbBackward). on_final, if any, is told, on this thread, from where on the elements of
// parameters get nothing more of this call, descending: from the last layer to the first.
using OnFinal = std::function<void(std::size_t from)>;
void Backward(const PackedModel& model, const RowBatch& rows, Tape& tape,
              std::span<const float> dhidden, Workspace& workspace, std::span<float> gradient,
              const GradientNeeds& needs = {}, const OnFinal& on_final = {});

// How one row is sampled. The neutral values leave a step out; the definition of every step and
// their order stand in kernels/cpu/head_filter.h. Spans are borrowed.
struct RowSampling {
  float temperature = 1.0f;  // >= 0; 0 takes the greatest logit (lowest id on ties)
  double uniform = 0.5;      // in [0, 1)
  std::uint32_t top_k = 0;
  float top_p = 1.0f;                      // in (0, 1]
  float min_p = 0.0f;                      // in [0, 1]
  float repetition_penalty = 1.0f;         // > 0; for the distinct ids of `seen`
  std::span<const std::int32_t> seen;      // ids of the prompt and the tokens so far
  std::span<const std::int32_t> bias_ids;  // distinct
  std::span<const float> bias_values;      // finite, one per id
  std::span<const std::uint64_t> allowed;  // ceil(vocab / 64) words, one bit an id; empty: all
  std::int32_t top_n = 0;                  // how many of the likeliest ids are wanted

  // Whether a step other than the temperature applies.
  bool Filtered() const {
    return top_k > 0 || top_p < 1.0f || min_p > 0.0f || repetition_penalty != 1.0f ||
           !bias_ids.empty() || !allowed.empty();
  }
};

// log-softmax(logits / temperature)[target] over valid ids for rows of hidden states. [T] each.
struct LogProbResult {
  std::vector<float> logprob;
  std::vector<float> lse;      // log-sum-exp of logits / temperature
  std::vector<float> entropy;  // nats
  // Of the distribution each target was drawn from; empty unless asked for.
  std::vector<kernels::HeadSupport> support;
};
// Logits that LogProb leaves for the LogProbBackward of the same rows: of the first ones, as many
// as have room; the others' are computed again. No bit depends on it.
struct KeptLogits {
  std::size_t most_bytes = 0;
  AlignedFloats logits{};      // [rows that are kept, valid_vocab]
  std::vector<float*> rows{};  // [T], or null
};
// What of them there is of so many rows, bytes.
std::size_t KeptLogitBytes(std::size_t most_bytes, std::size_t rows, std::int64_t valid_vocab);

// drawn: [T], or empty: how the targets were drawn, whose supports are wanted then. Of a row
// without filters (RowSampling::Filtered) that is the full distribution. Rows without filters hold
// no logits but those that go to `keep`.
LogProbResult LogProb(const PackedModel& model, std::span<const float> hidden,
                      std::span<const std::int32_t> target, std::span<const float> temperature,
                      Workspace& workspace, std::span<const RowSampling> drawn = {},
                      KeptLogits* keep = nullptr);

struct TokenLogProb {
  std::int32_t token = 0;
  float logprob = 0;
  friend bool operator==(const TokenLogProb&, const TokenLogProb&) = default;
};

// What was drawn for one row. Log-probabilities are of the full distribution,
// log-softmax(logits / temperature) over valid ids: LogProb's bits for the same row and token,
// whatever filters applied.
struct RowSample {
  std::int32_t token = -1;      // -1: nothing to draw from (no id is allowed, or no finite logits)
  float logprob = 0;            // NaN when the logits are not finite
  float kept_mass_logprob = 0;  // of the filters: HeadSupport's; 0 without
  std::vector<TokenLogProb> top;  // the top_n likeliest ids, the likeliest first
};

// Draws one token per row by inverting the CDF in ascending token id at its uniform number: over
// all valid ids, or over those that the row's filters keep. Rows without filters hold no logits.
std::vector<RowSample> Sample(const PackedModel& model, std::span<const float> hidden,
                              std::span<const RowSampling> rows, Workspace& workspace);
// The same for rows without filters.
void Sample(const PackedModel& model, std::span<const float> hidden,
            std::span<const float> temperature, std::span<const double> uniform,
            Workspace& workspace, std::span<std::int32_t> token, std::span<float> logprob);
// Plain logits [T, valid_vocab] of few rows, for tools and parity checks. The bits LogProb works
// on.
std::vector<float> Logits(const PackedModel& model, std::span<const float> hidden);
// The gradient of sum_t dlogprob[t] logprob[t] + dentropy[t] entropy[t] -> dhidden [T, D] (written)
// and head gradient (added, token order). result: LogProb's for the same rows, of which lse is read
// and, with dentropy, entropy. dentropy: [T], or empty: no entropy term. A row whose two
// coefficients are 0 adds nothing. drawn: as LogProb had it, or empty; if given, logprob[t] is the
// log-probability under the distribution drawn from, over result.support, and there is no entropy
// term. needs_head false: the head's gradient is left out. kept: what LogProb left for it, or null.
void LogProbBackward(const PackedModel& model, std::span<const float> hidden,
                     std::span<const std::int32_t> target, std::span<const float> temperature,
                     const LogProbResult& result, std::span<const float> dlogprob,
                     std::span<const float> dentropy, Workspace& workspace,
                     std::span<float> dhidden, std::span<float> gradient,
                     std::span<const RowSampling> drawn = {}, bool needs_head = true,
                     const KeptLogits* kept = nullptr);

}  // namespace thresher::model
