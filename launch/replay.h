#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "actor/engine/engine.h"
#include "actor/rollout.h"
#include "common/base/status.h"
#include "common/data/trajectory.h"
#include "common/model/run_context.h"

namespace thresher::launch {

// Regenerates kept trajectories of a run from their identities: the prompt from the environment,
// the weights from RUN/weights, the tokens by the engine, alone. Needs neither the record's tokens
// nor its logprobs.
class Replayer {
 public:
  // device: see ChooseDevice; any that computes the run's kernel set gives its bits. Errors: those
  // of OpenRun, ChooseDevice and actor::MakeEngine.
  static Result<std::unique_ptr<Replayer>> Open(const std::filesystem::path& run,
                                                const std::string& device = "auto");

  // Errors: kFailedPrecondition naming the oldest version that can be rebuilt (outside the replay
  // window), kDataLoss (damaged weights), kInvalidArgument (a stream that is not generated, several
  // versions).
  Result<Trajectory> Replay(const Trajectory& record);
  const model::RunContext& run() const { return run_; }

 private:
  explicit Replayer(model::RunContext run);
  Result<Trajectory> Reference(const actor::SampleSpec& spec);
  Status LoadVersion(PolicyVersion version);
  std::string OldestAvailable() const;

  model::RunContext run_;
  std::unique_ptr<actor::Rollout> rollout_;
  bool has_examples_ = false;
  std::unique_ptr<actor::Engine> engine_;
};

// Where two records of the same trajectory differ first: empty when tokens and logprob bits are
// equal; else e.g. "position 17: token 9, replayed 11".
std::string FirstDifference(const Trajectory& recorded, const Trajectory& replayed);

}  // namespace thresher::launch
