#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/examples/renderer.h"

namespace thresher::examples {

// The examples of one file or one run folder. Immutable; threads share it.
class Rows {
 public:
  virtual ~Rows() = default;
  virtual std::uint64_t size() const = 0;      // to train on
  virtual std::uint64_t held_out() const = 0;  // apart from these
  virtual Result<Example> At(std::uint64_t row) const = 0;
  virtual Result<Example> HeldOut(std::uint64_t row) const = 0;
  virtual const SourceCounts& counts() const = 0;
  virtual Hash128 hash() const = 0;
};

struct RowsOptions {
  double held_out_share = 0;
  // The hash is known to be that of a file that was read through: what each line says is looked at
  // when it is asked for. For sources that drop nothing.
  bool trusted = false;
};

// Lines of a JSONL file; equal lines are held out together. Errors, naming the file and, where
// there is one, line and field: those of LineFile, ParseChatLine and Renderer.
Result<std::unique_ptr<Rows>> OpenLines(const std::filesystem::path& file, const Renderer& renderer,
                                        const RowsOptions& options);

// Which trajectories of an earlier run.
struct TrajectoryFilter {
  double min_reward = 1;
  std::uint32_t from_step = 0, to_step = 0;  // of the version that drew; to_step 0: any
};

// Verified trajectories that the run `folder` generated for training (not for evaluation) and that
// ended by themselves, in order of their ids, whatever the order in which they came; samples of one
// task instance are held out together. Their tokens are taken as they are. Errors name the folder:
// kInvalidArgument (another tokenizer, too long, none is left), those of TrajectoryStoreReader.
Result<std::unique_ptr<Rows>> OpenTrajectories(const std::filesystem::path& folder,
                                               const RenderOptions& render,
                                               const TrajectoryFilter& filter,
                                               const RowsOptions& options);

// Whether a share holds out what has this hash.
bool IsHeldOut(const Hash128& hash, double share);

}  // namespace thresher::examples
