#include "actor/weight_receiver.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/hash.h"

namespace thresher::actor {

WeightReceiver::WeightReceiver(Poster post, std::uint32_t window, Duration retry)
    : post_(std::move(post)), window_(std::max(1u, window)), retry_(retry) {}

Status WeightReceiver::Begin(const wire::WeightsManifest& manifest, TimePoint now) {
  if (manifest_ && manifest_->version == manifest.version && manifest_->hash == manifest.hash) {
    return Status::Ok();
  }
  // Chunks are copied to where the manifest says they belong: it must not point beyond the blob.
  const std::uint64_t width = manifest.chunk_bytes;
  if (width == 0 || manifest.bytes == 0 ||
      manifest.chunk_hashes.size() != (manifest.bytes - 1) / width + 1) {
    return InvalidArgument("manifest of version " + manifest.version.ToString() + ": " +
                           std::to_string(manifest.chunk_hashes.size()) + " chunks of " +
                           std::to_string(width) + " bytes are not " +
                           std::to_string(manifest.bytes) + " bytes");
  }
  manifest_ = manifest;
  Restart(now);
  return Status::Ok();
}

void WeightReceiver::Abandon(PolicyVersion version) {
  if (manifest_ && manifest_->version == version) manifest_.reset();
}

void WeightReceiver::Restart(TimePoint now) {
  if (!manifest_) return;
  blob_.assign(manifest_->bytes, '\0');
  chunks_.assign(manifest_->chunk_hashes.size(), ChunkState::kMissing);
  asked_ = here_ = 0;
  last_progress_ = now;
  AskMore(now);
}

std::size_t WeightReceiver::ChunkSize(std::uint32_t index) const {
  std::size_t begin = static_cast<std::size_t>(index) * manifest_->chunk_bytes;
  return std::min<std::size_t>(manifest_->chunk_bytes, manifest_->bytes - begin);
}

void WeightReceiver::AskMore(TimePoint now) {
  for (std::uint32_t i = 0; i < chunks_.size() && asked_ < window_; ++i) {
    if (chunks_[i] != ChunkState::kMissing) continue;
    chunks_[i] = ChunkState::kAsked;
    ++asked_;
    post_(wire::ChunkGet{manifest_->version, i});
  }
}

void WeightReceiver::OnChunk(const wire::Chunk& chunk, TimePoint now) {
  if (!manifest_ || chunk.version != manifest_->version || chunk.index >= chunks_.size() ||
      chunks_[chunk.index] != ChunkState::kAsked) {
    return;
  }
  --asked_;
  last_progress_ = now;
  bool whole =
      chunk.bytes.size() == ChunkSize(chunk.index) &&
      HashBytes64(std::as_bytes(std::span(chunk.bytes))) == manifest_->chunk_hashes[chunk.index];
  if (whole) {
    std::memcpy(blob_.data() + static_cast<std::size_t>(chunk.index) * manifest_->chunk_bytes,
                chunk.bytes.data(), chunk.bytes.size());
    chunks_[chunk.index] = ChunkState::kHere;
    ++here_;
  } else {
    ++damaged_chunks_;
    chunks_[chunk.index] = ChunkState::kMissing;
  }
  AskMore(now);
}

void WeightReceiver::Tick(TimePoint now) {
  if (!manifest_ || now - last_progress_ < retry_) return;
  for (ChunkState& state : chunks_) {
    if (state == ChunkState::kAsked) state = ChunkState::kMissing;
  }
  asked_ = 0;
  last_progress_ = now;
  AskMore(now);
}

std::optional<std::string> WeightReceiver::TakeComplete(TimePoint now) {
  if (!manifest_ || here_ < chunks_.size()) return std::nullopt;
  if (HashBytes128(std::as_bytes(std::span(blob_))) != manifest_->hash) {
    ++damaged_chunks_;
    Restart(now);
    return std::nullopt;
  }
  manifest_.reset();
  return std::move(blob_);
}

}  // namespace thresher::actor
