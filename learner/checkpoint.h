#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/model/run_context.h"
#include "learner/adamw.h"
#include "learner/critic_state.h"

namespace thresher::learner {

// Adapters and the matrices that they are merged with, as model::Lora has them. Empty: none have
// begun.
struct AdapterState {
  std::vector<float> base, weights;
  bool empty() const { return weights.empty(); }
};

// Everything the optimiser loop needs to go on as if it had never stopped.
struct TrainState {
  std::uint32_t lineage = 0;
  std::uint32_t step = 0;      // steps done
  Hash128 chain;               // over the batches of steps 0 .. step - 1
  std::vector<float> weights;  // flat order; masters, which publishing rounds
  AdamW::State optimizer;      // of what is trained
  AdapterState adapters;       // merged into the weights
  // Reference policy of the KL penalty; null when unused.
  std::shared_ptr<const std::vector<float>> reference;
  CriticState critic;  // empty when there is none
};

// RUN/checkpoints/step_NNNNNN: a Hugging Face model folder, weights in the run's dtype, and
// trainer/ with optimizer.safetensors, masters.safetensors (the fp32 weights, where the dtype is
// another), reference.safetensors and critic.safetensors (if any), adapter_model.safetensors,
// adapter_config.json and base.safetensors (model/adapter_files.h, if any) and state.json (step,
// chain, identity, ledger cut). Written to a temporary name, synced, renamed. Returns the hash of
// its manifest. An existing folder of the same name is kept when its contents are equal, else an
// error (kAlreadyExists): a retrained step must reproduce it. `half_written` is called when the
// model is written and the trainer's state is not.
struct SavedCheckpoint {
  std::string folder;  // relative to the run directory
  Hash128 manifest_hash;
};
Result<SavedCheckpoint> SaveCheckpoint(const model::RunContext& run, const TrainState& state,
                                       const std::function<void()>& half_written = {});

// The fp32 weights behind the 16-bit ones of a checkpoint folder; nothing where it holds none.
// Errors: kDataLoss (damaged, of another size).
Result<std::optional<std::vector<float>>> LoadMasters(const std::filesystem::path& folder,
                                                      const model::ModelConfig& config);

// The newest checkpoint that is whole; nothing when there is none. Folders without a valid manifest
// are passed over with a warning in `warnings`. Errors: kFailedPrecondition (another run identity,
// naming the difference), kDataLoss (whole by its manifest, yet unreadable).
Result<std::optional<TrainState>> LoadNewestCheckpoint(const model::RunContext& run,
                                                       std::vector<std::string>& warnings);

// Deletes what a process that died left of a checkpoint it was writing or deleting.
Status RemoveUnfinished(const std::filesystem::path& run_folder);

// Which checkpoints stay.
struct KeepRules {
  int newest = 1;                       // at least 1, besides those below
  int every = 0;                        // those of a multiple of so many steps; 0: none
  std::vector<std::uint32_t> always{};  // those of these steps
  bool Always(std::uint32_t step) const;
};
// Deletes all but those that the rules always keep, the newest others that are whole, and damaged
// ones among them: a damaged one never stands for a whole one. Reads what it keeps of the newest.
Status PruneCheckpoints(const std::filesystem::path& run_folder, const KeepRules& rules);

}  // namespace thresher::learner
