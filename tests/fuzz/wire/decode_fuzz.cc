// libFuzzer target over everything that decodes bytes of others: frames, trajectory and journal
// records, blocks of the trajectory store, safetensors. The first byte chooses. Whatever is decoded
// must encode and decode to itself again; nothing may crash (ASan, UBSan).

#include <cstdint>
#include <string_view>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/safetensors.h"
#include "common/data/trajectory_store_format.h"
#include "common/wire/frame.h"
#include "common/wire/records.h"

namespace {

using namespace thresher;  // NOLINT: one file, one purpose

// With the checksum made to fit: a fuzzer does not find XXH3 by itself.
void FuzzFrame(std::string_view input) {
  std::string frame(input);
  AppendLittle<std::uint64_t>(frame, HashBytes64(AsBytes(frame)));
  auto decoded = wire::DecodeFrame(AsBytes(frame));
  if (!decoded.ok()) return;
  auto encoded = wire::EncodeFrame(decoded->envelope, decoded->message);
  if (!encoded.ok()) return;  // a compact hostile envelope may grow beyond the limit
  auto again = wire::DecodeFrame(AsBytes(*encoded));
  THRESHER_CHECK(again.ok(), again.status().ToString());
  auto twice = wire::EncodeFrame(again->envelope, again->message);
  THRESHER_CHECK(*twice == *encoded, "a frame that changes when it is sent on");
}

void FuzzTrajectory(std::string_view input) {
  auto decoded = wire::DecodeTrajectory(input);
  if (!decoded.ok()) return;
  auto again = wire::DecodeTrajectory(wire::EncodeTrajectory(*decoded));
  THRESHER_CHECK(again.ok(), again.status().ToString());
  THRESHER_CHECK(again->ContentHash() == decoded->ContentHash(), "content changed");
}

void FuzzJournal(std::string_view input) {
  auto decoded = wire::DecodeJournalRecord(input);
  if (!decoded.ok()) return;
  std::string encoded = wire::EncodeJournalRecord(*decoded);
  auto again = wire::DecodeJournalRecord(encoded);
  THRESHER_CHECK(again.ok(), again.status().ToString());
  THRESHER_CHECK(wire::EncodeJournalRecord(*again) == encoded, "a record that changes");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string storage;
  switch (data[0] % 5) {
    case 0:
      FuzzFrame(input);
      break;
    case 1:
      FuzzTrajectory(input);
      break;
    case 2:
      FuzzJournal(input);
      break;
    case 3:
      (void)trajectory_store::DecodeBlock(1 + data[0] / 5 % 3, input, &storage);
      break;
    default:
      (void)Safetensors::Parse(input, "fuzz");
  }
  return 0;
}
