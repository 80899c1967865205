#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "actor/engine/engine.h"
#include "actor/tasks/environment.h"
#include "common/base/status.h"
#include "common/config/config.h"
#include "common/data/trajectory.h"
#include "common/examples/example.h"
#include "common/model/tokenizer.h"

namespace thresher::actor {

// The task options that a configuration asks for.
tasks::TaskOptions TaskOptionsOf(const TaskConfig& config);

// What a sample of the run is asked for; a lease, or a replay.
struct SampleSpec {
  TrajectoryId id;
  std::uint32_t group_size = 1;
  PolicyVersion pinned;
  float temperature = 1.0f;
  std::uint32_t max_new_tokens = 0;
};

// Everything between a sample's identity and its finished record, other than generating tokens:
// prompts, reference traces, grading. Pure: the same identity gives the same record on every actor
// and in replay. Prompts are <bos>, then the environment's prompt; <eos> ends the policy's text.
class Rollout {
 public:
  // `examples`: what supervised samples are, if not the task's traces. Errors: kInvalidArgument
  // (task options, a character outside the tokenizer's alphabet).
  static Result<std::unique_ptr<Rollout>> Make(
      const Config& config, const model::Tokenizer& tokenizer,
      std::unique_ptr<examples::SupervisedSource> examples = nullptr);

  // The request for the engine.
  GenerationRequest Request(const SampleSpec& spec) const;
  // The graded record of a generated sequence.
  Trajectory Finish(const SampleSpec& spec, const GenerationResult& result) const;
  // The record of a sequence that is not finished: ungraded, without text and timings, cancelled.
  Trajectory Prefix(const SampleSpec& spec, const GenerationResult& so_far) const;
  // What the engine needs to go on with such a record. Errors: kFailedPrecondition (it is not the
  // beginning of what `request`, the sample's, asks for: another prompt or sampling, other weights,
  // not cancelled).
  static Result<GeneratedPrefix> Continue(const SampleSpec& spec, const GenerationRequest& request,
                                          const Trajectory& prefix);
  // A reference trace for a supervised sample: correct, off target or perturbed in the configured
  // shares, decided by the sample's own random numbers; or an example. Errors: the source's.
  Result<Trajectory> Reference(const SampleSpec& spec) const;

  const tasks::Environment& environment() const { return *environment_; }

 private:
  Rollout(const Config& config, const model::Tokenizer& tokenizer,
          std::unique_ptr<tasks::Environment> environment,
          std::unique_ptr<examples::SupervisedSource> examples);
  Trajectory TaskTrace(const SampleSpec& spec) const;
  std::vector<std::int32_t> PromptTokens(const tasks::Item& item) const;
  SamplingParams Sampling(const SampleSpec& spec) const;
  Outcome Grade(const tasks::Item& item, const std::string& text) const;
  // All of a generated sequence's but what grading says.
  Trajectory Generated(const SampleSpec& spec, const tasks::Item& item,
                       const GenerationResult& result) const;
  Trajectory NewRecord(const SampleSpec& spec, const tasks::Item& item,
                       std::size_t prompt_tokens) const;

  Config config_;
  const model::Tokenizer& tokenizer_;
  std::unique_ptr<tasks::Environment> environment_;
  std::unique_ptr<examples::SupervisedSource> examples_;  // null: the task's traces
};

}  // namespace thresher::actor
