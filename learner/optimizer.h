#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/comm/communicator.h"
#include "common/config/config.h"
#include "common/model/resident_parameters.h"
#include "common/model/trained.h"
#include "common/sync/worker_pool.h"
#include "learner/checkpoint.h"
#include "learner/gradient_sync.h"
#include "learner/leaf.h"

namespace thresher::learner {

// What a rank trains, wherever it lies: master weights, both moments of AdamW, and the gradient of
// the step it is in. A step: Compute, AddRanks, Norm, then Step or Skip. Every implementation gives
// the same bits. One thread; calls in another order end the process. Errors: those of passes and
// devices; where memory of a device is short, with the remedy.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // Of a new run or a restored checkpoint; sizes are checked.
  virtual Status Restore(std::vector<float> weights, AdamW::State moments) = 0;
  // From here on adapters are trained (OptimizerOptions::trained has them), with moments of zero,
  // and all else stays. Empty ones begin on the weights that are there; those of a checkpoint,
  // whose weights and moments Restore brings next, are taken as they are.
  virtual Status Adapt(AdapterState adapters);
  // Elements that are trained now.
  virtual std::size_t TrainedCount() const = 0;

  // Moments of zero, as before the first step.
  virtual Status ResetMoments() = 0;

  // The gradient of this rank's leaves (a power of two) under the weights as they are published,
  // summed in the fixed tree. `reference` may be null. The leaves' statistics are added to `stats`
  // in order.
  virtual Status Compute(std::shared_ptr<const model::PackedModel> reference,
                         std::span<const LeafWork> leaves, const ObjectiveSpec& spec,
                         const LeafOptions& options, LeafStats& stats) = 0;
  // Adds the other ranks' in the same tree (comm::TreeAllReduce). Collective. Errors: its, too.
  // Between the beginning of Compute and the end of AddRanks it may use the communicator of its
  // options from another thread.
  virtual Status AddRanks(comm::Communicator& comm) = 0;
  // How long that took since the last call: what was sent and awaited, and what of it held the
  // caller up. Zero where it is not measured apart.
  virtual GradientSync::Figures TakeSyncFigures() { return {}; }
  // Its norm (BlockedNorm). Norm, Step, Copy and Lend are collective with learner.zero.
  virtual Result<double> Norm() = 0;
  // AdamW with gradient * gradient_scale.
  virtual Status Step(double learning_rate, double gradient_scale) = 0;
  // Forgets the gradient.
  virtual Status Skip() = 0;

  // Gives the memory of the device back, until the next Compute takes it again. False: a step's
  // gradient is there, and nothing was done; so never between steps.
  virtual Result<bool> ReleaseDevice() = 0;

  // Between steps. The weights as they are published (model::PublishedElements), on the host until
  // the next Compute, Restore, Lend or ReleaseDevice.
  virtual Result<std::span<const std::byte>> Published() = 0;
  // The master weights on the host until then: where they are, or copied to `room`.
  virtual Result<std::span<const float>> Weights(std::vector<float>& room) = 0;
  // Copies weights and moments into `state`, whose memory is used again. The optimiser goes on.
  virtual Status Copy(TrainState& state) = 0;
  // As Copy, but where all of it lies in the machine's memory nothing is copied: `state`, which
  // stays where it is and as it is until the next Share, has them, and the next step is from there
  // into the memory that it had.
  virtual Status Share(TrainState& state) { return Copy(state); }
  // Puts weights and moments into `state`, for a checkpoint; they are there until TakeBack, which
  // must be the next call and empties both.
  virtual Status Lend(TrainState& state) = 0;
  virtual void TakeBack(TrainState& state) = 0;
  // On the ranks that do not save, while rank 0 is in Copy or Lend: what it needs of them.
  virtual Status ShareShard() { return Status::Ok(); }
};

struct OptimizerOptions {
  model::ModelConfig model;
  OptimizerConfig adamw;
  std::int32_t valid_vocab = 0;        // see PackedModel::Make
  std::size_t leaves = 1;              // of this rank
  bool shared = false;                 // the device is others' until the first Compute
  model::Trained trained{};            // more than all parameters: of an optimiser on the host
  std::uint64_t seed = 0;              // of adapters
  comm::Communicator* comm = nullptr;  // of the ranks; null: there are no others
  bool zero = false;                   // learner.zero
  bool overlap = false;
  bool double_buffer = false;  // of an optimiser that is to Share: has room for it
  std::uint64_t bucket_bytes = 8u << 20;
};
// Where the device's parameters are, else on the host. `workers`: borrowed; they compute the leaves
// if there is no device, and the host's part of a step.
std::unique_ptr<Optimizer> MakeOptimizer(const OptimizerOptions& options, WorkerPool& workers,
                                         model::TrainingDevice device);

}  // namespace thresher::learner
