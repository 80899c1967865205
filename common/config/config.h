#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace thresher {

// A configuration that cannot be used. what() is one or more lines, each naming the file, the
// key path, the value found and what is allowed. Caught once, in main; exit code 2.
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The typed configuration. Ranges, defaults and documentation of every key stand in
// common/config/schema.cc, the only place that maps keys to fields.

struct RunConfig {
  std::string name;  // also the prefix of the run directory, runs/<name>-NNN
  std::uint64_t seed = 0;
  std::string mode;  // "sync"
};

struct TaskConfig {
  std::string name;  // countdown | digits
  int numbers = 0;   // how many numbers an instance has
  int max_number = 0;
  int min_target = 0;
  int max_target = 0;
  bool use_all = false;  // every number must be used
  double heldout_fraction = 0;
  // Reward of outcomes that are not scored.
  double reward_unparsable = 0;
  double reward_timed_out = 0;
  double reward_crashed = 0;
  double reward_rejected = 0;
};

struct ModelConfigSection {
  std::string init;    // empty: random; else a checkpoint folder to start from
  std::string family;  // llama | qwen2 | qwen3
  std::string dtype;   // float32 | bfloat16: of the published weights
  int layers = 0;
  int width = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int ffn_width = 0;
  int context = 0;  // longest sequence in tokens, prompt included
  bool tied_embeddings = true;
  double rope_theta = 0;
  double norm_eps = 0;
  double init_std = 0;
};

struct SupervisedConfig {
  int steps = 0;
  int batch = 0;          // sequences a step
  double off_target = 0;  // share of traces that are legal games for another target
  double perturbed = 0;   // share of perturbed traces
  double learning_rate = 0;
  double min_learning_rate = 0;
  int warmup_steps = 0;
  std::string schedule;    // constant | linear | cosine
  std::string source;      // reference | jsonl | trajectories
  std::string file;        // jsonl: weighted paths (data_files.h)
  std::string run;         // trajectories: weighted paths of run folders
  std::string loss_roles;  // of conversations, separated by commas
  std::string over_long;   // refuse | truncate | drop
  // Of the trajectories of earlier runs.
  double min_reward = 0;
  int from_step = 0;  // of the version that drew them
  int to_step = 0;    // 0: no end
  // Examples that are not trained on, and whose loss is measured.
  std::string eval_file;
  double eval_share = 0;
  int eval_every = 0;     // steps; 0: never
  int eval_examples = 0;  // at most
  int mixture_batch = 0;  // sequences of an RL step, with objective.supervised_coefficient

  bool FromFiles() const { return source != "reference"; }
};

struct RlConfig {
  int steps = 0;
  int groups = 0;      // prompts a step
  int group_size = 0;  // samples a prompt
  double learning_rate = 0;
  double min_learning_rate = 0;
  int warmup_steps = 0;
  std::string schedule;
  int epochs = 0;       // times that a batch is trained on
  int minibatches = 0;  // optimiser steps an epoch
  bool drop_zero_variance = true;
  bool dynamic_sampling = false;  // rounds of groups until enough of them are informative
  int max_rounds = 0;
  std::string when_short;        // train | fail
  bool permute_rewards = false;  // control: rewards permuted within the batch
};

// What a step of the reinforcement phase minimises; learner/objective.h and advantage.h have the
// formulas.
struct ObjectiveConfig {
  std::string
      preset;  // custom | grpo | ...: what it says of other keys holds where they are not set
  std::string advantage;
  double accept = 0;
  std::string ratio;               // token | sequence | none
  std::string ratio_distribution;  // full | sampled
  std::string surrogate;           // clip | cispo | plain
  double clip_low = 0;
  double clip_high = 0;
  double dual_clip = 0;
  std::string old;         // behaviour | recomputed
  std::string correction;  // none | truncated | masked
  std::string correction_level;
  double correction_low = 0;
  double correction_high = 0;
  std::string aggregate;      // token_mean | sequence_mean | constant
  double kl = 0;              // against the policy at the start of the phase; 0: off
  std::string kl_in;          // loss | reward
  std::string kl_estimator;   // k3 | k2 | k1
  int reference_every = 0;    // steps; 0: the reference stays
  double entropy = 0;         // coefficient of the bonus
  double overlong_share = 0;  // of sampling.max_new_tokens
  double overlong_penalty = 0;
  double length_reward = 0;  // coefficient
  bool mask_truncated = false;
  double supervised_coefficient = 0;  // of the loss of examples beside the policy's; 0: none
  std::string critic;                 // none | own | shared
  double critic_learning_rate = 0;
  int critic_warmup_steps = 0;   // of the phase, in which the policy stays as it is
  double value_coefficient = 0;  // shared: of the value loss in the trunk
  double value_clip = 0;         // 0: off
  std::string step_rewards;      // none, process
  double gamma = 0, gae_lambda = 0;
  double rho_bar = 0, c_bar = 0;  // vtrace
};

struct SamplingConfig {
  double temperature = 0;
  int max_new_tokens = 0;
  // Of training samples.
  int top_k = 0;
  double top_p = 1, min_p = 0, repetition_penalty = 1;
};

struct EvalConfig {
  int items = 0;    // held-out items of the evaluations that end a phase
  int samples = 0;  // per item
  double temperature = 0;
  int every = 0;  // RL steps between small evaluations; 0: none
  int every_items = 0;
};

struct OptimizerConfig {
  double beta1 = 0, beta2 = 0, epsilon = 0, weight_decay = 0;
  double max_grad_norm = 0;  // 0: no clipping
};

struct LearnerConfig {
  int ranks = 0;
  std::string communicator;    // auto | local | mpi | nccl
  int threads = 0;             // of each rank; leaves run in parallel
  int grad_leaves = 0;         // power of two, at least ranks
  std::string device;          // of the leaves: cpu | cuda | cuda:N | a list of these
  int audit_every = 0;         // batches between bit-for-bit audits of recorded logprobs; 1: every
  int micro_batch_tokens = 0;  // tokens packed into one forward pass inside a leaf
  bool recompute_activations = false;  // in the backward pass, instead of keeping them
  bool offload_optimizer = false;      // masters, moments, sums of gradients: not on the GPU
  int zero = 0;                        // 0 | 1: each rank steps its shard of the weights
  bool overlap = false;                // gradients are reduced while the backward pass goes on
  std::uint64_t bucket_bytes = 0;      // that are reduced at a time
  int collective_timeout_seconds = 0;  // a collective that takes longer ends the job
  int max_restarts = 0;
  std::uint64_t memory_bytes = 0;  // that a rank may need by its estimate; 0: what the machine has
  std::string freeze;  // names of parameters and patterns of them; empty: all are trained
};

// Low-rank adapters instead of the matrices themselves (common/model/lora.h).
struct LoraConfig {
  int rank = 0;  // 0: off
  double alpha = 0;
  bool rank_stabilised = false;
  std::string targets;  // all-linear, or names of projections
  std::string phase;    // rl | all

  bool on() const { return rank > 0; }
};

struct ActorConfig {
  int count = 0;
  std::string device;  // of the engines: cpu | cuda | cuda:N | a list of these
  int threads = 0;
  int max_batch = 0;  // sequences decoded together
  int prefill_chunk_tokens = 0;
  int kv_pages = 0;      // pages of 16 positions in the cache; 0: fits max_batch
  int upload_batch = 0;  // trajectories an upload carries at most
  // Tokens of an unfinished sequence that a death of everything may cost; 0: all of them.
  int partial_tokens = 0;
  int max_restarts = 0;
};

struct BrokerConfig {
  int lookahead_steps = 0;  // supervised steps issued ahead of the learner
  int max_attempts = 0;     // leases of one item before it is dropped as `deadline`
  int lease_silence_ms = 0;
  int lease_min_progress_ms = 0;
  int max_message_bytes = 0;
  std::uint64_t memory_bytes = 0;  // 0: derived, see broker_memory.h
};

struct JournalConfig {
  std::string mode;         // off | async | durable
  std::string compression;  // none | zstd
  int segment_bytes = 0;
  int group_commit_ms = 0;
  int group_commit_bytes = 0;
  int snapshot_records = 0;
  std::uint64_t keep_bytes = 0;  // 0: all

  // Actors keep what they sent until it is consumed; nothing waits for trajectories to be written.
  bool off() const { return mode == "off"; }
};

struct TrajectoriesConfig {
  std::uint64_t keep_bytes = 0;  // 0: all
};

struct CheckpointConfig {
  int every = 0;              // steps between checkpoints; phase ends always make one
  int keep = 0;               // newest kept besides those at phase ends
  int keep_every = 0;         // those of every so many steps are kept for good; 0: none
  int keep_best = 0;          // so many are kept by pass@1 of their evaluation
  bool background = true;     // written while the next steps go on
  bool double_buffer = true;  // no copy is made for that, where that can be
};

struct WeightsConfig {
  int retain = 0;  // newest published versions kept for replay
  int chunk_bytes = 0;
  int window = 0;  // chunks asked for at once
};

struct MetricsConfig {
  bool tensorboard = true;  // event files beside metrics.jsonl
};

struct NetConfig {
  std::string listen;  // "ipc" or tcp://address:port (port 0: any free one)
  std::string http;    // address:port of status and metrics; port 0: any free one
  int heartbeat_ms = 0;
};

struct EngineConfig {
  std::string kernels;     // auto | portable | avx2 | avx512 | ...
  std::string kernel_set;  // auto | cpu-fp32-v1 | ...; a run directory holds what auto stood for
  bool strict = true;
  bool colocated = false;  // actor and learner take turns on a GPU
};

struct Config {
  RunConfig run;
  TaskConfig task;
  ModelConfigSection model;
  SupervisedConfig supervised;
  RlConfig rl;
  ObjectiveConfig objective;
  SamplingConfig sampling;
  EvalConfig eval;
  OptimizerConfig optimizer;
  LearnerConfig learner;
  LoraConfig lora;
  ActorConfig actors;
  BrokerConfig broker;
  JournalConfig journal;
  TrajectoriesConfig trajectories;
  CheckpointConfig checkpoint;
  WeightsConfig weights;
  MetricsConfig metrics;
  NetConfig net;
  EngineConfig engine;
  std::string controls;  // none | permuted | supervised | all
};

// The items of a list in a text, without the blanks around them: "a, b" is {"a", "b"}; what is
// empty is none.
std::vector<std::string> ListItems(const std::string& text);

// Whether any process of the run computes on a GPU.
bool UsesGpus(const Config& config);

// One documented key, for `thresher check`, configs/README.md and suggestions.
struct KeyDoc {
  std::string path;     // "rl.group_size"
  std::string type;     // integer | number | boolean | text
  std::string allowed;  // "1 to 65536", "sync", ...
  std::string default_value;
  std::string doc;
};
std::vector<KeyDoc> DocumentedKeys();

// Reads `file`, applies `overrides` ("a.b=c") in order, checks types, ranges and the rules that
// span several keys. Throws ConfigError: missing or unreadable file, YAML syntax (with line),
// unknown key (with the nearest known one), wrong type, out of range, inconsistent keys.
Config LoadConfig(const std::filesystem::path& file, const std::vector<std::string>& overrides);
// The same from text; `origin` names it in errors.
Config ParseConfig(const std::string& yaml, const std::string& origin,
                   const std::vector<std::string>& overrides);
// Every key with its value, commented, in schema order; ParseConfig of it gives an equal Config.
std::string ResolvedYaml(const Config& config);
// Hash of the keys that the run's results depend on: all but names, addresses, process counts,
// threads, journal mode and retention. Two runs with equal hash and code give equal weights.
std::string ResultKeysText(const Config& config);

}  // namespace thresher
