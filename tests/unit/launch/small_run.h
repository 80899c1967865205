#pragma once

#include <filesystem>
#include <vector>

#include "common/base/hash.h"
#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/wire/records.h"

namespace thresher::launch {

// Writes a small, finished, consistent run directory, file by file, without engine or broker: two
// supervised and two RL steps, two evaluations. What it holds is made up; how it hangs together is
// what a broker would have written.
class SmallRun {
 public:
  explicit SmallRun(const std::filesystem::path& run);
  void Write();

 private:
  void Accept(const TrajectoryId& id, PolicyVersion version, double reward);
  void Train(std::uint32_t step);
  void Publish(std::uint32_t step);
  void Checkpoint(std::uint32_t step);
  void EvaluateAfter(std::uint32_t step);
  void WriteFiles();
  std::vector<wire::BatchEntry> EntriesOf(const std::vector<TrajectoryId>& ids) const;

  std::filesystem::path run_;
  Config config_;
  Plan plan_;
  std::vector<wire::JournalRecord> journal_;
  std::vector<Trajectory> trajectories_;
  std::string metrics_;
  Hash128 chain_, weights_hash_, run_identity_;
  Hash128 state_hash_;  // of the floats behind the header of the newest blob
  std::string blob_;
};

}  // namespace thresher::launch
