#include "learner/trainer.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/examples/source.h"
#include "common/log/log.h"
#include "common/model/weights.h"
#include "common/wire/records.h"
#include "kernels/cpu/fpenv.h"
#include "learner/gather.h"
#include "learner/objective_config.h"
#include "learner/schedule.h"

namespace thresher::learner {
namespace {

double MillisecondsSince(TimePoint start) {
  return std::chrono::duration<double, std::milli>(SystemClock().Now() - start).count();
}

OptimizerOptions OptionsOf(const model::RunContext& run, comm::Communicator& comm) {
  OptimizerOptions options;
  options.model = run.model;
  options.adamw = run.config.optimizer;
  options.valid_vocab = run.tokenizer->vocab();
  options.leaves = static_cast<std::size_t>(run.config.learner.grad_leaves) /
                   static_cast<std::size_t>(run.config.learner.ranks);
  options.shared = run.config.engine.colocated;
  options.trained = run.trained;
  options.seed = run.config.run.seed;
  options.comm = &comm;
  options.zero = run.config.learner.zero == 1;
  options.overlap = run.config.learner.overlap;
  options.bucket_bytes = run.config.learner.bucket_bytes;
  const CheckpointConfig& checkpoint = run.config.checkpoint;
  options.double_buffer =
      comm.rank().value == 0 && checkpoint.background && checkpoint.double_buffer;
  return options;
}

std::unique_ptr<Critic> MakeCritic(const model::RunContext& run, WorkerPool& workers,
                                   std::unique_ptr<model::TrainingPass> device) {
  const auto kind = CriticKindOf(run.config.objective);
  if (!kind || run.config.rl.steps == 0) return nullptr;
  CriticOptions options;
  options.kind = *kind;
  options.model = run.model;
  options.adamw = run.config.optimizer;
  options.objective = run.config.objective;
  options.valid_vocab = run.tokenizer->vocab();
  options.leaf.micro_batch_tokens = static_cast<std::size_t>(run.config.learner.micro_batch_tokens);
  options.leaf.recompute = run.config.learner.recompute_activations;
  return std::make_unique<Critic>(options, workers, std::move(device));
}

// What ranks tell each other of their leaves, in order.
template <typename Visit>
void ForEachNumber(LeafStats& s, Visit visit) {
  for (double* v :
       {&s.loss,      &s.logprob,       &s.entropy,       &s.k1,           &s.k2,
        &s.k3,        &s.reference_kl,  &s.clipped_low,   &s.clipped_high, &s.ratio,
        &s.weight,    &s.weight_square, &s.correction,    &s.corrected,    &s.ratio_min,
        &s.ratio_max, &s.value_loss,    &s.value_clipped, &s.kept_mass,    &s.outside_support}) {
    visit(*v);
  }
  visit(s.example_logprob);
  for (std::uint64_t* v :
       {&s.loss_tokens, &s.rows, &s.audited_tokens, &s.mismatched_tokens, &s.example_tokens}) {
    visit(*v);
  }
}

wire::WeightsManifest ManifestOf(const std::string& blob, PolicyVersion version,
                                 std::size_t chunk_bytes) {
  wire::WeightsManifest manifest;
  manifest.version = version;
  manifest.bytes = blob.size();
  manifest.chunk_bytes = static_cast<std::uint32_t>(chunk_bytes);
  auto bytes = std::as_bytes(std::span(blob));
  manifest.hash = HashBytes128(bytes);
  for (std::size_t begin = 0; begin < bytes.size(); begin += chunk_bytes) {
    manifest.chunk_hashes.push_back(
        HashBytes64(bytes.subspan(begin, std::min(chunk_bytes, bytes.size() - begin))));
  }
  return manifest;
}

}  // namespace

Trainer::Trainer(const model::RunContext& run, comm::Communicator& comm, Session& session,
                 FaultPlan faults, model::TrainingDevice device, std::unique_ptr<DeviceTurn> turn)
    : run_(run),
      comm_(comm),
      session_(session),
      faults_(std::move(faults)),
      plan_(run.config),
      workers_(WorkerPoolOptions{.threads = run.config.learner.threads,
                                 .on_start = [] { kernels::PinFpEnv(); },
                                 .name = "leaves"}),
      critic_(MakeCritic(run, workers_, std::move(device.critic))),
      optimizer_(MakeOptimizer(OptionsOf(run, comm), workers_, std::move(device))),
      turn_(std::move(turn)) {
  if (PenalisesReward(run.config.objective)) {
    penalty_ = std::make_unique<RewardPenalty>(run, workers_);
  }
  if (comm.rank().value == 0) {
    saver_ = std::make_unique<CheckpointSaver>(run_, plan_, session_, faults_);
  }
  if (turn_ != nullptr) session_.WhileWaiting([this] { OfferTurn(); });
}

Trainer::~Trainer() { session_.WhileWaiting(nullptr); }

Status Trainer::AwaitTurn() {
  if (turn_ == nullptr) return Status::Ok();
  THRESHER_RETURN_IF_ERROR(given_);
  const Status status = session_.WaitFor(
      "the actors have not given their turn on the GPU (" + turn_->file().string() +
          ") for an hour",
      [this] { return turn_->TryTake(); }, kTurnDeadline);
  if (!status.ok()) turn_->Give();
  return status;
}

void Trainer::OfferTurn() {
  if (turn_ == nullptr || !turn_->Wanted()) return;
  const Result<bool> released = optimizer_->ReleaseDevice();
  given_ = released.status();
  if (!released.ok() || *released) turn_->Give();
}

Result<std::vector<float>> Trainer::InitialWeights() const {
  if (run_.config.model.init.empty()) {
    return model::InitialWeights(run_.model, run_.config.run.seed, run_.config.model.init_std);
  }
  THRESHER_ASSIGN_OR_RETURN(auto loaded, model::LoadModelFolder(run_.config.model.init));
  const model::ModelConfig stored = loaded.config;
  loaded.config.dtype = run_.model.dtype;  // widened: any stored type will do
  if (loaded.config.Hash() != run_.model.Hash() ||
      loaded.tokenizer->Hash() != run_.tokenizer->Hash()) {
    return FailedPrecondition("model.init: " + run_.config.model.init +
                              " has another shape or tokenizer than the run");
  }
  // A checkpoint of a run with 16-bit weights goes on from its masters.
  THRESHER_ASSIGN_OR_RETURN(auto masters, LoadMasters(run_.config.model.init, run_.model));
  if (masters &&
      model::PublishedHash(stored, *masters) != model::PublishedHash(stored, loaded.flat)) {
    return FailedPrecondition("model.init: " + run_.config.model.init +
                              ": trainer/masters.safetensors is not what model.safetensors was "
                              "rounded from; remove it to start from model.safetensors");
  }
  return masters ? std::move(*masters) : std::move(loaded.flat);
}

Status Trainer::OpenExamples() {
  const Config& c = run_.config;
  const bool mixture = c.objective.supervised_coefficient > 0 && c.rl.steps > 0;
  if (!examples::UsesFiles(c) || (!mixture && c.supervised.eval_every == 0)) return Status::Ok();
  THRESHER_ASSIGN_OR_RETURN(examples_, examples::OpenSource(run_));
  if (mixture) mixture_ = std::make_unique<Mixture>(c, *examples_);
  if (c.supervised.eval_every > 0) {
    eval_loss_ = std::make_unique<EvalLoss>(run_, *examples_, workers_);
  }
  return Status::Ok();
}

// After every so many steps, and at the end of each phase.
Status Trainer::MeasureLoss(const StepPlan& plan, StepBatch& batch) {
  if (eval_loss_ == nullptr) return Status::Ok();
  const std::uint32_t done = plan.step + 1;
  const bool end = done == plan_.supervised_steps() || done == plan_.total_steps();
  const auto every = static_cast<std::uint32_t>(run_.config.supervised.eval_every);
  if (!end && done % every != 0) return Status::Ok();
  std::vector<float> room;
  THRESHER_ASSIGN_OR_RETURN(const std::span<const float> weights, optimizer_->Weights(room));
  THRESHER_ASSIGN_OR_RETURN(const auto measured, eval_loss_->Measure(comm_, weights));
  batch.metrics["eval_loss"] = measured.loss;
  batch.metrics["eval_perplexity"] = measured.perplexity;
  batch.metrics["eval_loss_tokens"] = static_cast<double>(measured.tokens);
  return Status::Ok();
}

Status Trainer::Start(std::uint32_t durable_steps) {
  THRESHER_RETURN_IF_ERROR(OpenExamples());
  if (comm_.rank().value == 0) THRESHER_RETURN_IF_ERROR(RemoveUnfinished(run_.folder));
  std::vector<std::string> warnings;
  THRESHER_ASSIGN_OR_RETURN(auto restored, LoadNewestCheckpoint(run_, warnings));
  for (const auto& warning : warnings) LogWarning(warning);
  if (restored) {
    state_ = std::move(*restored);
    if (AdaptersBegun() != !state_.adapters.empty()) {
      return DataLoss("the checkpoint of step " + std::to_string(state_.step) + " has " +
                      (AdaptersBegun() ? "no adapters" : "adapters before they begin"));
    }
    if (AdaptersBegun()) {
      THRESHER_RETURN_IF_ERROR(optimizer_->Adapt(std::exchange(state_.adapters, {})));
    }
    THRESHER_RETURN_IF_ERROR(optimizer_->Restore(std::exchange(state_.weights, {}),
                                                 std::exchange(state_.optimizer, {})));
    const bool begun = critic_ != nullptr && state_.step > plan_.supervised_steps();
    if (begun && state_.critic.weights.empty()) {
      return DataLoss("the checkpoint of step " + std::to_string(state_.step) + " has no critic");
    }
    if (begun) critic_->Restore(std::exchange(state_.critic, {}));
    LogInfo("resuming after step " + std::to_string(state_.step));
  } else {
    THRESHER_ASSIGN_OR_RETURN(std::vector<float> weights, InitialWeights());
    AdamW::State moments = AdamW::Fresh(optimizer_->TrainedCount());
    THRESHER_RETURN_IF_ERROR(optimizer_->Restore(std::move(weights), std::move(moments)));
  }
  if (state_.reference != nullptr) PackReference();
  THRESHER_RETURN_IF_ERROR(AgreeOnState());
  if (comm_.rank().value == 0 && plan_.IsPublished(state_.step)) {
    THRESHER_RETURN_IF_ERROR(PublishState());
  }
  // The rank that wrote the restored checkpoint may have died before it told the broker.
  const std::string untold(1, restored && state_.step > durable_steps ? '1' : '0');
  THRESHER_ASSIGN_OR_RETURN(const auto all, GatherBlobs(comm_, untold, "untold checkpoint"));
  if (all[0] != "1") return Status::Ok();
  THRESHER_RETURN_IF_ERROR(Save());
  return saver_ ? saver_->Finish() : Status::Ok();
}

Status Trainer::AgreeOnState() {
  std::vector<float> room;
  THRESHER_ASSIGN_OR_RETURN(const std::span<const float> weights, optimizer_->Weights(room));
  BlobWriter writer;
  writer.Put(state_.step);
  writer.Put(HashBytes128(std::as_bytes(weights)));
  if (critic_ != nullptr) writer.Put(HashBytes128(std::as_bytes(critic_->weights())));
  const std::string mine = writer.Take();
  THRESHER_ASSIGN_OR_RETURN(auto all, GatherBlobs(comm_, mine, "state agreement"));
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (all[r] != mine) {
      return Aborted("rank " + std::to_string(r) + " and rank " +
                     std::to_string(comm_.rank().value) + " hold different weights at step " +
                     std::to_string(state_.step));
    }
  }
  return Status::Ok();
}

Status Trainer::Run() {
  while (state_.step < plan_.total_steps()) {
    Status status = OneStep(plan_.Step(state_.step));
    if (status.code() == StatusCode::kCancelled) {
      THRESHER_RETURN_IF_ERROR(Checkpoint());
      if (saver_) THRESHER_RETURN_IF_ERROR(saver_->Finish());
      return status;
    }
    THRESHER_RETURN_IF_ERROR(status);
  }
  THRESHER_RETURN_IF_ERROR(session_.AwaitCommit());
  if (saver_) THRESHER_RETURN_IF_ERROR(saver_->Finish());
  // Rank 0 may die while it reports, publishes and saves the last step: the others end then, so
  // that the job starts again, and do not wait for a run that nobody finishes.
  return comm_.Barrier("end of training");
}

Status Trainer::End(std::vector<std::uint32_t> best) {
  return saver_ ? saver_->PruneLast(std::move(best)) : Status::Ok();
}

double Trainer::LearningRate(const StepPlan& plan) const {
  const Config& c = run_.config;
  LearningRateSchedule schedule;
  if (plan.phase == Phase::kSupervised) {
    schedule = {c.supervised.schedule, c.supervised.learning_rate, c.supervised.min_learning_rate,
                static_cast<std::uint32_t>(c.supervised.warmup_steps), plan_.supervised_steps()};
  } else {
    schedule = {c.rl.schedule, c.rl.learning_rate, c.rl.min_learning_rate,
                static_cast<std::uint32_t>(c.rl.warmup_steps), plan_.rl_steps()};
  }
  return schedule.At(plan.phase_step);
}

ObjectiveSpec Trainer::SpecOf(const StepPlan& plan, const Minibatch& part) const {
  ObjectiveSpec spec;
  if (plan.phase == Phase::kRl) spec = PolicyObjective(run_.config);
  spec.loss_tokens = part.loss_tokens;
  spec.sequences = part.sequences;
  spec.example_coefficient = run_.config.objective.supervised_coefficient;
  spec.example_tokens = part.example_tokens;
  return spec;
}

std::optional<std::uint32_t> Trainer::FirstAdaptedStep() const {
  if (!run_.trained.lora) return std::nullopt;
  return run_.config.lora.phase == "all" ? 0 : plan_.supervised_steps();
}

bool Trainer::AdaptersBegun() const {
  const auto first = FirstAdaptedStep();
  return first && state_.step > *first;
}

double Trainer::TrainedShare() const {
  const auto trained = static_cast<double>(optimizer_->TrainedCount());
  const auto model = static_cast<double>(model::ParameterCount(run_.model));
  const bool adapters =
      run_.trained.lora && optimizer_->TrainedCount() == run_.trained.lora->count();
  return trained / (adapters ? model + trained : model);
}

// The reinforcement phase begins with fresh moments, so that a run that branches off its supervised
// checkpoint (a control, another recipe) starts from the same state; and with its reference policy,
// which is another one every so often if so configured.
Status Trainer::BeginRlStep(const StepPlan& plan) {
  if (plan.phase != Phase::kRl) return Status::Ok();
  if (plan.phase_step == 0) THRESHER_RETURN_IF_ERROR(optimizer_->ResetMoments());
  if (plan.phase_step == 0 && critic_ != nullptr) {
    std::vector<float> room;
    THRESHER_ASSIGN_OR_RETURN(const std::span<const float> weights, optimizer_->Weights(room));
    critic_->Start(weights);
  }
  const auto every = static_cast<std::uint32_t>(run_.config.objective.reference_every);
  const bool refresh = plan.phase_step == 0 || (every > 0 && plan.phase_step % every == 0);
  if (run_.config.objective.kl <= 0 || !refresh) return Status::Ok();
  std::vector<float> room;
  THRESHER_ASSIGN_OR_RETURN(const std::span<const float> weights, optimizer_->Weights(room));
  state_.reference = std::make_shared<const std::vector<float>>(weights.begin(), weights.end());
  PackReference();
  return Status::Ok();
}

void Trainer::PackReference() {
  reference_ =
      model::PackedModel::Make(run_.model, *state_.reference, run_.tokenizer->vocab(), false);
}

Status Trainer::ComputeLeaves(const StepPlan& plan, const Minibatch& part, bool first,
                              LeafStats& stats) {
  LeafOptions options;
  options.micro_batch_tokens = static_cast<std::size_t>(run_.config.learner.micro_batch_tokens);
  options.recompute = run_.config.learner.recompute_activations;
  // Later the weights are not those that drew.
  options.audit = first && plan.phase == Phase::kRl && run_.config.learner.audit_every > 0 &&
                  plan.phase_step % run_.config.learner.audit_every == 0;
  const ObjectiveSpec spec = SpecOf(plan, part);
  if (HasCritic(plan)) options.value = critic_->Begin(part.leaves.size());
  const auto reference = spec.NeedsReference() ? reference_ : nullptr;
  THRESHER_RETURN_IF_ERROR(optimizer_->Compute(reference, part.leaves, spec, options, stats));
  return HasCritic(plan) ? critic_->Compute(part.leaves, spec, stats) : Status::Ok();
}

bool Trainer::HasCritic(const StepPlan& plan) const {
  return critic_ != nullptr && plan.phase == Phase::kRl;
}

Status Trainer::EvaluateBatch(StepBatch& batch) {
  std::vector<float> room;
  THRESHER_ASSIGN_OR_RETURN(const std::span<const float> weights, optimizer_->Weights(room));
  return critic_->Evaluate(comm_, weights, batch);
}

Status Trainer::ShareStats(LeafStats& stats) {
  BlobWriter writer;
  ForEachNumber(stats, [&](auto& v) { writer.Put(v); });
  for (const auto& [actor, count] : stats.mismatches_by_actor) {
    writer.Put(actor);
    writer.Put(count);
  }
  THRESHER_ASSIGN_OR_RETURN(auto blobs, GatherBlobs(comm_, writer.Take(), "step statistics"));
  LeafStats sum;
  for (const auto& blob : blobs) {
    BlobReader reader(blob);
    LeafStats part;
    ForEachNumber(part, [&](auto& v) { v = reader.Get<std::remove_reference_t<decltype(v)>>(); });
    while (!reader.done()) {
      auto actor = reader.Get<std::uint32_t>();
      part.mismatches_by_actor[actor] = reader.Get<std::uint64_t>();
    }
    sum.Add(part);
  }
  stats = sum;
  return Status::Ok();
}

// One optimiser step.
Status Trainer::TrainPart(const StepPlan& plan, const Minibatch& part, bool last,
                          StepOutcome& outcome) {
  TimePoint start = SystemClock().Now();
  LeafStats stats;
  THRESHER_RETURN_IF_ERROR(ComputeLeaves(plan, part, outcome.parts == 0, stats));
  outcome.compute_ms += MillisecondsSince(start);
  if (last) OfferTurn();
  faults_.Reached("before_reduce");
  start = SystemClock().Now();
  THRESHER_RETURN_IF_ERROR(optimizer_->AddRanks(comm_));
  if (HasCritic(plan)) THRESHER_RETURN_IF_ERROR(critic_->AddRanks(comm_));
  THRESHER_RETURN_IF_ERROR(ShareStats(stats));
  outcome.stats.Add(stats);
  outcome.reduce_ms += MillisecondsSince(start);

  ++outcome.parts;
  THRESHER_RETURN_IF_ERROR(StepPolicy(plan, part, outcome));
  const GradientSync::Figures sync = optimizer_->TakeSyncFigures();
  outcome.sync.reduce_ms += sync.reduce_ms;
  outcome.sync.wait_ms += sync.wait_ms;
  return HasCritic(plan) ? StepCritic(plan, part, outcome) : Status::Ok();
}

std::optional<double> Trainer::GradientScale(const StepPlan& plan, std::uint64_t tokens,
                                             double norm, const char* whose) {
  if (std::isfinite(norm) && tokens > 0) {
    const double limit = run_.config.optimizer.max_grad_norm;
    return limit > 0 && norm > limit ? limit / norm : 1.0;
  }
  ++skipped_steps_;
  LogWarning("step " + std::to_string(plan.step) + " left " + whose + " unchanged: " +
             (tokens == 0 ? "nothing of its batch is in the loss" : "its gradient is not finite"));
  return std::nullopt;
}

// While the critic warms up the policy's gradient is taken for its numbers and its audit alone.
Status Trainer::StepPolicy(const StepPlan& plan, const Minibatch& part, StepOutcome& outcome) {
  THRESHER_ASSIGN_OR_RETURN(const double norm, optimizer_->Norm());
  outcome.gradient_norm += norm;
  const auto warmup = static_cast<std::uint32_t>(run_.config.objective.critic_warmup_steps);
  if (HasCritic(plan) && plan.phase_step < warmup) return optimizer_->Skip();
  const auto scale =
      GradientScale(plan, part.loss_tokens + part.example_tokens, norm, "the weights");
  return scale ? optimizer_->Step(outcome.learning_rate, *scale) : optimizer_->Skip();
}

Status Trainer::StepCritic(const StepPlan& plan, const Minibatch& part, StepOutcome& outcome) {
  const double norm = critic_->Norm();
  outcome.critic_gradient_norm += norm;
  const auto scale = GradientScale(plan, part.loss_tokens, norm, "the critic");
  scale ? critic_->Step(*scale) : critic_->Skip();
  return Status::Ok();
}

Result<StepOutcome> Trainer::Train(const StepPlan& plan, StepBatch& batch) {
  StepOutcome outcome;
  outcome.learning_rate = LearningRate(plan);
  if (FirstAdaptedStep() == plan.step) THRESHER_RETURN_IF_ERROR(optimizer_->Adapt({}));
  THRESHER_RETURN_IF_ERROR(BeginRlStep(plan));
  if (mixture_ != nullptr && plan.phase == Phase::kRl) {
    THRESHER_RETURN_IF_ERROR(mixture_->Add(comm_, plan, batch));
  }
  const TimePoint start = SystemClock().Now();
  if (penalty_ != nullptr && plan.phase == Phase::kRl) {
    THRESHER_RETURN_IF_ERROR(penalty_->Apply(comm_, reference_, batch));
  }
  if (HasCritic(plan)) THRESHER_RETURN_IF_ERROR(EvaluateBatch(batch));
  outcome.compute_ms += MillisecondsSince(start);
  const int epochs = plan.phase == Phase::kRl ? run_.config.rl.epochs : 1;
  const int parts = epochs * static_cast<int>(batch.minibatches.size());
  while (outcome.parts < parts) {
    const std::size_t next = static_cast<std::size_t>(outcome.parts) % batch.minibatches.size();
    const bool last = outcome.parts + 1 == parts;
    THRESHER_RETURN_IF_ERROR(TrainPart(plan, batch.minibatches[next], last, outcome));
  }
  OfferTurn();
  outcome.gradient_norm /= outcome.parts;
  outcome.critic_gradient_norm /= outcome.parts;
  outcome.stats.loss /= outcome.parts;
  outcome.stats.value_loss /= outcome.parts;
  return outcome;
}

Status Trainer::OneStep(const StepPlan& plan) {
  TimePoint start = SystemClock().Now();
  THRESHER_ASSIGN_OR_RETURN(StepBatch batch,
                            FetchBatch(session_, comm_, run_.config, plan, state_.lineage,
                                       [this] { return AwaitTurn(); }));
  if (batch.stopped) return Cancelled("asked to stop before step " + std::to_string(plan.step));
  double fetch_ms = MillisecondsSince(start);
  // The next batch comes while this one is computed, unless it needs the version this one leads to.
  if (!plan.publish_after && plan.step + 1 < plan_.total_steps()) {
    THRESHER_RETURN_IF_ERROR(
        PrefetchBatch(session_, comm_, run_.config, plan.step + 1, state_.lineage));
  }
  TimePoint work_start = SystemClock().Now();
  THRESHER_ASSIGN_OR_RETURN(StepOutcome outcome, Train(plan, batch));
  outcome.fetch_ms = fetch_ms;
  THRESHER_RETURN_IF_ERROR(MeasureLoss(plan, batch));

  state_.step = plan.step + 1;
  state_.chain = wire::HashChain(state_.chain, batch.digest);
  longest_step_ms_ =
      std::max(longest_step_ms_, static_cast<std::uint32_t>(MillisecondsSince(work_start)));
  session_.Progress(state_.step, longest_step_ms_);
  faults_.Reached("step");
  if (comm_.rank().value == 0) THRESHER_RETURN_IF_ERROR(Commit(plan, batch, outcome));
  if (comm_.rank().value == 0 && plan.publish_after) THRESHER_RETURN_IF_ERROR(PublishState());
  if (plan.checkpoint_after) THRESHER_RETURN_IF_ERROR(Checkpoint());
  return saver_ ? saver_->Poll() : Status::Ok();
}

Status Trainer::Commit(const StepPlan& plan, const StepBatch& batch, const StepOutcome& outcome) {
  const LeafStats& stats = outcome.stats;
  THRESHER_ASSIGN_OR_RETURN(const std::span<const std::byte> published, optimizer_->Published());
  wire::StepDone done;
  done.lineage = state_.lineage;
  done.step = plan.step;
  done.batch_digest = batch.digest;
  done.chain = state_.chain;
  done.state_hash = HashBytes128(published);
  done.trained_tokens = batch.loss_tokens;
  done.audited_tokens = stats.audited_tokens;
  done.mismatched_tokens = stats.mismatched_tokens;
  for (const auto& [actor, count] : stats.mismatches_by_actor) {
    done.mismatches_by_actor.emplace_back(actor, count);
  }
  done.metrics = MetricsOf(outcome, plan.phase, HasCritic(plan));
  done.metrics.insert(done.metrics.end(), batch.metrics.begin(), batch.metrics.end());
  const CheckpointSaver::Figures checkpoint = saver_->TakeFigures();
  done.metrics.insert(done.metrics.end(), {{"trained_share", TrainedShare()},
                                           {"skipped_steps", static_cast<double>(skipped_steps_)},
                                           {"checkpoint_stall_ms", checkpoint.stall_ms},
                                           {"checkpoint_write_ms", checkpoint.write_ms},
                                           {"checkpoint_waits", checkpoint.waits ? 1.0 : 0.0}});
  faults_.Reached("before_commit");
  THRESHER_RETURN_IF_ERROR(session_.PostCommit(done));
  faults_.Reached("after_commit");
  return Status::Ok();
}

Status Trainer::PublishState() {
  THRESHER_RETURN_IF_ERROR(session_.AwaitCommit());
  THRESHER_ASSIGN_OR_RETURN(const std::span<const std::byte> published, optimizer_->Published());
  THRESHER_ASSIGN_OR_RETURN(std::string blob, model::EncodePublished(run_.model, published));
  wire::WeightsManifest manifest =
      ManifestOf(blob, PolicyVersion{state_.lineage, state_.step},
                 static_cast<std::size_t>(run_.config.weights.chunk_bytes));
  faults_.Reached("before_publish");
  THRESHER_RETURN_IF_ERROR(session_.PublishWeights(manifest, std::move(blob)));
  faults_.Reached("after_publish");
  return Status::Ok();
}

Status Trainer::Checkpoint() {
  THRESHER_RETURN_IF_ERROR(AgreeOnState());
  return Save();
}

// All ranks come to the same answer: rank 0 may need the others' shards.
Status Trainer::Save() {
  if (std::exchange(saved_, state_.step) == state_.step) return Status::Ok();
  return saver_ ? saver_->Save(state_, *optimizer_, critic_.get()) : optimizer_->ShareShard();
}

}  // namespace thresher::learner
