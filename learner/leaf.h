#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "common/data/trajectory.h"
#include "common/model/training_pass.h"
#include "learner/gradient.h"
#include "learner/objective.h"
#include "learner/step_rewards.h"

namespace thresher::learner {

// What is said of a sequence's rows before the batch's first step, by a critic and by the reference
// policy, and what policy and critic learn from that, or from rewards of steps; of use where the
// target is in the loss. Empty where nobody asks.
struct SequenceValues {
  std::vector<float> value;
  std::vector<float> logprob;  // the policy's, where V-trace asks for it
  std::vector<double> advantage, target;
  // Where there is a penalty in the reward: the reference policy's log-probabilities, and what is
  // taken off each row's reward.
  std::vector<float> reference;
  std::vector<double> penalty;
};

// One trajectory prepared for training. tokens[0 .. n-1) are inputs, tokens[1 .. n) targets: row
// i of the sequence predicts token i + 1.
struct TrainSequence {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> in_loss;        // per row: its target lies in a segment with in_loss
  std::vector<float> behaviour_logprob;     // per row; meaningful where has_behaviour
  std::vector<std::uint8_t> has_behaviour;  // per row: its target is a policy token with a logprob
  std::vector<float> kept_mass;             // per row, as behaviour_logprob; 0 where nothing is cut
  float temperature = 1.0f;
  model::RowFilter filter{};             // of the rows that have a behaviour logprob
  double advantage = 0;                  // of every token; unused where `values` has one of each
  double reward = 0;                     // which the last token brings; with a critic alone
  std::vector<StepReward> step_rewards;  // which others bring; with a critic alone
  SequenceValues values;
  // The policy's own log-probabilities in the batch's first pass, per row: written by that pass,
  // read by those after it. Null: one pass, or none of them is needed.
  std::shared_ptr<std::vector<float>> old{};
  std::uint32_t actor = 0;
  TrajectoryId id;
};
TrainSequence PrepareSequence(const Trajectory& trajectory, double advantage);

// The sequences of one gradient leaf in canonical order, cut into micro-batches of whole sequences
// of at most `max_tokens` rows (a longer sequence stands alone).
struct LeafWork {
  std::vector<TrainSequence> sequences;
  std::vector<TrainSequence> examples{};  // of a supervised loss beside the policy's; come last
};
struct MicroBatch {
  std::size_t begin = 0;  // sequences [begin, end)
  std::size_t end = 0;
  std::size_t rows = 0;
};
std::vector<MicroBatch> CutMicroBatches(const std::vector<TrainSequence>& sequences,
                                        std::size_t max_tokens);

// Sums over a leaf; add up over leaves (statistics only, never gradients).
struct LeafStats : ObjectiveStats {
  double value_loss = 0;     // of a critic: what it minimises
  double value_clipped = 0;  // tokens whose gradient its bound cut off
  std::uint64_t rows = 0;
  double example_logprob = 0;  // sum over the examples' loss tokens
  std::uint64_t example_tokens = 0;
  double kept_mass = 0;        // sum of it over loss tokens; 1 each without OverSupports
  double outside_support = 0;  // of them, those that the policy's own filters would drop
  std::uint64_t audited_tokens = 0;
  std::uint64_t mismatched_tokens = 0;
  std::map<std::uint32_t, std::uint64_t> mismatches_by_actor;

  void Add(const LeafStats& other);
};

// A critic's head on the hidden states of a leaf, and its loss: the mean over the tokens that are
// optimised at once of ValueLossOf (learner/value.h).
struct ValueTerm {
  std::span<const float> head;  // [D + 1]
  double clip = 0;
  float trunk = 1;  // what of its gradient counts below the head
  // Where the heads' gradients of a step's leaves come from and go to.
  BufferPool* pool = nullptr;
  GradientTree* sum = nullptr;
};

// How a leaf is computed. No bit of its gradient depends on it.
struct LeafOptions {
  std::size_t micro_batch_tokens = 2048;
  bool audit = false;      // recorded and recomputed logprobs and kept masses: bit for bit
  bool recompute = false;  // the backward pass computes activations again, layer by layer
  const ValueTerm* value = nullptr;  // of a critic that shares the policy's trunk
};

// Computes one leaf: the engine's forward, the objective, the backward pass into `gradient`
// (GradientSize floats, zeroed by the caller). Each weight-gradient element is one chain over the
// leaf's tokens in order. Where the kernel set rounds a product's input to bf16, the gradient
// passes the rounding as if it were not there. `reference` may be null (no KL penalty).
// head_gradient: [D + 1], added to, with options.value. on_final: of the leaf's last backward pass
// (TrainingPass::TellFinal), before a tied gradient is folded. One instance per thread. Errors: the
// pass's; no leaf can be computed then.
class LeafComputer {
 public:
  explicit LeafComputer(std::unique_ptr<model::TrainingPass> pass);
  // The examples' part of the loss is spec.OfExamples(); no critic looks at them.
  Result<LeafStats> Compute(std::shared_ptr<const model::PackedModel> policy,
                            std::shared_ptr<const model::PackedModel> reference,
                            const LeafWork& work, const ObjectiveSpec& spec,
                            const LeafOptions& options, std::span<float> gradient,
                            std::span<float> head_gradient = {},
                            const model::OnFinal& on_final = {});

  // Log-probabilities of each sequence's rows under a policy, at the temperature it was drawn with
  // or, of supervised ones, 1, without a gradient; of a pass of the CPU.
  Result<std::vector<std::vector<float>>> LogProbs(
      std::shared_ptr<const model::PackedModel> policy, const LeafOptions& options,
      const LeafWork& work, ObjectiveSpec::Kind kind = ObjectiveSpec::Kind::kPolicyGradient);
  // Of a critic, which needs a pass of the CPU. Fills value, and logprob where there is a `policy`,
  // of the sequences' values: of the critic's hidden states, or with none of the policy's.
  Status Evaluate(std::shared_ptr<const model::PackedModel> critic,
                  std::shared_ptr<const model::PackedModel> policy, const ValueTerm& term,
                  const LeafOptions& options, LeafWork& work);
  // The value loss of a leaf and its gradient, of a critic with a trunk of its own. gradient and
  // head_gradient: as of Compute.
  Result<LeafStats> ComputeValues(std::shared_ptr<const model::PackedModel> critic,
                                  const LeafWork& work, const ObjectiveSpec& spec,
                                  const ValueTerm& term, const LeafOptions& options,
                                  std::span<float> gradient, std::span<float> head_gradient);

  void Need(const model::GradientNeeds& needs) { pass_->Need(needs); }
  void Release() { pass_->Release(); }
  bool NeedsTransposes() const { return pass_->NeedsTransposes(); }

 private:
  Status AddExamples(const std::vector<TrainSequence>& examples, const ObjectiveSpec& spec,
                     const LeafOptions& options, LeafStats& stats, const model::OnFinal& on_final);

  std::unique_ptr<model::TrainingPass> pass_;
};

}  // namespace thresher::learner
