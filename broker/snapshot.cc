#include "broker/snapshot.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "broker/state_bytes.h"
#include "broker/state_check.h"
#include "common/base/hash.h"
#include "common/data/files.h"

namespace thresher::broker {
namespace {

constexpr std::string_view kMagic("THRSTA1\0", 8);
constexpr std::string_view kSuffix = ".state";
constexpr std::size_t kChecksumBytes = 8;

std::optional<std::uint64_t> SequenceOf(std::string_view name) {
  if (!name.ends_with(kSuffix)) return std::nullopt;
  std::uint64_t sequence = 0;
  const char* end = name.data() + name.size() - kSuffix.size();
  auto [stop, error] = std::from_chars(name.data(), end, sequence);
  if (error != std::errc() || stop != end) return std::nullopt;
  return sequence;
}

// Behind the format, when the bytes are whole.
Result<StateReader> Opened(std::string_view bytes) {
  if (bytes.size() < kMagic.size() + kChecksumBytes || !bytes.starts_with(kMagic)) {
    return DataLoss("is no snapshot");
  }
  const std::string_view covered = bytes.substr(0, bytes.size() - kChecksumBytes);
  if (HashBytes64(AsBytes(covered)) != LoadLittle<std::uint64_t>(bytes.data() + covered.size())) {
    return DataLoss("checksum");
  }
  StateReader reader(covered.substr(kMagic.size()));
  std::uint32_t format = 0, zero = 0;
  reader(format, zero);
  if (format == kSnapshotFormat) return reader;
  return DataLoss("format " + std::to_string(format) +
                  "; ours: " + std::to_string(kSnapshotFormat));
}

}  // namespace

std::string EncodeState(const RunState& state) {
  StateWriter writer;
  writer(state);
  return writer.Take();
}

std::string EncodeSnapshot(const LogCursor& journal, const LogCursor& store,
                           const std::string& state) {
  StateWriter writer;
  writer(kSnapshotFormat, std::uint32_t{0}, journal, store);
  std::string bytes(kMagic);
  bytes += writer.Take();
  bytes += state;
  AppendLittle<std::uint64_t>(bytes, HashBytes64(AsBytes(bytes)));
  return bytes;
}

Result<Snapshot> DecodeSnapshot(std::string_view bytes, const Plan& plan) {
  THRESHER_ASSIGN_OR_RETURN(StateReader reader, Opened(bytes));
  Snapshot snapshot{{}, {}, RunState(plan)};
  reader(snapshot.journal, snapshot.store, snapshot.state);
  if (!reader.ok() || !reader.at_end()) return DataLoss("is malformed");
  THRESHER_RETURN_IF_ERROR(CheckState(snapshot.state));
  return snapshot;
}

std::filesystem::path SnapshotPath(const std::filesystem::path& folder, std::uint64_t sequence) {
  char name[40];
  std::snprintf(name, sizeof name, "%010llu%s", static_cast<unsigned long long>(sequence),
                kSuffix.data());
  return folder / name;
}

std::vector<SnapshotFile> ListSnapshots(const std::filesystem::path& folder) {
  std::vector<SnapshotFile> files;
  for (const std::string& name : NamesIn(folder)) {
    if (auto sequence = SequenceOf(name)) files.push_back({*sequence, folder / name});
  }
  std::ranges::sort(files, {}, &SnapshotFile::sequence);
  return files;
}

Result<SnapshotHead> ReadSnapshotHead(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  Result<StateReader> reader = Opened(bytes);
  if (!reader.ok()) return DataLoss(path.string() + ": " + reader.status().message());
  SnapshotHead head;
  (*reader)(head.journal, head.store);
  if (!reader->ok()) return DataLoss(path.string() + ": is malformed");
  return head;
}

}  // namespace thresher::broker
