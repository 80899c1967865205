#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/run_state.h"
#include "common/config/plan.h"
#include "common/data/record_log.h"

namespace thresher::broker {

// A RunState on disk, with the places in both logs that it stands for: a start reads it and the
// records behind it instead of the whole journal. Derived: without it a start takes longer, as long
// as all records are there.
//
// `journal/SEQUENCE.state` (ten digits at least): magic "THRSTA1\0", format u32, zero u32, the
// journal's cursor and the store's (segment u32, offset u64, sequence u64, checksum u64 each), the
// state (state_bytes.h), last XXH3-64 of all before; little-endian. Written whole or not at all.
struct Snapshot {
  LogCursor journal;  // the records before it are in the state
  LogCursor store;    // so are the trajectories before it, or they were refused
  RunState state;
};

// Raised when fields are added; a snapshot of another format is passed over.
inline constexpr std::uint32_t kSnapshotFormat = 3;

std::string EncodeState(const RunState& state);
// `state`: of EncodeState.
std::string EncodeSnapshot(const LogCursor& journal, const LogCursor& store,
                           const std::string& state);
// Errors: kDataLoss telling what is wrong, without the path; CheckState's.
Result<Snapshot> DecodeSnapshot(std::string_view bytes, const Plan& plan);

struct SnapshotFile {
  std::uint64_t sequence = 0;  // of the first record behind it
  std::filesystem::path path;
};
std::filesystem::path SnapshotPath(const std::filesystem::path& folder, std::uint64_t sequence);
// Those of `folder`, oldest first.
std::vector<SnapshotFile> ListSnapshots(const std::filesystem::path& folder);
// What stands in the file's head. Error: kDataLoss naming the file.
struct SnapshotHead {
  LogCursor journal, store;
};
Result<SnapshotHead> ReadSnapshotHead(const std::filesystem::path& path);

}  // namespace thresher::broker
