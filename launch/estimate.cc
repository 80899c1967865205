#include "launch/estimate.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <limits>

#include "actor/rollout.h"
#include "common/config/broker_memory.h"
#include "common/config/sampling.h"
#include "common/data/files.h"
#include "common/model/device_plan.h"
#include "common/model/forward.h"
#include "common/model/run_context.h"
#include "common/model/trained.h"
#include "common/model/training_pass.h"
#include "common/model/training_plan.h"
#include "common/model/weights.h"
#include "common/wire/records.h"

namespace thresher::launch {
namespace {

constexpr std::uint64_t kFloat = sizeof(float);
constexpr std::uint64_t kEnvelopeBytes = 4096;  // frame header, envelope, fields beside the record
constexpr std::uint64_t kLogRecordBytes = 32;   // of one record around its payload
constexpr std::uint64_t kProgramBytes = 24u << 20;  // code, libraries and heap of a small process
constexpr std::uint64_t kLearnerBytes = 24u << 20;  // the same of a learner rank
// What CUDA takes of the machine's memory for a process; and NCCL's channels and staging on a GPU.
// Assumed, not measured: drivers differ.
constexpr std::uint64_t kCudaHostBytes = 300u << 20;
constexpr std::uint64_t kNcclDeviceBytes = 512u << 20;

// The largest record a run can make: full context, every optional field of a generated one.
Trajectory LargestTrajectory(const Config& config) {
  Trajectory t;
  auto tokens = static_cast<std::uint32_t>(config.model.context);
  t.task = config.task.name;
  t.tokens.assign(tokens, 1);
  t.segments = {{0, 1, Role::kPrompt, false}, {1, tokens, Role::kPolicy, true}};
  t.logprobs.assign(tokens - 1, 0.0f);
  t.sampling = SamplingOf(config, Stream::kTrain);
  if (t.sampling.Filtered()) t.kept_mass_logprobs = t.logprobs;
  t.versions = {{1, tokens, {}}};
  t.kv_history = {{0, tokens - 1, {}, false}};
  t.outcome.reason = std::string(32, 'x');
  t.outcome.subscores = {{"well_formed", 0}, {"legal", 0}, {"solved", 0}};
  t.text = std::string(8u * tokens, 'x');  // a special token is written out as up to 8 characters
  return t;
}

// The transposes of the backward pass are fp32.
std::uint64_t PackedBytes(const RunEstimate& e, bool with_backward) {
  std::uint64_t packed = e.parameters * kernels::WeightBytes(e.shape.dtype);
  return with_backward ? packed + e.parameters * kFloat : packed;
}

std::uint64_t KvBytesPerPosition(const model::ModelConfig& shape) {
  return 2 * std::uint64_t(shape.layers) * shape.kv_width() * kFloat;
}

// Activations that the backward pass keeps, of one token: each layer's input and, of all layers or
// of one that is computed again, what it computes from it.
std::uint64_t TapeBytesPerToken(const model::ModelConfig& shape, bool recompute) {
  std::uint64_t layer = 3 * std::uint64_t(shape.width) + 2 * shape.q_width() +
                        2 * shape.kv_width() + 2 * shape.ffn_width;
  if (shape.qk_norm()) layer += shape.q_width() + shape.kv_width();
  std::uint64_t inputs = std::uint64_t(shape.width) * (shape.layers + 1);
  return (inputs + layer * (recompute ? 1 : shape.layers)) * kFloat;
}

std::uint64_t PagesEach(const Config& config) {
  return (std::uint64_t(config.model.context) + 15) / 16;
}

model::DeviceKernelSet DeviceSetOf(const Config& config) {
  const auto set = model::DeviceKernelSetOf(config.engine.kernel_set);
  return set.value_or(model::DeviceKernelSet::kFp32);  // auto
}

// As the engine makes its runner (actor/engine, common/model/cuda).
void AddActorGpu(const Config& config, const RunEstimate& e, ProcessEstimate& p) {
  model::DevicePlanOptions options;
  options.set = DeviceSetOf(config);
  options.slots = config.actors.max_batch;
  options.max_rows = config.actors.max_batch + config.actors.prefill_chunk_tokens;
  options.pages = config.actors.kv_pages;
  const auto plan =
      model::PlanDevice(e.shape, options, std::numeric_limits<std::size_t>::max()).value();
  const std::size_t least_pages = config.actors.kv_pages > 0
                                      ? static_cast<std::size_t>(config.actors.kv_pages)
                                      : PagesEach(config);
  p.gpu_parts = {{"weights (this version and the next)", plan.weights + plan.second_weights},
                 {"KV cache (" + std::to_string(plan.pages) + " pages)", plan.kv},
                 {"activations and scratch", plan.workspace},
                 {"recorded steps", plan.graphs},
                 {"CUDA", kCudaDeviceBytes}};
  p.gpu_least = plan.weights + plan.workspace +
                least_pages * model::KvPageBytes(e.shape, options.set) + kCudaDeviceBytes;
}

ProcessEstimate ActorEstimate(const Config& config, const RunEstimate& e) {
  const bool gpu = config.actors.device != "cpu";
  ProcessEstimate p{"actor", config.actors.count, config.actors.threads, {}, {}, {}, 0};
  p.parts = {{"weights (old and new during a swap)", 2 * PackedBytes(e, false) + e.weights_bytes},
             {"samples running and not yet acknowledged",
              2 * std::uint64_t(config.actors.max_batch) * e.trajectory_bytes},
             {"program", gpu ? kProgramBytes + kCudaHostBytes : kProgramBytes}};
  if (gpu) {
    AddActorGpu(config, e, p);
    return p;
  }
  const std::uint64_t pages = config.actors.kv_pages > 0
                                  ? std::uint64_t(config.actors.kv_pages)
                                  : PagesEach(config) * std::uint64_t(config.actors.max_batch);
  p.parts.insert(p.parts.begin() + 1, {"KV cache (" + std::to_string(pages) + " pages)",
                                       pages * 16 * KvBytesPerPosition(e.shape)});
  return p;
}

// Whether ranks on GPUs talk from device to device.
bool BetweenDevices(const Config& config) {
  return config.learner.ranks > 1 && config.learner.communicator != "mpi";
}

// As a rank computes its leaves on a GPU, one micro-batch after another.
model::TrainingPlanOptions GpuLeaves(const Config& config) {
  const auto quarter = std::max<std::int64_t>(1, config.model.context / 4);
  model::TrainingPlanOptions options;
  options.set = DeviceSetOf(config);
  options.rows = config.learner.micro_batch_tokens;
  options.sequences = (options.rows + quarter - 1) / quarter;  // few are shorter
  options.recompute = config.learner.recompute_activations;
  return options;
}

bool HasCritic(const Config& config) {
  return config.objective.critic != "none" && config.rl.steps > 0;
}

// The pass of a critic: values need the room of a leaf, V-trace that of the policy beside it.
model::TrainingPlan CriticPlan(const Config& config, const RunEstimate& e) {
  model::TrainingPlanOptions options = GpuLeaves(config);
  options.reference = config.objective.advantage == "vtrace";
  return model::PlanTraining(e.shape, options);
}

void AddLearnerGpu(const Config& config, const RunEstimate& e, ProcessEstimate& p) {
  model::TrainingPlanOptions options = GpuLeaves(config);
  options.reference = config.objective.kl > 0;
  if (!config.learner.offload_optimizer) {
    options.resident_leaves = config.learner.grad_leaves / config.learner.ranks;
    options.ranks = BetweenDevices(config);
  }
  const model::TrainingPlan plan = model::PlanTraining(e.shape, options);
  p.gpu_parts = {{"weights", plan.weights},
                 {options.resident_leaves > 0 ? "sums of gradients" : "gradient", plan.gradient},
                 {options.recompute ? "activations (layers are computed again)" : "activations",
                  plan.activations},
                 {"keys and values", plan.kv},
                 {"scratch", plan.scratch},
                 {"CUDA", kCudaDeviceBytes}};
  if (plan.parameters > 0) {
    p.gpu_parts.insert(p.gpu_parts.begin() + 1,
                       {"master weights and optimiser moments", plan.parameters});
  }
  if (options.reference) p.gpu_parts.push_back({"reference policy", plan.reference});
  if (BetweenDevices(config)) p.gpu_parts.push_back({"NCCL", kNcclDeviceBytes});
  if (HasCritic(config)) p.gpu_parts.push_back({"critic", CriticPlan(config, e).total()});
  p.gpu_least = p.GpuBytes();
}

// Rows of the largest micro-batch: a leaf may have fewer.
std::uint64_t LearnerRows(const Config& config, std::uint64_t batch) {
  const auto leaves = static_cast<std::uint64_t>(config.learner.grad_leaves);
  const std::uint64_t leaf = (batch + leaves - 1) / leaves * std::uint64_t(config.model.context);
  return std::min(leaf, static_cast<std::uint64_t>(config.learner.micro_batch_tokens));
}

// Of one worker: what the forward pass keeps, what the backward pass makes of it, keys and values.
std::uint64_t ActivationBytes(const Config& config, const RunEstimate& e, std::uint64_t rows) {
  const model::ModelConfig& shape = e.shape;
  const std::uint64_t backward = 3 * std::uint64_t(shape.width) + 2 * shape.q_width() +
                                 2 * shape.kv_width();  // with the hidden states
  // A tile of the feed-forward part and what its products copy of it (kernels/cpu/weight_grad.inl).
  constexpr std::uint64_t kTile = 512, kCopied = 1024 + 240;
  const std::uint64_t tile =
      std::min(rows, kTile) * (4 * std::uint64_t(shape.ffn_width) + kCopied) * kFloat;
  return tile + rows * (TapeBytesPerToken(shape, config.learner.recompute_activations) +
                        backward * kFloat + KvBytesPerPosition(shape));
}

// Of one worker: logits that its backward pass need not compute again.
std::uint64_t LogitBytes(const Config& config, const RunEstimate& e, std::uint64_t rows) {
  if (config.learner.recompute_activations) return 0;
  return model::KeptLogitBytes(model::kMostKeptLogitBytes, rows, e.shape.vocab);
}

// What a step moves, and what it is added up in.
struct TrainedBytes {
  std::uint64_t moments = 0, gradients = 0, ranks = 0, adapters = 0;
  std::uint64_t total() const { return moments + gradients + ranks + adapters; }
};

// leaf: the gradient of one. computing: leaves at a time.
TrainedBytes TrainedBytesOf(const Config& config, const RunEstimate& e, std::uint64_t leaf,
                            std::uint64_t computing) {
  const auto trained = model::Trained::Of(config, e.shape);
  THRESHER_CHECK(trained.ok(), trained.status().ToString());
  const auto leaves = static_cast<std::uint64_t>(config.learner.grad_leaves / config.learner.ranks);
  const std::uint64_t sums = computing + std::uint64_t(std::bit_width(leaves)) - 1;
  const auto of = [&](std::uint64_t count, bool projected, std::uint64_t adapters) {
    const std::uint64_t bytes = count * kFloat;
    return TrainedBytes{
        2 * bytes, projected ? computing * leaf + sums * bytes : sums * leaf,
        config.learner.ranks > 1 ? std::min(bytes, config.learner.bucket_bytes) / 2 : 0,
        adapters * kFloat};
  };
  std::uint64_t count = 0;
  for (const auto& info : trained->List(e.shape)) count += info.count;
  const TrainedBytes itself = of(count, !trained->frozen.empty(), 0);
  if (!trained->lora) return itself;
  const model::Lora& lora = *trained->lora;
  const TrainedBytes adapters = of(lora.count(), true, lora.count() + lora.base_count());
  const bool both = config.supervised.steps > 0 && config.lora.phase == "rl";
  return both && itself.total() > adapters.total() ? itself : adapters;
}

ProcessEstimate LearnerEstimate(const Config& config, const RunEstimate& e) {
  const bool gpu = config.learner.device != "cpu";
  std::uint64_t masters = e.parameters * kFloat;
  std::uint64_t gradient = masters + std::uint64_t(e.shape.vocab) * e.shape.width * kFloat;
  const auto leaves = static_cast<std::uint64_t>(config.learner.grad_leaves / config.learner.ranks);
  const auto computing =
      gpu ? 1 : std::min(leaves, static_cast<std::uint64_t>(config.learner.threads));
  std::uint64_t batch = std::max<std::uint64_t>(
      std::uint64_t(config.supervised.batch),
      std::uint64_t(config.rl.groups) * std::uint64_t(config.rl.group_size));
  ProcessEstimate p{"learner rank", config.learner.ranks, config.learner.threads, {}, {}, {}, 0};
  const bool resident = gpu && !config.learner.offload_optimizer;
  const TrainedBytes trained = TrainedBytesOf(config, e, gradient, computing);
  const std::uint64_t shards = config.learner.zero == 1 ? std::uint64_t(config.learner.ranks) : 1;
  if (resident) {
    p.parts = {{"weights to publish", 2 * e.weights_bytes}};
    if (config.engine.colocated) {
      p.parts.push_back({"masters and moments while actors have the GPU", 3 * masters});
    }
    if (config.learner.ranks > 1 && !BetweenDevices(config)) {
      p.parts.push_back({"gradient of the ranks", masters + masters / 2});
    }
  } else {
    // Tensor cores need no transposes.
    const bool transposes = !gpu || DeviceSetOf(config) == model::DeviceKernelSet::kFp32;
    p.parts = {{"weights and their packed forms", masters + PackedBytes(e, transposes)},
               {"optimiser moments", trained.moments / shards},
               {"gradients", trained.gradients}};
    if (trained.adapters > 0) p.parts.push_back({"adapters and their base", trained.adapters});
    if (config.learner.ranks > 1) p.parts.push_back({"gradient of other ranks", trained.ranks});
  }
  const bool critic = HasCritic(config) && config.objective.critic == "own";
  const std::uint64_t rows = LearnerRows(config, batch);
  if (critic) {
    const std::uint64_t sums = (computing + std::uint64_t(std::bit_width(leaves)) - 1) * gradient;
    p.parts.push_back({"critic and its moments", 3 * masters});
    p.parts.push_back(
        {"critic's packed forms, gradients and activations",
         PackedBytes(e, true) + sums + (gpu ? 0 : computing * ActivationBytes(config, e, rows))});
  } else if (HasCritic(config)) {  // a head is nothing beside what its values are read in
    p.parts.push_back(
        {"critic's packed policy, keys and values",
         PackedBytes(e, gpu) + (gpu ? 0 : computing * rows * KvBytesPerPosition(e.shape))});
  }
  // The copy stays, or is the other buffer; on a GPU without the background it is made each time.
  const std::uint64_t vectors = 1u + (critic ? 3 : 0);
  const bool copied = config.checkpoint.background || (resident && !config.engine.colocated);
  // Else the other ranks' moments come for as long as it is written.
  const std::uint64_t collected = shards > 1 ? trained.moments : 0;
  p.first_parts = {{"copy of the state for a checkpoint",
                    copied ? vectors * masters + trained.moments + trained.adapters : collected}};
  p.parts.push_back({"batch", batch * e.trajectory_bytes / std::uint64_t(config.learner.ranks)});
  p.parts.push_back({"program", gpu ? kLearnerBytes + kCudaHostBytes : kLearnerBytes});
  if (config.objective.kl > 0) {
    // In the reward it is read in passes of its own.
    const bool apart = config.objective.kl_in == "reward";
    const std::uint64_t read = apart ? computing * rows * KvBytesPerPosition(e.shape) : 0;
    p.parts.push_back({"reference policy", PackedBytes(e, false) + masters + read});
  }
  if (config.supervised.eval_every > 0) {
    p.parts.push_back({"policy whose loss is measured",
                       PackedBytes(e, false) + computing * rows * KvBytesPerPosition(e.shape)});
  }
  if (gpu) {
    AddLearnerGpu(config, e, p);
    return p;
  }
  p.parts.insert(p.parts.begin() + 3,
                 {{"activations", computing * ActivationBytes(config, e, rows)},
                  {"logits", computing * LogitBytes(config, e, rows)}});
  return p;
}

ProcessEstimate BrokerEstimate(const Config& config, const RunEstimate& e) {
  auto steps = static_cast<std::uint64_t>(config.checkpoint.every);
  std::uint64_t step_bytes =
      std::max(std::uint64_t(config.supervised.batch),
               std::uint64_t(config.rl.groups) * std::uint64_t(config.rl.group_size)) *
      e.trajectory_bytes;
  std::uint64_t records = e.supervised_samples + e.train_samples + e.eval_samples;
  const BrokerMemory memory = PlanBrokerMemory(config);
  ProcessEstimate p{"broker", 1, 1, {}, {}, {}, 0};
  p.parts = {{"batches until durable (the rest stays on disk)",
              std::min(memory.cache, steps * step_bytes)},
             {"credit of the actors", memory.credit},
             {"messages", memory.frames},
             {"ledger and duplicates", records * 120},
             {"weights in transfer", e.weights_bytes},
             {"program", kProgramBytes}};
  return p;
}

std::uint64_t JournalBytes(const Config& config, const RunEstimate& e, const Plan& plan) {
  auto size = [](const wire::JournalRecord& record) {
    return wire::EncodeJournalRecord(record).size() + kLogRecordBytes;
  };
  std::uint64_t trained = e.supervised_samples + e.train_samples;
  wire::BatchComposed batch;
  std::uint64_t empty = size(batch);
  batch.ids.resize(64);
  std::uint64_t id_bytes = (size(batch) - empty + 63) / 64;
  return (trained + e.eval_samples) * size(wire::SampleAccepted{}) +
         e.train_samples * size(wire::SampleDropped{}) +
         plan.total_steps() * (empty + size(wire::StepCommitted{}) + size(wire::ItemsIssued{}) +
                               size(wire::VersionPublished{})) +
         trained * id_bytes;
}

RetentionEstimate Retention(const Config& config, const Plan& plan) {
  RetentionEstimate r;
  for (std::uint32_t v = 0; v <= plan.total_steps(); ++v) r.published += plan.IsPublished(v);
  r.retained = std::min(r.published, static_cast<std::uint32_t>(config.weights.retain));
  r.first_retained = plan.total_steps() + 1 - r.retained;
  const auto every = static_cast<std::uint32_t>(config.checkpoint.keep_every);
  std::uint32_t for_good = 0, others = 0;
  for (std::uint32_t step = 1; step <= plan.total_steps(); ++step) {
    if (!plan.Step(step - 1).checkpoint_after) continue;
    const bool end = step == plan.supervised_steps() || step == plan.total_steps();
    ++(end || (every > 0 && step % every == 0) ? for_good : others);
  }
  r.checkpoints = for_good + others;
  const auto kept = static_cast<std::uint32_t>(config.checkpoint.keep) +
                    static_cast<std::uint32_t>(config.checkpoint.keep_best);
  r.checkpoints_kept = for_good + std::min(others, kept);
  return r;
}

void CountSamples(const Config& config, const Plan& plan, RunEstimate& e) {
  e.supervised_samples = std::uint64_t(plan.supervised_steps()) * config.supervised.batch;
  const std::uint64_t rounds = config.rl.dynamic_sampling ? std::uint64_t(config.rl.max_rounds) : 1;
  e.train_samples =
      std::uint64_t(plan.rl_steps()) * rounds * config.rl.groups * config.rl.group_size;
  for (const EvalRound& round : plan.evals()) {
    e.eval_samples += std::uint64_t(round.items) * round.samples;
  }
  e.generated_tokens = (e.train_samples + e.eval_samples) * config.sampling.max_new_tokens;
}

// Model shape as it is made for a run; the vocabulary is the task's alphabet and the special
// tokens.
model::ModelConfig ShapeOf(const Config& config, const tasks::Environment& environment) {
  auto tokenizer = model::Tokenizer::FromAlphabet(environment.alphabet());
  THRESHER_CHECK(tokenizer.ok(), tokenizer.status().ToString());
  return model::ShapeFromConfig(config, (*tokenizer)->vocab());
}

void RequireFits(const Config& config, const char* key, int needed, const std::string& of_what) {
  if (needed <= config.model.context) return;
  throw ConfigError("model.context: value " + std::to_string(config.model.context) +
                    "; allowed: at least " + std::to_string(needed) + ", for " + of_what + " (" +
                    key + ")");
}

std::string Ranks(int count) {
  return count == 1 ? "the learner rank" : std::to_string(count) + " learner ranks";
}

void CheckInitialModel(const Config& config, const model::ModelConfig& shape) {
  if (config.model.init.empty()) return;
  const std::filesystem::path file = std::filesystem::path(config.model.init) / "config.json";
  auto text = ReadFile(file);
  if (!text.ok()) throw ConfigError("model.init: " + text.status().message());
  auto found = model::ModelConfig::FromJson(*text, file.string());
  if (!found.ok()) throw ConfigError("model.init: " + found.status().message());
  found->dtype = shape.dtype;  // any stored type will do
  if (found->Hash() != shape.Hash()) {
    throw ConfigError("model.init: value '" + config.model.init +
                      "'; allowed: a model of the shape that model.* and the task's alphabet give");
  }
}

}  // namespace

std::uint64_t ProcessEstimate::TotalBytes() const {
  std::uint64_t total = 0;
  for (const Part& part : parts) total += part.bytes;
  return total;
}

std::uint64_t ProcessEstimate::FirstBytes() const {
  std::uint64_t total = TotalBytes();
  for (const Part& part : first_parts) total += part.bytes;
  return total;
}

std::uint64_t ProcessEstimate::AllBytes() const {
  return FirstBytes() + static_cast<std::uint64_t>(count - 1) * TotalBytes();
}

std::uint64_t ProcessEstimate::GpuBytes() const {
  std::uint64_t total = 0;
  for (const Part& part : gpu_parts) total += part.bytes;
  return total;
}

std::unique_ptr<tasks::Environment> EnvironmentOf(const Config& config) {
  auto environment = tasks::MakeEnvironment(actor::TaskOptionsOf(config.task));
  if (!environment.ok()) throw ConfigError(environment.status().message());
  return std::move(environment).value();
}

void CheckConsistency(const Config& config, const tasks::Environment& environment) {
  model::ModelConfig shape = ShapeOf(config, environment);
  Status valid = shape.Validate();
  if (!valid.ok()) throw ConfigError("model: " + valid.message());
  const int prompt = 1 + environment.MaxPromptChars();  // <bos>
  RequireFits(config, "sampling.max_new_tokens", prompt + config.sampling.max_new_tokens,
              "the longest prompt (" + std::to_string(prompt) + " tokens) and answer");
  if (config.supervised.steps > 0 && !config.supervised.FromFiles()) {
    const bool perturbed = config.supervised.perturbed > 0;
    const int trace = environment.MaxTraceChars() * (perturbed ? 2 : 1) + 1;  // <eos>
    RequireFits(config, "supervised.steps", prompt + trace,
                "the longest prompt (" + std::to_string(prompt) + " tokens) and " +
                    (perturbed ? "perturbed" : "reference") + " trace");
  }
  std::uint64_t largest = wire::EncodeTrajectory(LargestTrajectory(config)).size() + kEnvelopeBytes;
  if (largest > static_cast<std::uint64_t>(config.broker.max_message_bytes)) {
    throw ConfigError("broker.max_message_bytes: value " +
                      std::to_string(config.broker.max_message_bytes) + "; allowed: at least " +
                      std::to_string(largest) + ", the largest trajectory of model.context (" +
                      std::to_string(config.model.context) + ") tokens");
  }
  CheckInitialModel(config, shape);
  const auto trained = model::Trained::Of(config, shape);
  if (!trained.ok()) throw ConfigError(trained.status().message());
}

std::uint64_t MachineMemory() {
  struct sysinfo machine {};
  sysinfo(&machine);
  return std::uint64_t{machine.totalram} * machine.mem_unit;
}

void RequireMemory(const Config& config, const RunEstimate& estimate, std::uint64_t machine_bytes) {
  const auto rank = std::find_if(estimate.processes.begin(), estimate.processes.end(),
                                 [](const auto& p) { return p.name == "learner rank"; });
  const std::uint64_t told = config.learner.memory_bytes;
  const bool fits = told > 0 ? rank->FirstBytes() <= told
                             : machine_bytes == 0 || rank->AllBytes() <= machine_bytes;
  if (fits) return;
  std::string parts;
  for (const auto* list : {&rank->parts, &rank->first_parts}) {
    for (const auto& part : *list) {
      parts += (parts.empty() ? "" : ", ") + part.what + " " + std::to_string(part.bytes);
    }
  }
  throw ConfigError(
      "learner.memory_bytes: value " + std::to_string(told) +
      (told > 0 ? "" : " (the machine's " + std::to_string(machine_bytes) + ")") +
      "; allowed: at least " + std::to_string(told > 0 ? rank->FirstBytes() : rank->AllBytes()) +
      " for " + (told > 0 ? "a learner rank" : Ranks(rank->count)) + ": " + parts +
      ". Less with learner.micro_batch_tokens, learner.threads, learner.recompute_activations, "
      "checkpoint.background or a smaller model.*");
}

RunEstimate Estimate(const Config& config, const tasks::Environment& environment) {
  return Estimate(config, ShapeOf(config, environment));
}

RunEstimate Estimate(const Config& config, const model::ModelConfig& shape) {
  const Plan plan(config);
  RunEstimate e;
  e.shape = shape;
  e.parameters = model::ParameterCount(e.shape);
  e.weights_bytes = e.parameters * kernels::WeightBytes(e.shape.dtype);
  e.trajectory_bytes = wire::EncodeTrajectory(LargestTrajectory(config)).size();
  e.message_bytes = e.trajectory_bytes + kEnvelopeBytes;
  CountSamples(config, plan, e);
  e.processes = {BrokerEstimate(config, e), LearnerEstimate(config, e), ActorEstimate(config, e)};
  e.retention = Retention(config, plan);
  std::uint64_t vectors = config.objective.kl > 0 ? 1 : 0;    // reference policy
  if (e.shape.dtype != kernels::WeightType::kF32) ++vectors;  // masters
  if (config.rl.steps > 0 && config.objective.critic == "own") vectors += 3;
  const TrainedBytes trained = TrainedBytesOf(config, e, 0, 0);
  std::uint64_t checkpoint =
      e.weights_bytes + vectors * e.parameters * kFloat + trained.moments + trained.adapters;
  e.disk.journal = JournalBytes(config, e, plan);
  e.disk.trajectories =
      (e.supervised_samples + e.train_samples + e.eval_samples) * e.trajectory_bytes;
  e.disk.weights = e.retention.retained * e.weights_bytes;
  e.disk.checkpoints = e.retention.checkpoints_kept * checkpoint;
  return e;
}

}  // namespace thresher::launch
