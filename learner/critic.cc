#include "learner/critic.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/model/forward.h"
#include "learner/gather.h"
#include "learner/objective_config.h"
#include "learner/value.h"

namespace thresher::learner {
namespace {

std::size_t HeadSize(const model::ModelConfig& config) {
  return static_cast<std::size_t>(config.width) + 1;
}

// A sequence's loss tokens, in order, as the estimators see them.
struct LossTokens {
  std::vector<std::size_t> row;
  std::vector<double> reward, value, log_ratio;
};

LossTokens LossTokensOf(const TrainSequence& sequence) {
  LossTokens out;
  const SequenceValues& values = sequence.values;
  for (std::size_t i = 0; i < sequence.in_loss.size(); ++i) {
    if (!sequence.in_loss[i]) continue;
    out.row.push_back(i);
    out.value.push_back(static_cast<double>(values.value[i]));
    if (values.logprob.empty()) continue;
    out.log_ratio.push_back(static_cast<double>(values.logprob[i]) -
                            static_cast<double>(sequence.behaviour_logprob[i]));
  }
  out.reward.assign(out.row.size(), 0.0);
  if (!out.reward.empty()) out.reward.back() = sequence.reward;
  for (const StepReward& step : sequence.step_rewards) {
    const auto at = std::ranges::lower_bound(out.row, step.row);
    if (at != out.row.end())
      out.reward[static_cast<std::size_t>(at - out.row.begin())] += step.value;
  }
  for (std::size_t k = 0; k < out.row.size() && !values.penalty.empty(); ++k) {
    out.reward[k] -= values.penalty[out.row[k]];
  }
  return out;
}

TokenGains GainsOf(Estimator estimator, const LossTokens& tokens,
                   const ObjectiveConfig& objective) {
  if (estimator == Estimator::kGae) {
    return GeneralisedAdvantages(tokens.reward, tokens.value, objective.gamma,
                                 objective.gae_lambda);
  }
  return VTrace(tokens.reward, tokens.value, tokens.log_ratio,
                {objective.gamma, objective.rho_bar, objective.c_bar});
}

// Back to the sequence's rows; those outside the loss get 0.
std::vector<double> Scattered(const LossTokens& tokens, const std::vector<double>& of,
                              std::size_t rows) {
  std::vector<double> out(rows, 0.0);
  for (std::size_t k = 0; k < of.size(); ++k) out[tokens.row[k]] = of[k];
  return out;
}

// What each sequence of every rank adds, one after another in canonical order.
template <typename T>
Result<T> AddInOrder(comm::Communicator& comm, const std::vector<T>& mine, const char* operation) {
  BlobWriter writer;
  for (const T& part : mine) writer.Put(part);
  THRESHER_ASSIGN_OR_RETURN(const auto blobs, GatherBlobs(comm, writer.Take(), operation));
  T sum;
  for (const std::string& blob : blobs) {
    for (BlobReader reader(blob); !reader.done();) sum.Add(reader.Get<T>());
  }
  return sum;
}

// A rank's sequences while the batch's advantages are made.
struct Evaluated {
  TrainSequence* sequence;
  LossTokens tokens;
  TokenGains gains;
};

// What the metrics say of advantages, once they are what is learned from.
struct Sizes {
  double advantage = 0;
  void Add(const Sizes& other) { advantage += other.advantage; }
};

}  // namespace

Critic::Critic(const CriticOptions& options, WorkerPool& workers,
               std::unique_ptr<model::TrainingPass> device)
    : options_(options),
      estimator_(EstimatorOf(options.objective)),
      workers_(workers),
      trunk_size_(options.kind == CriticKind::kOwn ? model::ParameterCount(options.model) : 0),
      pool_((trunk_size_ > 0 ? model::GradientSize(options.model) : 0) + HeadSize(options.model)),
      on_device_(device != nullptr),
      adamw_(options.adamw, CriticParameters(options.kind, options.model)) {
  if (on_device_) computers_.emplace_back(std::move(device));
  while (!on_device_ && computers_.size() < static_cast<std::size_t>(workers.threads())) {
    computers_.emplace_back(model::MakeCpuTrainingPass(options.model));
  }
}

void Critic::Start(std::span<const float> policy) {
  CriticState state;
  if (trunk_size_ > 0) {
    THRESHER_CHECK(policy.size() == trunk_size_, "weights of another model");
    state.weights.assign(policy.begin(), policy.end());
  }
  state.weights.resize(CriticParameterCount(options_.kind, options_.model), 0.0f);
  state.optimizer = AdamW::Fresh(state.weights.size());
  Restore(std::move(state));
}

void Critic::Restore(CriticState state) {
  THRESHER_CHECK(state.weights.size() == CriticParameterCount(options_.kind, options_.model),
                 "a critic of another model");
  weights_ = std::move(state.weights);
  adamw_.Restore(std::move(state.optimizer));
  own_.reset();
}

void Critic::Copy(CriticState& state) const {
  state.weights = weights_;
  state.optimizer = adamw_.state();
}

CriticState Critic::Lend() {
  THRESHER_CHECK(!tree_ && sum_.empty(), "a critic lent within a step");
  return {std::move(weights_), adamw_.Lend()};
}

std::span<const float> Critic::trunk() const { return std::span(weights_).first(trunk_size_); }

ValueTerm Critic::Term() {
  THRESHER_CHECK(started(), "a critic before its phase");
  ValueTerm term;
  term.head = std::span(weights_).last(HeadSize(options_.model));
  term.clip = options_.objective.value_clip;
  const bool own = trunk_size_ > 0;
  term.trunk = own ? 1.0f : static_cast<float>(options_.objective.value_coefficient);
  term.pool = &pool_;
  return term;
}

std::shared_ptr<const model::PackedModel> Critic::Packed(std::span<const float> weights,
                                                         bool with_backward) const {
  return model::PackedModel::Make(options_.model, weights, options_.valid_vocab, with_backward);
}

const std::shared_ptr<const model::PackedModel>& Critic::Own() {
  if (own_ == nullptr) own_ = Packed(trunk(), computers_[0].NeedsTransposes());
  return own_;
}

Status Critic::ForLeaves(std::size_t count,
                         const std::function<Status(LeafComputer&, std::size_t)>& step) {
  for (std::size_t leaf = 0; on_device_ && leaf < count; ++leaf) {
    // A pass that has failed within a leaf begins no other.
    THRESHER_RETURN_IF_ERROR(step(computers_[0], leaf));
  }
  if (on_device_) return Status::Ok();
  std::vector<Status> done(count);
  workers_.Run(std::ssize(done), [&](int worker, std::int64_t leaf) {
    const auto index = static_cast<std::size_t>(leaf);
    done[index] = step(computers_[static_cast<std::size_t>(worker)], index);
  });
  for (const Status& status : done) THRESHER_RETURN_IF_ERROR(status);
  return Status::Ok();
}

Status Critic::EvaluateLeaves(std::span<const float> policy, std::span<LeafWork* const> leaves) {
  const bool own = trunk_size_ > 0, trace = estimator_ == Estimator::kVTrace;
  std::shared_ptr<const model::PackedModel> of_policy, values;
  if (trace) of_policy = Packed(policy, false);
  if (own) {
    values = Own();
  } else if (on_device_ || !trace) {
    // Else the hidden states of the log-probabilities will do. A device reads a leaf's model with
    // what its backward pass needs.
    values = Packed(policy, on_device_ && computers_[0].NeedsTransposes());
  }
  const ValueTerm term = Term();
  return ForLeaves(leaves.size(), [&](LeafComputer& computer, std::size_t leaf) {
    return computer.Evaluate(values, of_policy, term, options_.leaf, *leaves[leaf]);
  });
}

Status Critic::Evaluate(comm::Communicator& comm, std::span<const float> policy, StepBatch& batch) {
  const std::vector<LeafWork*> leaves = OwnLeaves(batch);
  THRESHER_RETURN_IF_ERROR(EvaluateLeaves(policy, leaves));
  std::vector<Evaluated> mine;
  std::vector<GainSums> sums;
  for (LeafWork* leaf : leaves) {
    for (TrainSequence& sequence : leaf->sequences) {
      Evaluated& e = mine.emplace_back(Evaluated{&sequence, LossTokensOf(sequence), {}});
      e.gains = GainsOf(estimator_, e.tokens, options_.objective);
      sums.push_back(SumsOf(e.gains, e.tokens.value));
    }
  }
  THRESHER_ASSIGN_OR_RETURN(const GainSums total, AddInOrder(comm, sums, "values"));
  std::vector<GainSquares> squares;
  for (const Evaluated& e : mine) squares.push_back(SquaresOf(e.gains, e.tokens.value, total));
  THRESHER_ASSIGN_OR_RETURN(const GainSquares spread, AddInOrder(comm, squares, "their spread"));
  std::vector<Sizes> sizes;
  for (Evaluated& e : mine) {
    Sizes& size = sizes.emplace_back();
    for (double& advantage : e.gains.advantage) {
      if (estimator_ == Estimator::kGae) advantage = Whitened(advantage, total, spread);
      size.advantage += std::abs(advantage);
    }
    const std::size_t rows = e.sequence->in_loss.size();
    e.sequence->values.advantage = Scattered(e.tokens, e.gains.advantage, rows);
    e.sequence->values.target = Scattered(e.tokens, e.gains.target, rows);
  }
  THRESHER_ASSIGN_OR_RETURN(const Sizes size, AddInOrder(comm, sizes, "advantages"));
  if (total.tokens == 0) return Status::Ok();
  batch.metrics["advantage_size"] = total.Mean(size.advantage);
  batch.metrics["value_mean"] = total.Mean(total.value);
  batch.metrics["return_mean"] = total.Mean(total.target);
  batch.metrics["explained_variance"] = ExplainedVariance(spread);
  return Status::Ok();
}

const ValueTerm* Critic::Begin(std::size_t leaves) {
  THRESHER_CHECK(!tree_ && sum_.empty(), "a step of the critic within a step");
  tree_.emplace(leaves, pool_);
  term_ = Term();
  term_.sum = &*tree_;
  return trunk_size_ > 0 ? nullptr : &term_;
}

Status Critic::Compute(std::span<const LeafWork> leaves, const ObjectiveSpec& spec,
                       LeafStats& stats) {
  THRESHER_CHECK(tree_.has_value(), "a gradient outside a step");
  if (trunk_size_ == 0) {
    sum_ = tree_->TakeRoot();
    tree_.reset();
    return Status::Ok();
  }
  const std::size_t flat = model::GradientSize(options_.model);
  const auto model = Own();
  std::vector<LeafStats> leaf_stats(leaves.size());
  THRESHER_RETURN_IF_ERROR(
      ForLeaves(leaves.size(), [&](LeafComputer& computer, std::size_t leaf) -> Status {
        std::vector<float> all = pool_.Take();
        const auto of_trunk = std::span(all).first(flat);
        THRESHER_ASSIGN_OR_RETURN(
            leaf_stats[leaf],
            computer.ComputeValues(model, leaves[leaf], spec, term_, options_.leaf, of_trunk,
                                   std::span(all).subspan(flat)));
        model::FoldTiedGradient(options_.model, of_trunk);
        tree_->Add(leaf, std::move(all));
        return Status::Ok();
      }));
  sum_ = tree_->TakeRoot();
  tree_.reset();
  // A tied model's gradient has a part behind its parameters, which is folded.
  std::copy(sum_.begin() + static_cast<std::ptrdiff_t>(flat), sum_.end(),
            sum_.begin() + static_cast<std::ptrdiff_t>(trunk_size_));
  for (const LeafStats& leaf : leaf_stats) stats.Add(leaf);
  return Status::Ok();
}

std::span<float> Critic::gradient() {
  THRESHER_CHECK(sum_.size() >= weights_.size() && !sum_.empty(), "no gradient of the critic");
  return std::span(sum_).first(weights_.size());
}

Status Critic::AddRanks(comm::Communicator& comm) {
  return comm::TreeAllReduce(comm, gradient(), "gradient of the critic");
}

double Critic::Norm() { return BlockedNorm(gradient(), &workers_); }

void Critic::Step(double gradient_scale) {
  adamw_.Step(weights_, gradient(), options_.objective.critic_learning_rate, gradient_scale,
              &workers_);
  own_.reset();
  Skip();
}

void Critic::Skip() { pool_.Give(std::exchange(sum_, {})); }

}  // namespace thresher::learner
