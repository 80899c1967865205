#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/model/forward.h"

namespace thresher::model {

// How a row's target was drawn, beside its temperature; RowSampling has the meaning. What was seen
// before it are the tokens of its sequence up to its own.
struct RowFilter {
  std::uint32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
};

// Rows of whole sequences, one after another, each from position 0: row t predicts target[t].
struct TrainRows {
  std::vector<std::int32_t> token;     // [T]
  std::vector<std::int32_t> position;  // [T]
  std::vector<std::int32_t> target;    // [T], valid ids
  std::vector<float> temperature;      // [T]
  // [T], or empty: the supports are not asked for. Only of a pass that FindsSupports.
  std::vector<RowFilter> filter{};
  bool within_support = false;  // Backward's logprob is that under the distribution drawn from
  std::size_t size() const { return token.size(); }
};

// The gradient of sum_t dvalue[t] value[t] of a critic's head (Values).
struct ValueGradient {
  std::span<const float> head;    // [D + 1]: weights, bias
  std::span<const float> dvalue;  // [T]
  float trunk = 1;                // what counts of it in the hidden states
  std::span<float> dhead;         // [D + 1]: the head's own is added here, whatever `trunk` is
};

// The model function and its gradient as the learner calls them: for a leaf's micro-batches, one
// after another, LogProbs and then Backward. The gradient adds up over a leaf: each of its elements
// is one chain over the leaf's rows in order. Bits: those of forward.h, wherever it is computed.
// One owner, not thread-safe. Calls in another order end the process.
class TrainingPass {
 public:
  virtual ~TrainingPass() = default;

  // Begins a leaf under these weights. gradient: GradientSize floats, zeros; it holds the leaf's
  // gradient when EndLeaf has returned, until when both live. Of a pass that was made with
  // ResidentParameters `policy` is null and `gradient` empty: the leaf runs under those, and its
  // gradient is added to their sum. Else an empty `gradient` is a leaf that none is taken of.
  // Errors, here and below: the device's.
  virtual Status BeginLeaf(std::shared_ptr<const PackedModel> policy,
                           std::span<float> gradient) = 0;
  // Log-probabilities of the targets under other weights, without a gradient.
  virtual Result<std::vector<float>> ReferenceLogProbs(std::shared_ptr<const PackedModel> reference,
                                                       const TrainRows& rows) = 0;
  // The same under the policy's; keeps what Backward needs. recompute: as little of it as can be
  // (TapeKind::kLayerInputs).
  virtual Result<LogProbResult> LogProbs(const TrainRows& rows, bool recompute) = 0;
  // The gradient of sum_t dlogprob[t] logprob[t] + dentropy[t] entropy[t] for the rows of the last
  // LogProbs. dentropy: [T], or empty: no entropy term; with within_support empty.
  virtual Status Backward(std::span<const float> dlogprob, std::span<const float> dentropy) = 0;

  // Which weight gradients are used of all leaves from here on. A pass may take the others too.
  virtual void Need(const GradientNeeds&) {}

  // Whom the next Backward, the last of its leaf, tells as it goes from where on the gradient's
  // parameters are final (OnFinal). A pass that cannot say so tells nobody.
  virtual void TellFinal(OnFinal) {}

  // For a critic. A pass that has none of it refuses (kFailedPrecondition).
  // The hidden states of the rows under the leaf's model, without log-probabilities; with what
  // Backward needs, or nothing of it.
  virtual Status Hidden(const TrainRows& rows, std::optional<TapeKind> tape);
  // What a head says of the hidden states of the last Hidden, LogProbs or ReferenceLogProbs:
  // head[0, D) . hidden + head[D] (kernels/cpu/value_head.h). [T].
  virtual Result<std::vector<float>> Values(std::span<const float> head);
  // Adds the head's own gradient at once, that of the hidden states with the Backward that follows
  // (after Hidden: with an empty dlogprob).
  virtual Status ValueBackward(const ValueGradient& gradient);

  virtual Status EndLeaf() = 0;
  // Gives back the memory that can be taken again, for others that share the device; the next
  // BeginLeaf takes it back. Not within a leaf.
  virtual void Release() {}
  // Whether it takes rows with filters.
  virtual bool FindsSupports() const { return false; }
  // Whether policies have to be packed with a backward pass.
  virtual bool NeedsTransposes() const { return true; }
};

// Logits that a pass of the CPU, of which each worker has one, keeps from LogProbs for its Backward
// at most, so that there is never a [T, V] of them however large the micro-batch is. Those beyond are
// computed twice.
inline constexpr std::size_t kMostKeptLogitBytes = std::size_t{128} << 20;

// On the calling thread.
std::unique_ptr<TrainingPass> MakeCpuTrainingPass(const ModelConfig& config);

}  // namespace thresher::model
