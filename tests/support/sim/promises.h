#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/config/config.h"
#include "tests/support/sim/scheduler.h"

namespace thresher::sim {

// What the broker has promised to its peers, read off the frames as it hands them to its socket:
// each promise must be in the journal from then on, whatever dies. With journal.mode off an
// accepted upload is promised when it is consumed: its samples are then settled for good.
class Promises {
 public:
  explicit Promises(const Config& config) : off_(config.journal.off()) {}

  // A program hands a frame to its socket.
  void OnSent(const Process& sender, const std::string& bytes);
  // The broker hands a frame for the process `pid` to its socket. Whether that is a promise.
  bool OnPromised(std::uint32_t pid, const std::string& bytes);

  // Recovers `run` as a broker that starts would. What is promised and not there, one a line; empty
  // when all is.
  std::string Missing(const std::filesystem::path& run, const Config& config) const;
  std::size_t accepted() const { return accepted_.size(); }

 private:
  void Prefix(const TrajectoryId& id, std::uint32_t tokens) {
    prefixes_[id] = std::max(prefixes_[id], tokens);
  }

  bool off_;
  struct Record {
    TrajectoryId id;
    std::uint32_t prefix = 0;  // tokens of an unfinished one; 0: finished
  };
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::vector<Record>> uploads_;     // by pid
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::vector<TrajectoryId>> kept_;  // of these
  std::set<TrajectoryId> accepted_;
  std::map<TrajectoryId, std::uint32_t> prefixes_;  // tokens that are kept, or were granted
  std::set<std::uint32_t> committed_;               // steps
  std::set<std::uint32_t> durable_;                 // steps contained in a checkpoint
  std::set<PolicyVersion> published_;
};

}  // namespace thresher::sim
