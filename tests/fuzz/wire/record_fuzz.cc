// What lies on disk, and begins as true bytes: trajectories, blocks of them, journal records,
// segments of a record log, indexes. Spoiled where it hurts, checksums mostly made to fit. The
// input is the recipe (frame_mutation.h). Two readers of one thing must agree, what is accepted
// must survive being written again, and where a checksum was left alone nothing but true records
// may be read.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/check.h"
#include "common/data/record_log_format.h"
#include "common/data/trajectory_index.h"
#include "common/data/trajectory_store_format.h"
#include "common/data/zstd_bytes.h"
#include "common/wire/records.h"
#include "tests/fuzz/wire/frame_mutation.h"
#include "tests/unit/wire/random_values.h"

namespace {

using namespace thresher;  // NOLINT: one file, one purpose
using fuzz::Recipe;
using trajectory_store::BlockRecord;

constexpr std::size_t kMostBytes = std::size_t{1} << 22;  // that a zstd frame may unpack to

void SpoilSome(std::string& bytes, Recipe& recipe) {
  for (std::size_t i = recipe.Below(5); i > 0; --i) fuzz::Spoil(bytes, recipe);
}

template <typename T>
bool SameBytes(std::span<const T> a, std::span<const T> b) {  // NaN is unequal to itself
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

// With an owner of its own, `shift` bytes behind a word.
SharedBytes Shifted(std::string_view bytes, std::size_t shift) {
  return SharedBytes(std::string(shift, 'x').append(bytes)).Slice(shift, bytes.size());
}

// The bytes as a record of the store, when they are a trajectory.
std::optional<StoredRecord> CheckTrajectory(const SharedBytes& bytes) {
  const auto decoded = wire::DecodeTrajectory(bytes);
  const auto view = wire::TrajectoryView::Open(bytes);
  THRESHER_CHECK(decoded.ok() == view.ok(), "one reader takes what the other refuses");
  if (!decoded.ok()) {
    THRESHER_CHECK(decoded.status().code() == view.status().code(), "two reasons");
    return std::nullopt;
  }
  const TrajectoryRef whole(*decoded), lying(*view);
  THRESHER_CHECK(SameBytes(whole.arrays.tokens, lying.arrays.tokens) &&
                     SameBytes(whole.arrays.logprobs, lying.arrays.logprobs) &&
                     SameBytes(whole.arrays.kept_mass_logprobs, lying.arrays.kept_mass_logprobs) &&
                     whole.arrays.text == lying.arrays.text,
                 "two readers read different numbers");
  const Hash128 content_hash = decoded->ContentHash();
  THRESHER_CHECK(lying.ContentHash() == content_hash, "two hashes of one trajectory");
  const auto again = wire::DecodeTrajectory(wire::EncodeTrajectory(*decoded));
  THRESHER_CHECK(again.ok(), again.status().ToString());
  THRESHER_CHECK(again->ContentHash() == content_hash, "it changes when it is written again");
  if (!decoded->id.InRange()) return std::nullopt;  // the broker refuses it
  return StoredRecord{decoded->id, content_hash, bytes, view->Ranges()};
}

void FuzzTrajectory(Recipe& recipe) {
  wire::RandomValues random(recipe.U16());
  std::string bytes = wire::EncodeTrajectory(random.MakeTrajectory());
  const std::size_t shift = recipe.Below(9);
  SpoilSome(bytes, recipe);
  (void)CheckTrajectory(Shifted(bytes, shift));
}

bool Same(const std::vector<BlockRecord>& read, const std::vector<StoredRecord>& stored) {
  return std::ranges::equal(read, stored, [](const BlockRecord& a, const StoredRecord& b) {
    return a.id == b.id && a.content_hash == b.content_hash && a.bytes == b.bytes.view();
  });
}

std::vector<BlockRecord> Decoded(const trajectory_store::EncodedBlock& block,
                                 std::string* storage) {
  auto read =
      trajectory_store::DecodeBlock(static_cast<std::uint32_t>(block.kind), block.payload, storage);
  THRESHER_CHECK(read.ok(), read.status().ToString());
  return *std::move(read);
}

// Records as an actor that means ill may have had them accepted.
std::vector<StoredRecord> RandomRecords(Recipe& recipe) {
  std::vector<StoredRecord> records;
  for (std::size_t i = recipe.Below(4); i > 0; --i) {
    wire::RandomValues random(recipe.U16());
    std::string bytes = wire::EncodeTrajectory(random.MakeTrajectory());
    SpoilSome(bytes, recipe);
    if (auto record = CheckTrajectory(Shifted(bytes, recipe.Below(9)))) {
      records.push_back(*std::move(record));
    } else {
      records.push_back({random.Id(), random.Hash(), SharedBytes(std::move(bytes)), {}});
    }
  }
  return records;
}

void FuzzBlock(Recipe& recipe) {
  const std::vector<StoredRecord> records = RandomRecords(recipe);
  const bool packed = recipe.Below(2) == 1;
  auto block =
      *trajectory_store::EncodeBlock(records, packed ? Compression::kZstd : Compression::kNone);
  std::string storage;
  THRESHER_CHECK(Same(Decoded(block, &storage), records), "a block that changes what it holds");
  if (packed && recipe.Below(4) != 0) {  // inside: what zstd unpacks is not what was packed
    std::string inside;
    THRESHER_CHECK(Unzstd(block.payload, kMostBytes, &inside).ok(), "its own frame");
    SpoilSome(inside, recipe);
    block.payload = *Zstd(inside, 1);
  } else {
    SpoilSome(block.payload, recipe);
  }
  std::uint32_t kind = static_cast<std::uint32_t>(block.kind);
  if (recipe.Below(8) == 0) kind = recipe.Below(5);
  if (packed) {
    std::string unpacked;
    if (!Unzstd(block.payload, kMostBytes, &unpacked).ok()) return;  // a bomb takes what it says
  }
  const auto read = trajectory_store::DecodeBlock(kind, block.payload, &storage);
  if (!read.ok()) return;
  std::vector<StoredRecord> accepted;
  for (const BlockRecord& record : *read) {
    accepted.push_back({record.id, record.content_hash, SharedBytes(record.bytes), {}});
    (void)wire::DecodeTrajectory(record.bytes);
  }
  std::string other;
  const auto again = *trajectory_store::EncodeBlock(accepted, Compression::kNone);
  THRESHER_CHECK(Same(Decoded(again, &other), accepted), "what was accepted changes");
}

void FuzzJournalRecord(Recipe& recipe) {
  wire::RandomValues random(recipe.U16());
  constexpr std::size_t kKinds = std::variant_size_v<wire::JournalRecord>;
  std::string bytes = wire::EncodeJournalRecord(random.MakeJournalRecord(recipe.Below(kKinds)));
  const std::size_t shift = recipe.Below(9);
  SpoilSome(bytes, recipe);
  const SharedBytes shifted = Shifted(bytes, shift);
  const auto decoded = wire::DecodeJournalRecord(shifted);
  if (!decoded.ok()) return;
  const std::string encoded = wire::EncodeJournalRecord(*decoded);
  const auto again = wire::DecodeJournalRecord(encoded);
  THRESHER_CHECK(again.ok(), again.status().ToString());
  THRESHER_CHECK(wire::EncodeJournalRecord(*again) == encoded, "a record that changes");
}

struct Segment {
  std::string bytes;
  std::vector<std::string> payloads;
};

Segment RandomSegment(Recipe& recipe) {
  Segment segment{record_log::EncodeSegmentHeader(3, 17), {}};
  std::uint64_t previous = 5;
  for (std::size_t i = 0, count = recipe.Below(7); i < count; ++i) {
    wire::RandomValues random(recipe.U8());
    segment.payloads.push_back(random.Text(80));
    const bool unsynced = recipe.Below(2) == 1;
    previous = record_log::AppendRecord(segment.bytes, random.U32(), 17 + i, previous,
                                        segment.payloads.back(), unsynced);
  }
  return segment;
}

// Every checksum of the chain as if what stands there had been written so.
void FitChain(std::string& bytes) {
  std::size_t at = record_log::kSegmentHeaderBytes;
  while (at + record_log::kRecordOverheadBytes <= bytes.size()) {
    const std::size_t length = record_log::PayloadBytes(bytes.data() + at);
    if (length > bytes.size() - at - record_log::kRecordOverheadBytes) return;
    const std::size_t covered = record_log::kRecordHeaderBytes + length;
    fuzz::PutWord(bytes, at + covered,
                  HashBytes64(AsBytes(std::string_view(bytes).substr(at, covered))));
    at += covered + 8;
  }
}

void FuzzSegment(Recipe& recipe) {
  const Segment segment = RandomSegment(recipe);
  std::string bytes = segment.bytes;
  const bool packed = recipe.Below(3) == 0, fit = recipe.Below(3) == 0;
  if (packed) bytes = *Zstd(bytes, 3);
  SpoilSome(bytes, recipe);
  if (packed) {
    std::string unpacked;
    if (!Unzstd(bytes, kMostBytes, &unpacked).ok()) return;
    bytes = std::move(unpacked);
  }
  if (fit) FitChain(bytes);
  const auto first = record_log::DecodeSegmentHeader(bytes, 3);
  if (!first.ok()) return;
  THRESHER_CHECK(*first == 17, "another header with a fitting checksum");
  record_log::SegmentScanner scanner(bytes, record_log::kSegmentHeaderBytes, *first, 5);
  // One that was changed and sealed again breaks the chain behind it.
  std::size_t number = 0, changed = 0;
  while (auto record = scanner.Next()) {
    const bool known =
        number < segment.payloads.size() && record->payload == segment.payloads[number];
    changed += known ? 0 : 1;
    ++number;
  }
  THRESHER_CHECK(changed <= (fit ? 1u : 0u), "a record is read that was not written");
  (void)scanner.TailIsTorn();
  (void)scanner.Problem();
}

void FuzzIndex(Recipe& recipe) {
  wire::RandomValues random(recipe.U16());
  trajectory_store::SegmentEntries entries{3, random.U64(), random.U64(), {}};
  for (std::size_t i = recipe.Below(9); i > 0; --i) {
    entries.entries.push_back({random.Id(), random.Hash(), {3, random.U64()}, random.U32()});
  }
  std::string bytes = trajectory_store::EncodeIndex(entries);
  const bool fit = recipe.Below(4) != 0;
  SpoilSome(bytes, recipe);
  const bool spoiled = bytes != trajectory_store::EncodeIndex(entries);
  if (fit) fuzz::FitChecksum(bytes);
  const auto view = trajectory_store::IndexView::Open(bytes, 3);
  THRESHER_CHECK(!view || fit || !spoiled, "an index without a fitting checksum is accepted");
  if (!view) return;
  for (std::uint64_t i = 0; i < view->size(); ++i) {
    const auto found = view->Find(view->at(i).id);
    THRESHER_CHECK(found.has_value() || spoiled, "a stored trajectory is not found");
  }
  for (const auto& entry : entries.entries) (void)view->Find(entry.id);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Recipe recipe(std::string_view(reinterpret_cast<const char*>(data), size));
  switch (recipe.Below(5)) {
    case 0:
      FuzzTrajectory(recipe);
      break;
    case 1:
      FuzzBlock(recipe);
      break;
    case 2:
      FuzzJournalRecord(recipe);
      break;
    case 3:
      FuzzSegment(recipe);
      break;
    default:
      FuzzIndex(recipe);
  }
  return 0;
}
