#include "broker/weight_pull.h"

#include <algorithm>

#include "common/base/hash.h"
#include "common/wire/frame.h"

namespace thresher::broker {
namespace {

constexpr std::uint64_t kMaxBlobBytes = std::uint64_t{1} << 40;
constexpr std::size_t kEnvelopeRoom = 1024;  // envelope and fields beside a chunk's bytes

std::uint64_t ChunkCount(const wire::WeightsManifest& m) {
  return (m.bytes + m.chunk_bytes - 1) / m.chunk_bytes;
}

}  // namespace

Status CheckManifest(const wire::WeightsManifest& m, std::size_t max_message_bytes) {
  auto bad = [&](const std::string& what) {
    return InvalidArgument("manifest of version " + m.version.ToString() + ": " + what);
  };
  if (m.bytes == 0 || m.bytes > kMaxBlobBytes) return bad("bytes " + std::to_string(m.bytes));
  if (m.chunk_bytes == 0 || m.chunk_bytes + kEnvelopeRoom > max_message_bytes) {
    return bad("chunk_bytes " + std::to_string(m.chunk_bytes) + "; allowed: 1 to " +
               std::to_string(max_message_bytes - kEnvelopeRoom));
  }
  if (m.chunk_hashes.size() != ChunkCount(m)) {
    return bad(std::to_string(m.chunk_hashes.size()) + " chunk hashes for " +
               std::to_string(ChunkCount(m)) + " chunks");
  }
  return Status::Ok();
}

WeightPull::WeightPull(wire::WeightsManifest manifest, std::uint32_t window, Duration retry_after)
    : manifest_(std::move(manifest)),
      window_(std::max(1u, window)),
      retry_after_(retry_after),
      chunks_(manifest_.chunk_hashes.size()) {}

std::vector<wire::ChunkGet> WeightPull::Wanted(TimePoint now) {
  std::vector<wire::ChunkGet> wanted;
  for (auto& [index, asked] : in_flight_) {
    if (now - asked < retry_after_) continue;
    asked = now;
    wanted.push_back({manifest_.version, index});
  }
  while (in_flight_.size() < window_ && next_ < chunks_.size()) {
    in_flight_[next_] = now;
    wanted.push_back({manifest_.version, next_});
    ++next_;
  }
  return wanted;
}

Status WeightPull::Take(const wire::Chunk& chunk) {
  if (chunk.version != manifest_.version || chunk.index >= next_) {
    return InvalidArgument("chunk " + std::to_string(chunk.index) + " of version " +
                           chunk.version.ToString() + " was not asked for");
  }
  if (!chunks_[chunk.index].empty()) return Status::Ok();
  std::uint64_t offset = std::uint64_t{chunk.index} * manifest_.chunk_bytes;
  std::uint64_t expected = std::min<std::uint64_t>(manifest_.chunk_bytes, manifest_.bytes - offset);
  std::string name = "chunk " + std::to_string(chunk.index) + " of " + chunk.version.ToString();
  if (chunk.bytes.size() != expected) {
    return InvalidArgument(name + " has " + std::to_string(chunk.bytes.size()) +
                           " bytes, expected " + std::to_string(expected));
  }
  auto bytes = std::as_bytes(std::span(chunk.bytes.data(), chunk.bytes.size()));
  if (HashBytes64(bytes) != manifest_.chunk_hashes[chunk.index]) {
    return DataLoss(name + ": hash differs from the manifest");
  }
  chunks_[chunk.index] = chunk.bytes;
  ++received_;
  in_flight_.erase(chunk.index);
  return Status::Ok();
}

Result<std::string> WeightPull::Blob() const {
  THRESHER_CHECK(complete(), "the transfer is not complete");
  std::string blob;
  blob.reserve(manifest_.bytes);
  for (const SharedBytes& chunk : chunks_) blob.append(chunk.view());
  if (HashBytes128(std::as_bytes(std::span(blob.data(), blob.size()))) != manifest_.hash) {
    return DataLoss("weights " + manifest_.version.ToString() +
                    ": hash of the whole differs from the manifest");
  }
  return blob;
}

}  // namespace thresher::broker
