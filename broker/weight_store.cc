#include "broker/weight_store.h"

#include <fcntl.h>

#include <algorithm>
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

}  // namespace

std::filesystem::path WeightStore::FileOf(PolicyVersion version) const {
  return folder_ / (version.ToString() + ".safetensors");
}

Status WeightStore::Open(const RunState& state) {
  const Status made = CreateDirectories(folder_);
  if (!made.ok()) return Unavailable(made.message());
  for (const auto& [version, record] : state.published()) {
    if (Exists(FileOf(version))) ++stored_;
  }
  std::optional<PolicyVersion> newest = state.NewestPublished();
  if (!newest) return Status::Ok();
  Result<wire::WeightsManifest> manifest = Manifest(state, *newest);
  if (manifest.ok()) return Status::Ok();
  return DataLoss(manifest.status().message());
}

Status WeightStore::Write(PolicyVersion version, const std::string& blob) {
  bool replaces = Exists(FileOf(version));
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(FileOf(version), blob));
  if (!replaces) ++stored_;
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

std::vector<PolicyVersion> WeightStore::DeleteOld(const RunState& state,
                                                  const std::set<PolicyVersion>& needed) {
  std::vector<PolicyVersion> gone;
  std::size_t excess = state.published().size() > static_cast<std::size_t>(retain_)
                           ? state.published().size() - static_cast<std::size_t>(retain_)
                           : 0;
  PolicyVersion newest = state.NewestPublished().value_or(PolicyVersion{});
  for (auto it = state.published().begin(); excess > 0; ++it, --excess) {
    PolicyVersion version = it->first;
    if (version == newest || needed.contains(version) || deleted_.contains(version)) continue;
    if (Files().Remove(FileOf(version)).ok()) gone.push_back(version);
    deleted_.insert(version);
    manifests_.erase(version);
  }
  stored_ -= std::min<std::uint64_t>(stored_, gone.size());
  return gone;
}

std::set<PolicyVersion> NeededVersions(const RunState& state) {
  std::set<PolicyVersion> needed;
  for (const auto& [key, unit] : state.groups().units()) needed.insert(unit.issued.version);
  needed.insert({state.lineage(), state.committed_steps()});
  for (const EvalRound& round : state.plan().evals()) {
    if (!state.Evaluated(round.round)) needed.insert(round.version);
  }
  return needed;
}

}  // namespace thresher::broker
