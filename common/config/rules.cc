// Rules that span several keys.
#include <bit>
#include <cmath>
#include <cstdint>

#include "common/config/broker_memory.h"
#include "common/config/schema.h"

namespace thresher::config_internal {
namespace {

class RuleChecker {
 public:
  void Require(bool holds, const char* path, const std::string& value, const std::string& allowed) {
    if (!holds) violations_.push_back({path, "value " + value + "; allowed: " + allowed});
  }
  void Require(bool holds, const char* path, long long value, const std::string& allowed) {
    Require(holds, path, std::to_string(value), allowed);
  }
  std::vector<RuleViolation> Take() { return std::move(violations_); }

 private:
  std::vector<RuleViolation> violations_;
};

std::string Is(const char* path, long long value) {
  return std::string(path) + " (" + std::to_string(value) + ")";
}

std::string Is(const char* path, const std::string& value) {
  return std::string(path) + " (" + value + ")";
}

bool IsPowerOfTwo(int value) { return std::has_single_bit(static_cast<unsigned>(value)); }

void CheckTask(const Config& c, RuleChecker& rules) {
  const TaskConfig& t = c.task;
  rules.Require(t.name != "digits" || !t.use_all, "task.use_all", "true", "false for digits");
  rules.Require(t.min_target <= t.max_target, "task.min_target", t.min_target,
                "at most " + Is("task.max_target", t.max_target));
  // The largest value a game can reach is the product of the largest numbers, or the sum of ones.
  double largest = std::max(std::pow(t.max_number, t.numbers), double(t.numbers) * t.max_number);
  rules.Require(t.min_target <= largest, "task.min_target", t.min_target,
                "a target that " + Is("task.numbers", t.numbers) + " numbers up to " +
                    Is("task.max_number", t.max_number) + " can reach");
}

void CheckModel(const Config& c, RuleChecker& rules) {
  const ModelConfigSection& m = c.model;
  rules.Require(m.heads % m.kv_heads == 0, "model.kv_heads", m.kv_heads,
                "a divisor of " + Is("model.heads", m.heads));
  rules.Require(m.head_dim % 8 == 0, "model.head_dim", m.head_dim, "a multiple of 8");
  rules.Require(c.sampling.max_new_tokens < m.context, "sampling.max_new_tokens",
                c.sampling.max_new_tokens, "less than " + Is("model.context", m.context));
}

void CheckTraining(const Config& c, RuleChecker& rules) {
  rules.Require(c.supervised.steps + static_cast<long long>(c.rl.steps) > 0, "rl.steps", c.rl.steps,
                "at least 1, for supervised.steps is 0 too");
  rules.Require(c.supervised.off_target + c.supervised.perturbed <= 1, "supervised.perturbed",
                std::to_string(c.supervised.perturbed), "at most 1 - supervised.off_target");
  rules.Require(c.supervised.min_learning_rate <= c.supervised.learning_rate,
                "supervised.min_learning_rate", std::to_string(c.supervised.min_learning_rate),
                "at most supervised.learning_rate");
  rules.Require(c.rl.min_learning_rate <= c.rl.learning_rate, "rl.min_learning_rate",
                std::to_string(c.rl.min_learning_rate), "at most rl.learning_rate");
  if (c.supervised.steps > 0) {
    rules.Require(c.supervised.warmup_steps <= c.supervised.steps, "supervised.warmup_steps",
                  c.supervised.warmup_steps,
                  "at most " + Is("supervised.steps", c.supervised.steps));
  }
  if (c.rl.steps == 0) return;
  rules.Require(c.rl.warmup_steps <= c.rl.steps, "rl.warmup_steps", c.rl.warmup_steps,
                "at most " + Is("rl.steps", c.rl.steps));
  const std::string& advantage = c.objective.advantage;
  const bool alone = advantage == "batch" || advantage == "accepted" || advantage == "gae" ||
                     advantage == "vtrace";
  rules.Require(c.rl.group_size >= 2 || alone, "rl.group_size", c.rl.group_size,
                "2 to 65536, for " + Is("objective.advantage", advantage) +
                    " compares a sample with its group");
  // A batch is whole groups; this many samples is what one batch may hold.
  constexpr long long kMaxBatchSamples = 1 << 20;
  rules.Require(
      static_cast<long long>(c.rl.groups) * c.rl.group_size <= kMaxBatchSamples, "rl.group_size",
      c.rl.group_size,
      "at most 1048576 samples in a batch of " + Is("rl.groups", c.rl.groups) + " groups");
  rules.Require(!c.rl.dynamic_sampling || c.rl.drop_zero_variance, "rl.dynamic_sampling", "true",
                "false, or with rl.drop_zero_variance: true");
  if (!c.rl.dynamic_sampling) return;
  constexpr double kMostItems = 1e13;  // ordinals of a stream: 44 bits
  const double items = double(c.rl.steps) * c.rl.max_rounds * c.rl.groups;
  rules.Require(items <= kMostItems, "rl.max_rounds", c.rl.max_rounds,
                "at most 1e13 prompts in " + Is("rl.steps", c.rl.steps) + " steps of " +
                    Is("rl.groups", c.rl.groups) + " groups a round");
}

// A key that nobody would look at is refused: it was set for a purpose.
void CheckExamples(const Config& c, RuleChecker& rules) {
  const SupervisedConfig& s = c.supervised;
  const std::string source = Is("supervised.source", s.source);
  rules.Require((s.source == "jsonl") == !s.file.empty(), "supervised.file", "'" + s.file + "'",
                s.source == "jsonl" ? "a path, for " + source : "empty with " + source);
  rules.Require((s.source == "trajectories") == !s.run.empty(), "supervised.run", "'" + s.run + "'",
                s.source == "trajectories" ? "a path, for " + source : "empty with " + source);
  rules.Require(s.to_step == 0 || s.from_step <= s.to_step, "supervised.from_step", s.from_step,
                "at most " + Is("supervised.to_step", s.to_step));
  const bool measured = !s.eval_file.empty() || s.eval_share > 0;
  rules.Require(s.eval_file.empty() || s.eval_share == 0, "supervised.eval_share",
                std::to_string(s.eval_share), "0 with " + Is("supervised.eval_file", s.eval_file));
  rules.Require(!measured || s.FromFiles(), "supervised.source", s.source,
                "jsonl or trajectories, with supervised.eval_file or supervised.eval_share");
  rules.Require(measured == (s.eval_every > 0), "supervised.eval_every", s.eval_every,
                measured ? "at least 1 with supervised.eval_file or supervised.eval_share"
                         : "0 without supervised.eval_file and supervised.eval_share");
  rules.Require(!measured || c.learner.device == "cpu", "learner.device", c.learner.device,
                "cpu with " + Is("supervised.eval_every", s.eval_every) +
                    ": that loss is measured there alone");
  const double coefficient = c.objective.supervised_coefficient;
  if (coefficient == 0) return;
  const std::string mixture =
      "objective.supervised_coefficient (" + std::to_string(coefficient) + ")";
  rules.Require(s.FromFiles(), "supervised.source", s.source,
                "jsonl or trajectories with " + mixture +
                    ", for the learner reads its examples itself and knows no task");
  rules.Require(c.rl.steps > 0, "rl.steps", c.rl.steps, "at least 1 with " + mixture);
}

void CheckCritic(const Config& c, RuleChecker& rules) {
  const ObjectiveConfig& o = c.objective;
  const bool trace = o.advantage == "vtrace";
  const bool of_tokens = trace || o.advantage == "gae";
  const std::string advantage = Is("objective.advantage", o.advantage);
  rules.Require(!of_tokens || o.critic != "none", "objective.critic", o.critic,
                "own or shared, for " + advantage + " is made of values");
  rules.Require(of_tokens || o.critic == "none", "objective.critic", o.critic,
                "none, for " + advantage + " looks at no values; or with gae or vtrace");
  rules.Require(!of_tokens || o.ratio != "sequence", "objective.ratio", o.ratio,
                "token or none, for " + advantage +
                    " differs from token to token, and the ratio of a sequence is one for all");
  rules.Require(!trace || o.ratio == "none", "objective.ratio", o.ratio,
                "none, for " + advantage + " has the importance weight in it");
  rules.Require(!trace || o.correction == "none", "objective.correction", o.correction,
                "none, for " + advantage + " has the importance weight in it");
  rules.Require(!trace || o.c_bar <= o.rho_bar, "objective.c_bar", std::to_string(o.c_bar),
                "at most objective.rho_bar (" + std::to_string(o.rho_bar) + ")");
  rules.Require(o.critic_warmup_steps == 0 || o.critic != "none", "objective.critic_warmup_steps",
                o.critic_warmup_steps, "0 with " + Is("objective.critic", o.critic));
  rules.Require(o.critic_warmup_steps <= c.rl.steps, "objective.critic_warmup_steps",
                o.critic_warmup_steps, "at most " + Is("rl.steps", c.rl.steps));
  rules.Require(o.critic == "none" || !c.engine.colocated, "engine.colocated", "true",
                "false with " + Is("objective.critic", o.critic) +
                    ", for a critic does not give its memory on the GPU to the actors");
}

void CheckPenalty(const Config& c, RuleChecker& rules) {
  const ObjectiveConfig& o = c.objective;
  if (o.kl == 0) return;
  const bool in_reward = o.kl_in == "reward";
  rules.Require(in_reward || o.kl_estimator != "k1", "objective.kl_estimator", o.kl_estimator,
                "k3 or k2, for in the loss the gradient of k1 has the mean zero");
  rules.Require(!in_reward || o.kl_estimator != "k2", "objective.kl_estimator", o.kl_estimator,
                "k1 or k3, for in the reward k2 is not the divergence on average");
  rules.Require(!in_reward || o.advantage != "accepted", "objective.kl_in", o.kl_in,
                "loss, for " + Is("objective.advantage", o.advantage) +
                    " asks only which rewards are high enough");
  rules.Require(!in_reward || c.learner.device == "cpu", "learner.device", c.learner.device,
                "cpu with " + Is("objective.kl_in", o.kl_in) +
                    ": that penalty is computed there alone; or objective.kl_in: loss");
}

// What is built for log-probabilities of the distribution that tokens were drawn from.
void CheckDistribution(const Config& c, RuleChecker& rules) {
  const ObjectiveConfig& o = c.objective;
  if (o.ratio_distribution != "sampled") return;
  const std::string sampled = Is("objective.ratio_distribution", o.ratio_distribution);
  rules.Require(o.kl == 0, "objective.kl", std::to_string(o.kl),
                "0, for with " + sampled +
                    " the reference policy has other ids than those drawn from, on which the "
                    "penalty is infinite");
  rules.Require(o.entropy == 0, "objective.entropy", std::to_string(o.entropy),
                "0, for with " + sampled +
                    " the bonus would raise ids that are cut off, and are never drawn");
  rules.Require(o.advantage != "vtrace", "objective.advantage", o.advantage,
                "another one, for with " + sampled +
                    " its importance weights would be of another distribution");
  rules.Require(c.learner.device == "cpu", "learner.device", c.learner.device,
                "cpu, for with " + sampled + " the ids drawn from are found again on CPUs alone");
}

void CheckStepRewards(const Config& c, RuleChecker& rules) {
  const ObjectiveConfig& o = c.objective;
  if (o.step_rewards == "none") return;
  const std::string process = Is("objective.step_rewards", o.step_rewards);
  const bool of_group = o.advantage == "group" || o.advantage == "group_mean";
  rules.Require(of_group || o.critic != "none", "objective.advantage", o.advantage,
                "group, group_mean, gae or vtrace, for " + process +
                    " compares rewards of steps within a group, or gives them to a critic");
  rules.Require(o.ratio != "sequence", "objective.ratio", o.ratio,
                "token or none, for with " + process + " tokens have advantages of their own");
  rules.Require(
      o.critic != "none" || o.kl == 0 || o.kl_in == "loss", "objective.kl_in", o.kl_in,
      "loss, for with " + process + " and no critic nobody says which step it is taken off");
  const std::string elsewhere =
      ", for rewards at the tokens of one answer (" + process + ") mean nothing in another";
  rules.Require(!c.rl.permute_rewards, "rl.permute_rewards", "true", "false" + elsewhere);
  rules.Require(c.controls == "none" || c.controls == "supervised", "controls", c.controls,
                "none or supervised" + elsewhere);
  rules.Require(o.critic != "none" || !c.rl.drop_zero_variance, "rl.drop_zero_variance", "true",
                "false, for groups of equal outcomes have something to learn from with " + process);
}

// Whether the choices of an objective make sense together; each refusal says why not.
void CheckObjective(const Config& c, RuleChecker& rules) {
  const ObjectiveConfig& o = c.objective;
  const std::string ratio = Is("objective.ratio", o.ratio);
  rules.Require(o.ratio != "none" || o.surrogate == "plain", "objective.surrogate", o.surrogate,
                "plain, for with " + ratio + " there is nothing to clip");
  rules.Require(o.ratio != "none" || c.rl.epochs == 1, "rl.epochs", c.rl.epochs,
                "1, for with " + ratio + " nothing knows that the policy has moved");
  rules.Require(o.ratio != "none" || c.rl.minibatches == 1, "rl.minibatches", c.rl.minibatches,
                "1, for with " + ratio + " nothing knows that the policy has moved");
  rules.Require(o.dual_clip == 0 || o.surrogate == "clip", "objective.dual_clip",
                std::to_string(o.dual_clip),
                "0, or with objective.surrogate: clip (" + o.surrogate + ")");
  rules.Require(o.dual_clip == 0 || o.dual_clip > 1 + o.clip_high, "objective.dual_clip",
                std::to_string(o.dual_clip), "0, or more than 1 + objective.clip_high");
  rules.Require(o.correction == "none" || o.old == "recomputed", "objective.correction",
                o.correction,
                "none, for with " + Is("objective.old", o.old) +
                    " the ratio itself is taken against the policy that drew");
  rules.Require(o.old != "recomputed" || c.rl.minibatches == 1, "rl.minibatches", c.rl.minibatches,
                "1 with " + Is("objective.old", o.old));
  rules.Require(o.correction_low <= o.correction_high, "objective.correction_low",
                std::to_string(o.correction_low), "at most objective.correction_high");
  CheckDistribution(c, rules);
  CheckStepRewards(c, rules);
  rules.Require((o.overlong_penalty > 0) == (o.overlong_share > 0), "objective.overlong_penalty",
                std::to_string(o.overlong_penalty),
                "0 without objective.overlong_share, more with it (" +
                    std::to_string(o.overlong_share) + ")");
}

// Whether one of the evaluations within the RL phase is of a version that a checkpoint holds.
bool EvaluatesACheckpoint(const Config& c) {
  if (c.eval.every == 0 || c.eval.every_items == 0) return false;
  // The places between two checkpoints repeat after so many evaluations.
  for (long long k = 1; k <= c.checkpoint.every && k * c.eval.every < c.rl.steps; ++k) {
    if ((c.supervised.steps + k * c.eval.every) % c.checkpoint.every == 0) return true;
  }
  return false;
}

void CheckEval(const Config& c, RuleChecker& rules) {
  rules.Require(c.eval.every == 0 || c.eval.every_items >= 1, "eval.every_items",
                c.eval.every_items, "at least 1 when eval.every > 0");
  rules.Require(c.checkpoint.keep_best == 0 || EvaluatesACheckpoint(c), "checkpoint.keep_best",
                c.checkpoint.keep_best,
                "0, or with an evaluation within the rl phase (" + Is("eval.every", c.eval.every) +
                    ", " + Is("rl.steps", c.rl.steps) + ") after a step that makes a checkpoint (" +
                    Is("checkpoint.every", c.checkpoint.every) + ")");
}

// A block of the gradient's norm.
constexpr std::uint64_t kLeastBucketBytes = 65536 * sizeof(float);

void CheckLearner(const Config& c, RuleChecker& rules) {
  const LearnerConfig& l = c.learner;
  rules.Require(IsPowerOfTwo(l.ranks), "learner.ranks", l.ranks, "a power of two");
  rules.Require(IsPowerOfTwo(l.grad_leaves), "learner.grad_leaves", l.grad_leaves,
                "a power of two");
  rules.Require(l.grad_leaves >= l.ranks, "learner.grad_leaves", l.grad_leaves,
                "at least " + Is("learner.ranks", l.ranks));
  rules.Require(IsPowerOfTwo(c.rl.minibatches) && c.rl.minibatches <= l.grad_leaves / l.ranks,
                "rl.minibatches", c.rl.minibatches,
                "a power of two, at most " + Is("learner.grad_leaves", l.grad_leaves) + " / " +
                    Is("learner.ranks", l.ranks));
  rules.Require(l.zero == 0 || l.device == "cpu" || l.offload_optimizer, "learner.zero", l.zero,
                "0 with " + Is("learner.device", l.device) +
                    ", whose memory holds the moments, or learner.offload_optimizer: true");
  rules.Require(l.bucket_bytes >= kLeastBucketBytes, "learner.bucket_bytes", l.bucket_bytes,
                "at least " + std::to_string(kLeastBucketBytes));
  rules.Require(l.communicator != "local" || l.ranks == 1, "learner.communicator", l.communicator,
                "with " + Is("learner.ranks", l.ranks) + ": auto, mpi or nccl");
  rules.Require(l.micro_batch_tokens >= c.model.context, "learner.micro_batch_tokens",
                l.micro_batch_tokens, "at least " + Is("model.context", c.model.context));
  rules.Require(
      c.actors.kv_pages == 0 || c.actors.kv_pages >= (c.model.context + 15) / 16, "actors.kv_pages",
      c.actors.kv_pages,
      "0, or at least the pages of one sequence of " + Is("model.context", c.model.context));
  const std::string& set = c.engine.kernel_set;
  const std::string devices =
      Is("actors.device", c.actors.device) + ", " + Is("learner.device", c.learner.device);
  const bool tensor_cores = set == "cuda-bf16-sm90-v1";
  if (UsesGpus(c)) {
    rules.Require(set == "auto" || set == "cpu-fp32-v1" || tensor_cores, "engine.kernel_set", set,
                  "auto, cpu-fp32-v1 or cuda-bf16-sm90-v1 with " + devices);
  }
  if (c.engine.colocated) {
    rules.Require(c.actors.device != "cpu" && c.learner.device != "cpu", "engine.colocated", "true",
                  "false, or GPUs for actors and learner (" + devices + ")");
  }
  if (tensor_cores) {
    rules.Require(c.actors.device != "cpu" && c.learner.device != "cpu", "engine.kernel_set", set,
                  "another one, or GPUs for actors and learner (" + devices + ")");
    rules.Require(c.model.dtype == "bfloat16", "engine.kernel_set", set,
                  "another one, or bfloat16 weights (" + Is("model.dtype", c.model.dtype) + ")");
  }
}

// What is trained instead of all parameters.
void CheckTrained(const Config& c, RuleChecker& rules) {
  const bool on_gpu = c.learner.device != "cpu" && !c.learner.offload_optimizer;
  const bool frozen = !ListItems(c.learner.freeze).empty();
  rules.Require(!on_gpu || !c.lora.on(), "learner.device", c.learner.device,
                "cpu, or with learner.offload_optimizer: true, for with " +
                    Is("lora.rank", c.lora.rank) + " steps are taken in the machine's memory");
  rules.Require(!on_gpu || !frozen, "learner.device", c.learner.device,
                "cpu, or with learner.offload_optimizer: true, for with " +
                    Is("learner.freeze", c.learner.freeze) +
                    " steps are taken in the machine's memory");
  if (!c.lora.on()) return;
  rules.Require(c.rl.steps > 0 || c.lora.phase == "all", "lora.phase", c.lora.phase,
                "all with " + Is("rl.steps", c.rl.steps) + ", or no adapters are trained");
}

// What the broker's cache has to hold.
std::string CachedText(const Config& c) {
  if (!c.journal.off()) return "a cache for a group of " + Is("rl.group_size", c.rl.group_size);
  const int rounds = c.rl.dynamic_sampling ? c.rl.max_rounds : 1;
  return std::to_string(KeptBytes(c)) + " that actors keep, as " + Is("journal.mode", "off") +
         " asks: whole groups of " + (c.checkpoint.background ? "twice " : "") +
         Is("checkpoint.every", c.checkpoint.every) + " steps of " +
         Is("supervised.batch", c.supervised.batch) + ", or " + Is("rl.groups", c.rl.groups) +
         " by " + Is("rl.group_size", c.rl.group_size) + ", of " +
         Is("broker.lookahead_steps", c.broker.lookahead_steps) + " more, and of " +
         Is("rl.max_rounds", rounds) + " of the open one";
}

void CheckTransport(const Config& c, RuleChecker& rules) {
  constexpr long long kFrameRoom = 4096;  // header, envelope and checksum around a chunk
  long long largest = std::max(static_cast<long long>(LargestTrajectoryBytes(c)),
                               c.weights.chunk_bytes + kFrameRoom);
  rules.Require(c.broker.max_message_bytes >= largest, "broker.max_message_bytes",
                c.broker.max_message_bytes,
                "at least " + std::to_string(largest) + ", the largest trajectory of " +
                    Is("model.context", c.model.context) + " tokens and a weight chunk of " +
                    Is("weights.chunk_bytes", c.weights.chunk_bytes));
  rules.Require(c.broker.memory_bytes == 0 || c.broker.memory_bytes >= LeastBrokerMemory(c),
                "broker.memory_bytes", std::to_string(c.broker.memory_bytes),
                "0, or at least " + std::to_string(LeastBrokerMemory(c)) +
                    ": credit for the largest trajectory of each of " +
                    Is("actors.count", c.actors.count) + " and one more, " + CachedText(c) +
                    ", frames of " + Is("broker.max_message_bytes", c.broker.max_message_bytes));
  rules.Require(c.journal.segment_bytes >= c.broker.max_message_bytes, "journal.segment_bytes",
                c.journal.segment_bytes,
                "at least " + Is("broker.max_message_bytes", c.broker.max_message_bytes));
  rules.Require(c.broker.lease_silence_ms >= 2LL * c.net.heartbeat_ms, "broker.lease_silence_ms",
                c.broker.lease_silence_ms,
                "at least twice " + Is("net.heartbeat_ms", c.net.heartbeat_ms));
}

}  // namespace

std::vector<RuleViolation> CheckRules(const Config& config) {
  RuleChecker rules;
  CheckTask(config, rules);
  CheckModel(config, rules);
  CheckTraining(config, rules);
  CheckExamples(config, rules);
  if (config.rl.steps > 0) {
    CheckObjective(config, rules);
    CheckCritic(config, rules);
    CheckPenalty(config, rules);
  }
  CheckEval(config, rules);
  CheckLearner(config, rules);
  CheckTrained(config, rules);
  CheckTransport(config, rules);
  return rules.Take();
}

}  // namespace thresher::config_internal
