// Frames that begin as true ones: a message with random contents is encoded and then spoiled where
// it hurts (pointers, lengths, header, payload), lengths and checksum mostly made to fit again. The
// input is the recipe (frame_mutation.h). What is accepted must be what it says, and must survive
// being sent on; a frame whose checksum does not fit its bytes must never be.

#include <cstdint>
#include <string>
#include <string_view>

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
  if (auto* upload = std::get_if<wire::Upload>(&message)) {
    for (SharedBytes& record : upload->records) {
      record = wire::EncodeTrajectory(random.MakeTrajectory());
    }
  }
  const wire::Envelope envelope{random.Hash(), Incarnation(random.U64()), random.U64()};
  return wire::EncodeFrame(envelope, message).value();
}

void CheckAccepted(const std::string& frame, const wire::DecodedFrame& decoded) {
  THRESHER_CHECK(decoded.message.index() == static_cast<std::uint8_t>(frame[6]),
                 "another message than the header says");
  THRESHER_CHECK(wire::VersionOf(AsBytes(frame)) == wire::kProtocolVersion, "another version");
  auto encoded = wire::EncodeFrame(decoded.envelope, decoded.message);
  if (!encoded.ok()) return;  // a compact hostile envelope may grow beyond the limit
  auto again = wire::DecodeFrame(AsBytes(*encoded));
  THRESHER_CHECK(again.ok(), again.status().ToString());
  THRESHER_CHECK(again->envelope == decoded.envelope, "the envelope changes");
  auto twice = wire::EncodeFrame(again->envelope, again->message);
  THRESHER_CHECK(*twice == *encoded, "a frame that changes when it is sent on");
  const auto* upload = std::get_if<wire::Upload>(&decoded.message);
  for (std::size_t i = 0; upload != nullptr && i < upload->records.size(); ++i) {
    auto trajectory = wire::DecodeTrajectory(upload->records[i]);
    if (trajectory.ok()) (void)trajectory->ContentHash();
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
  auto decoded = wire::DecodeFrame(AsBytes(frame));
  if (decoded.ok()) CheckAccepted(frame, *decoded);
  THRESHER_CHECK(frame != original || decoded.ok(), "a true frame is refused");
  // Unsealed bytes that differ from every sealed frame.
  THRESHER_CHECK(unsealed == frame || !wire::DecodeFrame(AsBytes(unsealed)).ok(),
                 "a frame without a fitting checksum is accepted");
  (void)wire::DecodeVersionRefusal(AsBytes(frame));
  return 0;
}
