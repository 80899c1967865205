#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "common/base/status.h"
#include "common/data/run_identity.h"

namespace thresher::broker {

// What the processes of a run compute with. The first actor or learner fixes the run's identity;
// every later one must have the same. Where engine.strict is false, one that differs in its
// numerics alone (kernel set, types, cuts) is admitted too: it runs the same policy with other
// roundings, so its log-probabilities may mismatch, which is counted; kMost of them at most.
// RUN/identity.json holds the run's identity, RUN/identities/HASH.json each other one that was ever
// admitted. One owner.
class Identities {
 public:
  static constexpr std::size_t kMost = 64;

  // Reads both. Error: kDataLoss naming the file.
  static Result<Identities> Open(const std::filesystem::path& run, bool strict);

  // Empty: admitted, and on disk. Else what differs, and why that is refused. Error: I/O.
  Result<std::string> Admit(const RunIdentity& identity);

  const std::optional<RunIdentity>& run() const { return run_; }
  Hash128 RunHash() const { return run_ ? run_->Hash() : Hash128{}; }
  // Whether what carries this hash was computed by an admitted process.
  bool Admitted(const Hash128& hash) const;
  // Admitted beside the run's own, by hash.
  const std::map<std::string, RunIdentity>& others() const { return others_; }

 private:
  Identities(std::filesystem::path folder, bool strict)
      : folder_(std::move(folder)), strict_(strict) {}

  void SetRun(const RunIdentity& identity) {
    run_ = identity;
    run_hash_ = identity.Hash();
  }

  std::filesystem::path folder_;
  bool strict_;
  std::optional<RunIdentity> run_;
  Hash128 run_hash_;  // of run_: every record is compared with it
  std::map<std::string, RunIdentity> others_;
};

}  // namespace thresher::broker
