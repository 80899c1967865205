#include "common/wire/frame.h"

#include <gtest/gtest.h>

#include <set>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "tests/unit/wire/random_values.h"

namespace thresher::wire {
namespace {

constexpr std::size_t kKinds = std::variant_size_v<Message>;

Envelope RandomEnvelope(RandomValues& random) {
  return {random.Hash(), Incarnation(random.U64()), random.U64()};
}

std::string Encode(const Envelope& envelope, const Message& message) {
  return EncodeFrame(envelope, message).value();
}

Result<DecodedFrame> Decode(std::string_view bytes, std::size_t max_bytes = kDefaultMaxFrameBytes) {
  return DecodeFrame(AsBytes(bytes), max_bytes);
}

// A frame whose checksum fits what was done to it.
std::string Sealed(std::string frame) {
  frame.resize(frame.size() - 8);
  AppendLittle<std::uint64_t>(frame, HashBytes64(AsBytes(frame)));
  return frame;
}

TEST(Frame, EveryMessageSurvivesTheRoundTrip) {
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      RandomValues random(seed * 1000 + kind);
      Envelope envelope = RandomEnvelope(random);
      Message message = random.MakeMessage(kind);
      ASSERT_EQ(message.index(), kind);
      Result<DecodedFrame> decoded = Decode(Encode(envelope, message));
      ASSERT_TRUE(decoded.ok()) << MessageName(message) << ": " << decoded.status().ToString();
      EXPECT_EQ(decoded->envelope, envelope) << MessageName(message);
      EXPECT_TRUE(decoded->message == message) << MessageName(message) << " seed " << seed;
    }
  }
}

TEST(Frame, PayloadSegmentsAreSlicesOfTheFrame) {
  Upload upload;
  upload.fences = {FencingToken(1), FencingToken(2)};
  upload.records = {std::string(100, 'a'), std::string(60, 'b')};
  const SharedBytes frame = Encode({}, upload);
  const auto decoded = DecodeFrame(frame);
  const auto& records = std::get<Upload>(decoded->message).records;
  ASSERT_EQ(records, upload.records);
  EXPECT_EQ(records[0].data(), frame.end() - 8 - 160);
  EXPECT_EQ(records[1].data(), frame.end() - 8 - 60);
  EXPECT_EQ(records[1].owner(), frame.owner());
}

TEST(Frame, WhetherAMessageFitsIsKnownWithoutMakingItsFrame) {
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    RandomValues random(kind);
    const Message message = random.MakeMessage(kind);
    const std::size_t size = Encode({}, message).size();
    EXPECT_TRUE(CheckFrameSize(message, size).ok()) << MessageName(message);
    EXPECT_EQ(CheckFrameSize(message, size - 1).code(), StatusCode::kOutOfRange);
  }
}

TEST(Frame, EqualMessagesGiveEqualBytes) {
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    RandomValues one(kind), two(kind);
    EXPECT_EQ(Encode(RandomEnvelope(one), one.MakeMessage(kind)),
              Encode(RandomEnvelope(two), two.MakeMessage(kind)));
  }
}

TEST(Frame, NamesAreDistinctAndFollowTheVariant) {
  std::set<std::string> names;
  RandomValues random(1);
  for (std::size_t kind = 0; kind < kKinds; ++kind)
    names.insert(MessageName(random.MakeMessage(kind)));
  EXPECT_EQ(names.size(), kKinds);
  EXPECT_STREQ(MessageName(Message(LeaseRequest{})), "LeaseRequest");
  EXPECT_STREQ(MessageName(Message(WeightsManifest{})), "WeightsManifest");
}

TEST(Frame, DecodesAtAnyAlignment) {
  RandomValues random(5);
  Message message = random.MakeMessage(0);
  std::string frame = Encode({}, message);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    std::string buffer = std::string(shift, '#') + frame;
    Result<DecodedFrame> decoded = Decode(std::string_view(buffer).substr(shift));
    ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
    EXPECT_TRUE(decoded->message == message);
  }
}

TEST(Frame, NanKeepsItsBits) {
  std::uint64_t bits = 0x7ff4000000000123;  // signalling
  Heartbeat heartbeat;
  heartbeat.counters = {{"x", std::bit_cast<double>(bits)}};
  Result<DecodedFrame> decoded = Decode(Encode({}, heartbeat));
  ASSERT_TRUE(decoded.ok());
  double value = std::get<Heartbeat>(decoded->message).counters[0].second;
  EXPECT_EQ(std::bit_cast<std::uint64_t>(value), bits);
}

TEST(Frame, EveryTruncationIsRefused) {
  RandomValues random(7);
  for (std::size_t kind : {0u, 5u, 13u, 16u, 19u}) {
    std::string frame = Encode(RandomEnvelope(random), random.MakeMessage(kind));
    for (std::size_t size = 0; size < frame.size(); ++size) {
      EXPECT_FALSE(Decode(std::string_view(frame).substr(0, size)).ok()) << size;
    }
    EXPECT_FALSE(Decode(frame + '\0').ok());
  }
}

TEST(Frame, EveryFlippedByteIsNoticed) {
  RandomValues random(8);
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    std::string frame = Encode(RandomEnvelope(random), random.MakeMessage(kind));
    for (std::size_t i = 0; i < frame.size(); ++i) {
      std::string damaged = frame;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << random.Below(8)));
      EXPECT_FALSE(Decode(damaged).ok()) << "kind " << kind << " byte " << i;
    }
  }
}

// With the checksum made to fit, the envelope reader is all that stands in the way: it must end
// with a status or a message that its own encoder accepts, and never crash (run under ASan/UBSan).
TEST(Frame, HostileEnvelopesNeverCrash) {
  RandomValues random(9);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 30000; ++round) {
    std::string frame = Encode(RandomEnvelope(random), random.MakeMessage(random.Below(kKinds)));
    for (std::uint64_t edits = 1 + random.Below(4); edits > 0; --edits) {
      std::size_t i = 4 + random.Below(frame.size() - 12);
      frame[i] = static_cast<char>(random.Below(3) == 0 ? 0xff : random.Below(256));
    }
    Result<DecodedFrame> decoded = Decode(Sealed(std::move(frame)));
    if (!decoded.ok()) {
      ++refused;
      continue;
    }
    ++accepted;
    EXPECT_TRUE(EncodeFrame(decoded->envelope, decoded->message).ok());
  }
  EXPECT_GT(accepted, 100);  // both branches were exercised
  EXPECT_GT(refused, 100);
}

TEST(Frame, RandomBytesBehindAValidHeaderNeverCrash) {
  RandomValues random(10);
  for (int round = 0; round < 20000; ++round) {
    std::string body(8 * random.Below(40), '\0');
    for (char& c : body)
      c = static_cast<char>(random.Below(2) ? random.Below(4) : random.Below(256));
    std::string frame = "THR1";
    AppendLittle<std::uint16_t>(frame, kProtocolVersion);
    AppendLittle<std::uint8_t>(frame, static_cast<std::uint8_t>(random.Below(kKinds)));
    AppendLittle<std::uint8_t>(frame, 0);
    AppendLittle<std::uint32_t>(frame, static_cast<std::uint32_t>(body.size()));
    AppendLittle<std::uint32_t>(frame, static_cast<std::uint32_t>(body.size()));
    (void)Decode(Sealed(frame + body + std::string(8, '\0')));
  }
}

struct Foreign {
  const char* name;
  std::size_t offset;
  std::string bytes;
  StatusCode code;
};

TEST(Frame, WhatIsWrongDecidesTheCode) {
  std::string frame = Encode({}, LeaseRequest{});
  const Foreign cases[] = {
      {"magic", 0, "HTTP", StatusCode::kInvalidArgument},
      {"version", 4, std::string("\x02\x00", 2), StatusCode::kInvalidArgument},
      {"kind", 6, std::string(1, static_cast<char>(kKinds)), StatusCode::kInvalidArgument},
      {"flags", 7, "\x01", StatusCode::kInvalidArgument},
      {"length", 8, "\xff\xff\xff\xff", StatusCode::kOutOfRange},
      {"envelope length", 12, "\xff\xff\xff\xff", StatusCode::kOutOfRange},
      {"envelope length not whole words", 12, "\x09", StatusCode::kDataLoss},
      {"another kind", 6, std::string(1, '\0'), StatusCode::kDataLoss},
  };
  for (const Foreign& foreign : cases) {
    std::string damaged = frame;
    damaged.replace(foreign.offset, foreign.bytes.size(), foreign.bytes);
    EXPECT_EQ(Decode(Sealed(damaged)).status().code(), foreign.code) << foreign.name;
  }
  EXPECT_EQ(Decode("").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Decode("THR1").status().code(), StatusCode::kOutOfRange);
  std::string flipped = frame;
  flipped[20] = static_cast<char>(flipped[20] ^ 1);
  EXPECT_EQ(Decode(flipped).status().code(), StatusCode::kDataLoss);
}

// StepAck and CheckpointAck have the same fields: only the comparison of kind and union tells them
// apart.
TEST(Frame, TheKindByteMustNameTheMessageInside) {
  Message checkpoint = CheckpointAck{5};
  std::string frame = Encode({}, StepAck{5});
  frame[6] = static_cast<char>(checkpoint.index());
  Status status = Decode(Sealed(frame)).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
  EXPECT_NE(status.message().find("another message"), std::string::npos) << status.ToString();
}

TEST(Frame, OversizeIsRefusedAtTheSenderAndTheReceiver) {
  Chunk chunk;
  chunk.bytes = std::string(1000, 'x');
  std::string frame = Encode({}, chunk);
  EXPECT_TRUE(EncodeFrame({}, chunk, frame.size()).ok());
  Status status = EncodeFrame({}, chunk, frame.size() - 1).status();
  EXPECT_EQ(status.code(), StatusCode::kOutOfRange);
  EXPECT_NE(status.message().find("Chunk"), std::string::npos) << status.ToString();
  EXPECT_NE(status.message().find(std::to_string(frame.size())), std::string::npos);
  EXPECT_TRUE(Decode(frame, frame.size()).ok());
  EXPECT_EQ(Decode(frame, frame.size() - 1).status().code(), StatusCode::kOutOfRange);

  chunk.bytes = std::string(kDefaultMaxFrameBytes, 'x');
  EXPECT_EQ(EncodeFrame({}, chunk).status().code(), StatusCode::kOutOfRange);
}

TEST(Frame, EightMebibytesOfTypedFieldsPassTheTraversalLimit) {
  Heartbeat heartbeat;
  for (int i = 0; i < 100000; ++i) heartbeat.counters.emplace_back("counter", i);
  Result<std::string> frame = EncodeFrame({}, heartbeat);
  ASSERT_TRUE(frame.ok()) << frame.status().ToString();
  Result<DecodedFrame> decoded = Decode(*frame);
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_TRUE(decoded->message == Message(heartbeat));
}

TEST(Frame, UnknownEnumerationValuesAreRefused) {
  auto refused = [](const Message& message) {
    Status status = Decode(Encode({}, message)).status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
  };
  Hello hello;
  hello.role = static_cast<PeerRole>(3);
  refused(hello);
  refused(UploadAck{0, {static_cast<UploadVerdict>(4)}, {""}});
  LeaseGrant grant;
  grant.leases.resize(1);
  grant.leases[0].purpose = static_cast<Purpose>(4);
  refused(grant);
  grant.leases[0].purpose = Purpose::kTrain;
  grant.leases[0].stream = static_cast<Stream>(5);
  refused(grant);
  grant.leases[0].stream = Stream::kTrain;
  grant.leases[0].first_sample = TrajectoryId::kMaxSample;
  grant.leases[0].samples = 2;
  refused(grant);
  SampleFailed failed;
  failed.id.item = TrajectoryId::kMaxItem + 1;
  refused(failed);
}

}  // namespace
}  // namespace thresher::wire
