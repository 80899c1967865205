#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "broker/run_state.h"
#include "common/base/status.h"
#include "common/wire/messages.h"

namespace thresher::broker {

// The published versions of a run, one safetensors file each:
// RUN/weights/<lineage>.<step>.safetensors, written whole or not at all. The journal says which
// versions exist and with which hash; files older than weights.retain are deleted unless something
// still needs them. One owner, not thread-safe.
class WeightStore {
 public:
  WeightStore(std::filesystem::path run, std::uint32_t chunk_bytes, int retain)
      : folder_(run / "weights"), chunk_bytes_(chunk_bytes), retain_(retain) {}

  std::filesystem::path FileOf(PolicyVersion version) const;
  // Verifies the file of the newest published version. Errors: kDataLoss naming file.
  Status Open(const RunState& state);
  // Stores a blob whose hash was checked. Errors: kResourceExhausted, kUnavailable: try again.
  Status Write(PolicyVersion version, const std::string& blob);

  // Chunk hashes of a stored version; the whole hash is compared with the published one.
  // Errors: kNotFound (not published, or deleted), kDataLoss.
  Result<wire::WeightsManifest> Manifest(const RunState& state, PolicyVersion version);
  // Errors: kNotFound, kOutOfRange (index).
  Result<wire::Chunk> ReadChunk(const RunState& state, PolicyVersion version, std::uint32_t index);

  // Stored versions beyond the newest `retain` that are not in `needed`; the newest published one
  // is never among them.
  std::vector<PolicyVersion> Old(const RunState& state,
                                 const std::set<PolicyVersion>& needed) const;
  // One that cannot be deleted stays, and is old again.
  void Delete(const std::vector<PolicyVersion>& versions);
  std::uint64_t stored_versions() const { return stored_.size(); }

 private:
  std::filesystem::path folder_;
  std::uint32_t chunk_bytes_;
  int retain_;
  std::set<PolicyVersion> stored_;                            // files of published versions
  std::map<PolicyVersion, wire::WeightsManifest> manifests_;  // of versions read or written
};

// Versions that work still refers to: those of open units, of the next step, and of evaluation
// rounds to come; with `again` also those of steps whose samples may be generated again.
std::set<PolicyVersion> NeededVersions(const RunState& state, bool again = false);

}  // namespace thresher::broker
