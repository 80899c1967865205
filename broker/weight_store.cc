#include "broker/weight_store.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <span>

#include "common/base/hash.h"
#include "common/data/files.h"

namespace thresher::broker {
namespace {

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

wire::WeightsManifest Describe(PolicyVersion version, std::string_view blob,
                               std::uint32_t chunk_bytes) {
  wire::WeightsManifest manifest;
  manifest.version = version;
  manifest.bytes = blob.size();
  manifest.chunk_bytes = chunk_bytes;
  manifest.hash = HashBytes128(Bytes(blob));
  for (std::size_t at = 0; at < blob.size(); at += chunk_bytes) {
    manifest.chunk_hashes.push_back(HashBytes64(Bytes(blob.substr(at, chunk_bytes))));
  }
  return manifest;
}

// Of "<lineage>.<step>.safetensors"; nothing for other names.
std::optional<PolicyVersion> VersionOf(const std::string& name) {
  unsigned lineage = 0, step = 0;
  int used = 0;
  const bool fits = std::sscanf(name.c_str(), "%u.%u.safetensors%n", &lineage, &step, &used) == 2 &&
                    static_cast<std::size_t>(used) == name.size();
  return fits ? std::optional(PolicyVersion{lineage, step}) : std::nullopt;
}

}  // namespace

std::filesystem::path WeightStore::FileOf(PolicyVersion version) const {
  return folder_ / (version.ToString() + ".safetensors");
}

Status WeightStore::Open(const RunState& state) {
  const Status made = CreateDirectories(folder_);
  if (!made.ok()) return Unavailable(made.message());
  THRESHER_RETURN_IF_ERROR(RemoveTemporaries(folder_).status());
  std::optional<PolicyVersion> newest = state.NewestPublished();
  if (!newest) return Status::Ok();
  for (const std::string& name : NamesIn(folder_)) {
    const std::optional<PolicyVersion> version = VersionOf(name);
    if (version && *version <= *newest) stored_.insert(*version);
  }
  Result<wire::WeightsManifest> manifest = Manifest(state, *newest);
  if (manifest.ok()) return Status::Ok();
  return DataLoss(manifest.status().message());
}

Status WeightStore::Write(PolicyVersion version, const std::string& blob) {
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(FileOf(version), blob));
  stored_.insert(version);
  manifests_[version] = Describe(version, blob, chunk_bytes_);
  return Status::Ok();
}

Result<wire::WeightsManifest> WeightStore::Manifest(const RunState& state, PolicyVersion version) {
  const wire::VersionPublished* published = state.Published(version);
  if (published == nullptr) return NotFound("version " + version.ToString() + " is not published");
  auto known = manifests_.find(version);
  if (known != manifests_.end()) return known->second;
  THRESHER_ASSIGN_OR_RETURN(std::string blob, ReadFile(FileOf(version)));
  wire::WeightsManifest manifest = Describe(version, blob, chunk_bytes_);
  if (manifest.hash != published->hash) {
    return DataLoss(FileOf(version).string() + ": hash " + manifest.hash.ToString() +
                    ", published as " + published->hash.ToString());
  }
  manifests_[version] = manifest;
  return manifest;
}

Result<wire::Chunk> WeightStore::ReadChunk(const RunState& state, PolicyVersion version,
                                           std::uint32_t index) {
  THRESHER_ASSIGN_OR_RETURN(wire::WeightsManifest manifest, Manifest(state, version));
  if (index >= manifest.chunk_hashes.size()) {
    return OutOfRange("chunk " + std::to_string(index) + " of " +
                      std::to_string(manifest.chunk_hashes.size()));
  }
  std::uint64_t offset = std::uint64_t{index} * manifest.chunk_bytes;
  const std::uint64_t size = std::min<std::uint64_t>(manifest.chunk_bytes, manifest.bytes - offset);
  auto unreadable = [&] { return NotFound(FileOf(version).string() + ": cannot be read"); };
  Result<FileHandle> file = FileHandle::Open(FileOf(version), O_RDONLY);
  if (!file.ok()) return unreadable();
  Result<std::string> bytes = file->ReadAt(offset, size);
  if (!bytes.ok() || bytes->size() != size) return unreadable();
  return wire::Chunk{version, index, *std::move(bytes)};
}

std::vector<PolicyVersion> WeightStore::Old(const RunState& state,
                                            const std::set<PolicyVersion>& needed) const {
  std::vector<PolicyVersion> old;
  const std::size_t retain = static_cast<std::size_t>(retain_);
  std::size_t excess = stored_.size() - std::min(stored_.size(), retain);
  const PolicyVersion newest = state.NewestPublished().value_or(PolicyVersion{});
  for (auto it = stored_.begin(); excess > 0; --excess) {
    const PolicyVersion version = *it++;
    if (version != newest && !needed.contains(version)) old.push_back(version);
  }
  return old;
}

void WeightStore::Delete(const std::vector<PolicyVersion>& versions) {
  for (const PolicyVersion& version : versions) {
    const Status removed = Files().Remove(FileOf(version));
    if (!removed.ok() && removed.code() != StatusCode::kNotFound) continue;  // the next time
    stored_.erase(version);
    manifests_.erase(version);
  }
}

std::set<PolicyVersion> NeededVersions(const RunState& state, bool again) {
  std::set<PolicyVersion> needed;
  for (std::uint32_t step = state.remembered_from(); again && step < state.committed_steps();
       ++step) {
    needed.insert({state.lineage(), step});
  }
  for (const auto& [key, unit] : state.groups().units()) needed.insert(unit.issued.version);
  needed.insert({state.lineage(), state.committed_steps()});
  for (const EvalRound& round : state.plan().evals()) {
    if (!state.Evaluated(round.round)) needed.insert(round.version);
  }
  return needed;
}

}  // namespace thresher::broker
