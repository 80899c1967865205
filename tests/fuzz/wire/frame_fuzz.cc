// Frames that begin as true ones: a message with random contents is encoded and then spoiled where
// it hurts (pointers, lengths, header, payload), lengths and checksum mostly made to fit again. The
// input is the recipe (frame_mutation.h). What is accepted must be what it says, and must survive
// being sent on; a frame whose checksum does not fit its bytes must never be.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/check.h"
#include "common/wire/frame.h"
#include "common/wire/protocol_version.h"
#include "common/wire/records.h"
#include "tests/fuzz/wire/frame_mutation.h"
#include "tests/unit/wire/random_values.h"

namespace {

using namespace thresher;  // NOLINT: one file, one purpose

constexpr std::size_t kKinds = std::variant_size_v<wire::Message>;

std::string TrueFrame(fuzz::Recipe& recipe) {
  const std::size_t kind = recipe.Below(kKinds);
  wire::RandomValues random(recipe.U16());
  wire::Message message = random.MakeMessage(kind);
  // Records that are trajectories, so that what carries them is fuzzed to the inside.
  const auto fill = [&](std::vector<SharedBytes>& records) {
    for (SharedBytes& record : records) record = wire::EncodeTrajectory(random.MakeTrajectory());
  };
  if (auto* upload = std::get_if<wire::Upload>(&message)) fill(upload->records);
  if (auto* part = std::get_if<wire::LeafPart>(&message)) fill(part->records);
  const wire::Envelope envelope{random.Hash(), Incarnation(random.U64()), random.U64()};
  return wire::EncodeFrame(envelope, message).value();
}

std::vector<SharedBytes> PayloadsOf(const wire::Message& message) {
  if (const auto* upload = std::get_if<wire::Upload>(&message)) return upload->records;
  if (const auto* part = std::get_if<wire::LeafPart>(&message)) return part->records;
  if (const auto* chunk = std::get_if<wire::Chunk>(&message)) return {chunk->bytes};
  return {};
}

// `frame`: whose payloads the message borrows.
void CheckAccepted(const SharedBytes& frame, const wire::DecodedFrame& decoded) {
  THRESHER_CHECK(decoded.message.index() == static_cast<std::uint8_t>(frame.data()[6]),
                 "another message than the header says");
  THRESHER_CHECK(wire::VersionOf(AsBytes(frame)) == wire::kProtocolVersion, "another version");
  auto encoded = wire::EncodeFrame(decoded.envelope, decoded.message);
  if (!encoded.ok()) return;  // a compact hostile envelope may grow beyond the limit
  auto again = wire::DecodeFrame(AsBytes(*encoded));
  THRESHER_CHECK(again.ok(), again.status().ToString());
  THRESHER_CHECK(again->envelope == decoded.envelope, "the envelope changes");
  auto twice = wire::EncodeFrame(again->envelope, again->message);
  THRESHER_CHECK(*twice == *encoded, "a frame that changes when it is sent on");
  for (const SharedBytes& record : PayloadsOf(decoded.message)) {
    THRESHER_CHECK(record.empty() || (record.data() >= frame.data() &&
                                      record.data() + record.size() <= frame.data() + frame.size()),
                   "a payload outside its frame");
    const auto copied = wire::DecodeTrajectory(record);
    const auto lying = wire::TrajectoryView::Open(record);
    THRESHER_CHECK(copied.ok() == lying.ok(), "one reader takes what the other refuses");
    THRESHER_CHECK(!copied.ok() || copied->ContentHash() == TrajectoryRef(*lying).ContentHash(),
                   "two hashes of one trajectory");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Recipe recipe(std::string_view(reinterpret_cast<const char*>(data), size));
  const std::string original = TrueFrame(recipe);
  std::string frame = original;
  const std::uint8_t fit = recipe.U8();
  for (int i = 0; i < 8 && !recipe.empty(); ++i) fuzz::Spoil(frame, recipe);
  if ((fit & 3) != 0) fuzz::FitLength(frame);
  const std::string unsealed = frame;
  if ((fit & 12) != 0) fuzz::FitChecksum(frame);
  const SharedBytes received(std::string(fit >> 5, 'x') + frame);  // anywhere in memory
  const SharedBytes whole = received.Slice(fit >> 5, frame.size());
  auto decoded = wire::DecodeFrame(whole);
  if (decoded.ok()) CheckAccepted(whole, *decoded);
  THRESHER_CHECK(frame != original || decoded.ok(), "a true frame is refused");
  // Unsealed bytes that differ from every sealed frame.
  THRESHER_CHECK(unsealed == frame || !wire::DecodeFrame(AsBytes(unsealed)).ok(),
                 "a frame without a fitting checksum is accepted");
  (void)wire::DecodeVersionRefusal(AsBytes(frame));
  return 0;
}
