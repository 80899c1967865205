#pragma once

// Random contents for every message, record and trajectory. Aggregates are built by position, so a
// field added to one of them and forgotten here is a compiler warning.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/wire/messages.h"
#include "common/wire/records.h"

namespace thresher::wire {

class RandomValues {
 public:
  explicit RandomValues(std::uint64_t seed) : engine_(seed) {}

  std::uint64_t Below(std::uint64_t bound) { return engine_() % bound; }
  // Often an extreme, since these are where codecs break.
  std::uint64_t U64() {
    switch (Below(4)) {
      case 0:
        return 0;
      case 1:
        return ~std::uint64_t{0};
      default:
        return engine_();
    }
  }
  std::uint32_t U32() { return static_cast<std::uint32_t>(U64()); }
  bool Bool() { return Below(2) == 1; }
  // Never NaN, which is unequal to itself; NaN has a test of its own.
  float Float() {
    float value = std::bit_cast<float>(static_cast<std::uint32_t>(engine_()));
    return value == value ? value : -0.0f;
  }
  double Double() {
    double value = std::bit_cast<double>(engine_());
    return value == value ? value : -0.0;
  }
  // Any bytes, zeros and invalid UTF-8 included.
  std::string Text(std::size_t max = 40) {
    std::string text(Below(max + 1), '\0');
    for (char& c : text) c = static_cast<char>(engine_());
    return text;
  }
  Hash128 Hash() { return {U64(), U64()}; }
  PolicyVersion Version() { return {U32(), U32()}; }
  TrajectoryId Id() {
    return {static_cast<Stream>(Below(kStreamCount)),
            static_cast<std::uint16_t>(Below(TrajectoryId::kMaxIsland + 1)),
            U64() & TrajectoryId::kMaxItem,
            static_cast<std::uint32_t>(U64() & TrajectoryId::kMaxSample)};
  }
  template <typename Make>
  auto List(Make make, std::size_t max = 6) {
    std::vector<decltype(make())> values;
    for (std::size_t i = Below(max + 1); i > 0; --i) values.push_back(make());
    return values;
  }
  auto Metrics() {
    return List([&] { return std::pair{Text(), Double()}; });
  }
  auto Fences() {
    return List([&] { return FencingToken(U64()); });
  }
  auto Numbers() {
    return List([&] { return U64(); });
  }
  Credit Given() { return {U64(), U64()}; }
  WeightsManifest Manifest() {
    return {Version(), U64(), U32(), Hash(), List([&] { return U64(); }, 40)};
  }

  Trajectory MakeTrajectory();
  Message MakeMessage(std::size_t kind);
  JournalRecord MakeJournalRecord(std::size_t kind);

 private:
  RunIdentity Identity();
  Lease MakeLease();
  Message MakeReply(std::size_t kind);

  std::mt19937_64 engine_;
};

inline RunIdentity RandomValues::Identity() {
  return {Text(), Text(), Text(), Text(), Text(), Text(), U32(), U32(),
          U32(),  Text(), Hash(), Hash(), Hash(), Hash(), U64()};
}

inline Lease RandomValues::MakeLease() {
  TrajectoryId id = Id();
  auto samples = static_cast<std::uint32_t>(Below(TrajectoryId::kMaxSample + 2 - id.sample));
  return {FencingToken(U64()),
          static_cast<Purpose>(Below(4)),
          id.stream,
          id.island,
          id.item,
          id.sample,
          samples,
          U32(),
          Bool(),
          Version(),
          Float(),
          U32()};
}

inline Trajectory RandomValues::MakeTrajectory() {
  Trajectory t;
  auto tokens = static_cast<std::uint32_t>(Below(200));
  t.id = Id();
  t.group_size = U32();
  t.pinned = Version();
  t.prompt_hash = Hash();
  t.instance_hash = Hash();
  t.task = Text();
  for (std::uint32_t i = 0; i < tokens; ++i) t.tokens.push_back(static_cast<std::int32_t>(U32()));
  for (std::uint32_t begin = 0; begin < tokens;) {
    auto end = static_cast<std::uint32_t>(begin + 1 + Below(tokens - begin));
    t.segments.push_back({begin, end, static_cast<Role>(Below(4)), Bool()});
    t.versions.push_back({begin, end, Version()});
    t.kv_history.push_back({0, end, Version(), Bool()});
    begin = end;
  }
  t.sampling = {Float(), U32(), Float(), Float(), Float(), U32()};
  std::int32_t token = -1;
  for (std::uint64_t i = Below(4); i > 0; --i) {
    token += 1 + static_cast<std::int32_t>(Below(9));
    t.sampling.logit_bias.push_back({token, static_cast<float>(Below(99)) / 7});
  }
  for (std::uint64_t i = Below(4); i > 0; --i) t.sampling.allowed_tokens.push_back(++token);
  t.finish = static_cast<FinishReason>(Below(5));
  if (t.finish != FinishReason::kReference) {
    bool kept = Bool();
    for (std::uint32_t i = t.PolicyTokenCount(); i > 0; --i) {
      t.logprobs.push_back(Float());
      if (kept) t.kept_mass_logprobs.push_back(Float());
    }
  }
  t.outcome = {static_cast<OutcomeKind>(Below(5)),
               Double(),
               Double(),
               Text(),
               List([&] {
                 return SubScore{Text(), Double()};
               }),
               {},
               Bool()};
  if (tokens > 0) {
    t.outcome.position_rewards = List([&] {
      return PositionReward{static_cast<std::uint32_t>(Below(tokens)), Text(), Double()};
    });
  }
  t.text = Text(300);
  t.has_parent = Bool();
  t.parent = Id();
  t.parent_position = U32();
  t.episode = U64();
  t.episode_index = U32();
  t.timings = {Float(), Float(), Float(), Float()};
  t.actor = ActorId(U32());
  t.incarnation = Incarnation(U64());
  t.run_identity = Hash();
  return t;
}

inline Message RandomValues::MakeMessage(std::size_t kind) {
  switch (kind) {
    case 0:
      return Hello{static_cast<PeerRole>(Below(3)),
                   U32(),
                   U32(),
                   Text(),
                   U32(),
                   Identity(),
                   Bool(),
                   Version(),
                   Hash()};
    case 1:
      return Heartbeat{U64(),    U32(),     Bool(),  Version(), Hash(),
                       Fences(), Metrics(), Given(), Numbers()};
    case 2:
      return Goodbye{Text(), U64(), U64()};
    case 3:
      return LeaseRequest{U64(), U32(), Bool(), Version()};
    case 4:
      return LeaseRelease{FencingToken(U64()), List([&] { return Id(); }), Text()};
    case 5: {
      Upload upload{U64(), Fences(), {}};
      for (std::size_t i = 0; i < upload.fences.size(); ++i) upload.records.push_back(Text(2000));
      return upload;
    }
    case 6:
      return SampleFailed{FencingToken(U64()), Id(), Text(), Text()};
    case 7:
      return FetchLeaf{U64(), U32(), U32(), U32(), U32()};
    case 8:
      return StepDone{
          U32(), U32(), Hash(), Hash(),    Hash(),
          U64(), U64(), U64(),  Metrics(), List([&] { return std::pair{U32(), U64()}; })};
    case 9:
      return Publish{Manifest()};
    case 10:
      return CheckpointDone{U32(), U32(), Text(), Hash(), Hash()};
    case 11:
      return ManifestGet{Version()};
    case 12:
      return ChunkGet{Version(), U32()};
    case 13:
      return Chunk{Version(), U32(), Text(5000)};
    default:
      return MakeReply(kind);
  }
}

inline Message RandomValues::MakeReply(std::size_t kind) {
  switch (kind) {
    case 14:
      return Welcome{
          BrokerEpoch(U64()), U64(), U32(), Bool(), Manifest(), U32(), U32(), Given(), Bool()};
    case 15:
      return Refused{Text()};
    case 16:
      return Rejoin{};
    case 17:
      return LeaseGrant{U64(), List([&] { return MakeLease(); }), Bool(),
                        List([&] { return SharedBytes(Text(2000)); })};
    case 18: {
      UploadAck ack{U64(), List([&] { return static_cast<UploadVerdict>(Below(4)); }), {}};
      for (std::size_t i = 0; i < ack.verdicts.size(); ++i) ack.reasons.push_back(Text());
      ack.credit = Given();
      return ack;
    }
    case 19:
      return LeafPart{U64(), U32(),  U32(), U32(), U32(),
                      U32(), Hash(), U64(), U64(), List([&] { return SharedBytes(Text(2000)); })};
    case 20:
      return NotReady{U64()};
    case 21:
      return StepAck{U32()};
    case 22:
      return PublishAck{Version(), Bool(), Text()};
    case 23:
      return CheckpointAck{U32(), List([&] { return U32(); })};
    case 24:
      return Announce{Manifest()};
    case 25:
      return HeartbeatAck{Bool(), Version(), Given()};
    case 26:
      return Shutdown{Text(), Bool(), List([&] { return U32(); })};
    case 27:
      return Manifest();
    case 28:
      return RanksMeet{Text(), U32(), Text(300)};
    case 29:
      return RanksMet{Text(), List([&] { return Text(300); })};
    case 30:
      return Consumed{Numbers()};
  }
  THRESHER_CHECK(false, "no generator for message kind " + std::to_string(kind));
}

inline JournalRecord RandomValues::MakeJournalRecord(std::size_t kind) {
  switch (kind) {
    case 0:
      return EpochStarted{BrokerEpoch(U64()), Incarnation(U64()), Hash(), Hash()};
    case 1: {
      TrajectoryId id = Id();
      auto items = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(U32(), TrajectoryId::kMaxItem + 1 - id.item));
      return ItemsIssued{id.stream, id.island, id.item, items, id.sample, U32(), U32(), Version()};
    }
    case 2:
      return SampleAccepted{Id(),
                            Hash(),
                            U32(),
                            Incarnation(U64()),
                            Version(),
                            Double(),
                            U32(),
                            Hash(),
                            static_cast<OutcomeKind>(Below(5)),
                            Bool(),
                            Bool()};
    case 3:
      return SampleDropped{Id(), static_cast<DropReason>(Below(kDropReasonCount)), U32()};
    case 4:
      return BatchComposed{U32(), U32(), Hash(), List([&] { return Id(); }, 300), U64()};
    case 5:
      return StepCommitted{U32(), U32(), Hash(), Hash(), Hash(), U64(), U64(), U64(), Bool()};
    case 6:
      return VersionPublished{Version(), Hash(), U64()};
    case 7:
      return StepsDurable{U32(), U32(), Text(), Hash(), Hash()};
    case 8:
      return RoundEvaluated{U32(), Version(), Hash(), U32(), U32()};
    case 9:
      return RunFinished{U32(), Hash()};
  }
  THRESHER_CHECK(false, "no generator for journal record kind " + std::to_string(kind));
}

}  // namespace thresher::wire
