#pragma once

// Internal to common/wire: one codec per message, and the table that binds the variant Message to
// the union of messages.capnp. Write and Read as in types_codec.h. Payload segments (records, chunk
// bytes) are not part of a codec: PayloadsOf and AttachPayloads move them.

#include <string>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

#include "common/wire/messages.capnp.h"
#include "common/wire/messages.h"

namespace thresher::wire {

// messages_session_codec.cc
void Write(const Credit& value, schema::Credit::Builder out);
Credit Read(schema::Credit::Reader in);
void Write(const Hello& value, schema::Hello::Builder out);
void Write(const Heartbeat& value, schema::Heartbeat::Builder out);
void Write(const Goodbye& value, schema::Goodbye::Builder out);
void Write(const Welcome& value, schema::Welcome::Builder out);
void Write(const Refused& value, schema::Refused::Builder out);
void Write(const Rejoin& value, schema::Rejoin::Builder out);
void Write(const HeartbeatAck& value, schema::HeartbeatAck::Builder out);
void Write(const Shutdown& value, schema::Shutdown::Builder out);
void Write(const RanksMeet& value, schema::RanksMeet::Builder out);
void Write(const RanksMet& value, schema::RanksMet::Builder out);
Hello Read(schema::Hello::Reader in);
Heartbeat Read(schema::Heartbeat::Reader in);
Goodbye Read(schema::Goodbye::Reader in);
Welcome Read(schema::Welcome::Reader in);
Refused Read(schema::Refused::Reader in);
Rejoin Read(schema::Rejoin::Reader in);
HeartbeatAck Read(schema::HeartbeatAck::Reader in);
Shutdown Read(schema::Shutdown::Reader in);
RanksMeet Read(schema::RanksMeet::Reader in);
RanksMet Read(schema::RanksMet::Reader in);

// messages_work_codec.cc
void Write(const LeaseRequest& value, schema::LeaseRequest::Builder out);
void Write(const LeaseRelease& value, schema::LeaseRelease::Builder out);
void Write(const LeaseGrant& value, schema::LeaseGrant::Builder out);
void Write(const Upload& value, schema::Upload::Builder out);
void Write(const UploadAck& value, schema::UploadAck::Builder out);
void Write(const SampleFailed& value, schema::SampleFailed::Builder out);
void Write(const Consumed& value, schema::Consumed::Builder out);
LeaseRequest Read(schema::LeaseRequest::Reader in);
LeaseRelease Read(schema::LeaseRelease::Reader in);
LeaseGrant Read(schema::LeaseGrant::Reader in);
Upload Read(schema::Upload::Reader in);
UploadAck Read(schema::UploadAck::Reader in);
SampleFailed Read(schema::SampleFailed::Reader in);
Consumed Read(schema::Consumed::Reader in);

// messages_step_codec.cc
void Write(const FetchLeaf& value, schema::FetchLeaf::Builder out);
void Write(const LeafPart& value, schema::LeafPart::Builder out);
void Write(const NotReady& value, schema::NotReady::Builder out);
void Write(const StepDone& value, schema::StepDone::Builder out);
void Write(const StepAck& value, schema::StepAck::Builder out);
void Write(const CheckpointDone& value, schema::CheckpointDone::Builder out);
void Write(const CheckpointAck& value, schema::CheckpointAck::Builder out);
FetchLeaf Read(schema::FetchLeaf::Reader in);
LeafPart Read(schema::LeafPart::Reader in);
NotReady Read(schema::NotReady::Reader in);
StepDone Read(schema::StepDone::Reader in);
StepAck Read(schema::StepAck::Reader in);
CheckpointDone Read(schema::CheckpointDone::Reader in);
CheckpointAck Read(schema::CheckpointAck::Reader in);

// messages_weights_codec.cc
void Write(const WeightsManifest& value, schema::WeightsManifest::Builder out);
void Write(const Publish& value, schema::Publish::Builder out);
void Write(const PublishAck& value, schema::PublishAck::Builder out);
void Write(const Announce& value, schema::Announce::Builder out);
void Write(const ManifestGet& value, schema::ManifestGet::Builder out);
void Write(const ChunkGet& value, schema::ChunkGet::Builder out);
void Write(const Chunk& value, schema::Chunk::Builder out);
WeightsManifest Read(schema::WeightsManifest::Reader in);
Publish Read(schema::Publish::Reader in);
PublishAck Read(schema::PublishAck::Reader in);
Announce Read(schema::Announce::Reader in);
ManifestGet Read(schema::ManifestGet::Reader in);
ChunkGet Read(schema::ChunkGet::Reader in);
Chunk Read(schema::Chunk::Reader in);

// The payload segments of a message, borrowed from it; empty for most.
std::vector<std::string_view> PayloadsOf(const Message& message);
// Gives a message read from an envelope its payload segments. Throws Malformed when their number
// does not fit the message.
void AttachPayloads(Message& message, std::vector<SharedBytes> payloads);

// One row of the table: T is the C++ message, the rest its member of the union.
template <typename T, auto kInit, auto kGet, schema::Envelope::Which kWhich>
struct MessageBinding {
  using Type = T;
  static constexpr schema::Envelope::Which which = kWhich;
  const char* name;

  static void WriteTo(const T& value, schema::Envelope::Builder out) {
    Write(value, (out.*kInit)());
  }
  static Message ReadFrom(schema::Envelope::Reader in) { return Read((in.*kGet)()); }
};

// clang-format off
#define THRESHER_WIRE_BIND(Type, UNION_NAME)                                   \
  MessageBinding<Type, &schema::Envelope::Builder::init##Type,                 \
                 &schema::Envelope::Reader::get##Type,                         \
                 schema::Envelope::Which::UNION_NAME>{#Type}
// The one place that binds messages to union members; the order is that of Message, the kind byte.
inline constexpr auto kMessageTable = std::tuple{
    THRESHER_WIRE_BIND(Hello, HELLO),
    THRESHER_WIRE_BIND(Heartbeat, HEARTBEAT),
    THRESHER_WIRE_BIND(Goodbye, GOODBYE),
    THRESHER_WIRE_BIND(LeaseRequest, LEASE_REQUEST),
    THRESHER_WIRE_BIND(LeaseRelease, LEASE_RELEASE),
    THRESHER_WIRE_BIND(Upload, UPLOAD),
    THRESHER_WIRE_BIND(SampleFailed, SAMPLE_FAILED),
    THRESHER_WIRE_BIND(FetchLeaf, FETCH_LEAF),
    THRESHER_WIRE_BIND(StepDone, STEP_DONE),
    THRESHER_WIRE_BIND(Publish, PUBLISH),
    THRESHER_WIRE_BIND(CheckpointDone, CHECKPOINT_DONE),
    THRESHER_WIRE_BIND(ManifestGet, MANIFEST_GET),
    THRESHER_WIRE_BIND(ChunkGet, CHUNK_GET),
    THRESHER_WIRE_BIND(Chunk, CHUNK),
    THRESHER_WIRE_BIND(Welcome, WELCOME),
    THRESHER_WIRE_BIND(Refused, REFUSED),
    THRESHER_WIRE_BIND(Rejoin, REJOIN),
    THRESHER_WIRE_BIND(LeaseGrant, LEASE_GRANT),
    THRESHER_WIRE_BIND(UploadAck, UPLOAD_ACK),
    THRESHER_WIRE_BIND(LeafPart, LEAF_PART),
    THRESHER_WIRE_BIND(NotReady, NOT_READY),
    THRESHER_WIRE_BIND(StepAck, STEP_ACK),
    THRESHER_WIRE_BIND(PublishAck, PUBLISH_ACK),
    THRESHER_WIRE_BIND(CheckpointAck, CHECKPOINT_ACK),
    THRESHER_WIRE_BIND(Announce, ANNOUNCE),
    THRESHER_WIRE_BIND(HeartbeatAck, HEARTBEAT_ACK),
    THRESHER_WIRE_BIND(Shutdown, SHUTDOWN),
    THRESHER_WIRE_BIND(WeightsManifest, WEIGHTS_MANIFEST),
    THRESHER_WIRE_BIND(RanksMeet, RANKS_MEET),
    THRESHER_WIRE_BIND(RanksMet, RANKS_MET),
    THRESHER_WIRE_BIND(Consumed, CONSUMED),
};
#undef THRESHER_WIRE_BIND
// clang-format on

inline constexpr std::size_t kMessageKinds = std::variant_size_v<Message>;

// Calls visit(binding) for the row of kind `index`, index < kMessageKinds.
template <std::size_t kRow = 0, typename Visitor>
auto VisitBinding(std::size_t index, Visitor&& visit) {
  if constexpr (kRow + 1 < kMessageKinds) {
    if (index != kRow) return VisitBinding<kRow + 1>(index, visit);
  }
  return visit(std::get<kRow>(kMessageTable));
}

}  // namespace thresher::wire
