#include "common/wire/messages_codec.h"
#include "common/wire/types_codec.h"

namespace thresher::wire {

void Write(const WeightsManifest& value, schema::WeightsManifest::Builder out) {
  Write(value.version, out.initVersion());
  out.setBytes(value.bytes);
  out.setChunkBytes(value.chunk_bytes);
  Write(value.hash, out.initHash());
  auto hashes = out.initChunkHashes(value.chunk_hashes.size());
  for (std::size_t i = 0; i < value.chunk_hashes.size(); ++i) hashes.set(i, value.chunk_hashes[i]);
}
WeightsManifest Read(schema::WeightsManifest::Reader in) {
  WeightsManifest manifest;
  manifest.version = Read(in.getVersion());
  manifest.bytes = in.getBytes();
  manifest.chunk_bytes = in.getChunkBytes();
  manifest.hash = Read(in.getHash());
  for (std::uint64_t hash : in.getChunkHashes()) manifest.chunk_hashes.push_back(hash);
  return manifest;
}

void Write(const Publish& value, schema::Publish::Builder out) {
  Write(value.manifest, out.initManifest());
}
Publish Read(schema::Publish::Reader in) { return {Read(in.getManifest())}; }

void Write(const PublishAck& value, schema::PublishAck::Builder out) {
  Write(value.version, out.initVersion());
  out.setOk(value.ok);
  out.setReason(ToText(value.reason));
}
PublishAck Read(schema::PublishAck::Reader in) {
  return {Read(in.getVersion()), in.getOk(), ToString(in.getReason())};
}

void Write(const Announce& value, schema::Announce::Builder out) {
  Write(value.manifest, out.initManifest());
}
Announce Read(schema::Announce::Reader in) { return {Read(in.getManifest())}; }

void Write(const ManifestGet& value, schema::ManifestGet::Builder out) {
  Write(value.version, out.initVersion());
}
ManifestGet Read(schema::ManifestGet::Reader in) { return {Read(in.getVersion())}; }

void Write(const ChunkGet& value, schema::ChunkGet::Builder out) {
  Write(value.version, out.initVersion());
  out.setIndex(value.index);
}
ChunkGet Read(schema::ChunkGet::Reader in) { return {Read(in.getVersion()), in.getIndex()}; }

void Write(const Chunk& value, schema::Chunk::Builder out) {
  Write(value.version, out.initVersion());
  out.setIndex(value.index);
}
Chunk Read(schema::Chunk::Reader in) { return {Read(in.getVersion()), in.getIndex(), {}}; }

}  // namespace thresher::wire
