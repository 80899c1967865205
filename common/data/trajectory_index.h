#pragma once

// Internal to common/data: which trajectories a segment of the store holds, and where.
//
// `NNNNNN.idx`, beside its segment, little-endian: magic "THRIDX2\0", format u32, segment u32,
// bytes of the segment covered u64, checksum of the last log record covered u64, entries u64, then
// for each stream the least and the largest item it has here (u64 each; least > largest: none),
// then the entries in file order, 48 bytes each (id, content hash, segment u32, number in block
// u32, offset u64), then their numbers by id (u32 each; equal ids in file order); last XXH3-64 of
// all before.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/data/files.h"
#include "common/data/trajectory_store.h"

namespace thresher::trajectory_store {

using Entry = TrajectoryStoreReader::Entry;

std::filesystem::path IndexPath(const std::filesystem::path& folder, std::uint32_t segment);

// What is known of one segment while it is read or written.
struct SegmentEntries {
  std::uint32_t segment = 0;
  std::uint64_t bytes = 0;     // of the segment that are covered
  std::uint64_t checksum = 0;  // of the last log record covered
  std::vector<Entry> entries;  // in file order
};
std::string EncodeIndex(const SegmentEntries& segment);
// The bytes of an index, whole and of this format; borrowed.
class IndexView {
 public:
  // Nothing when the bytes are no intact index of `segment`.
  static std::optional<IndexView> Open(std::string_view bytes, std::uint32_t segment);

  std::uint64_t covered_bytes() const;
  std::uint64_t last_checksum() const;
  std::uint64_t size() const { return count_; }
  Entry at(std::uint64_t number) const;  // in file order
  // The last one stored under the id.
  std::optional<Entry> Find(const TrajectoryId& id) const;

 private:
  IndexView(std::string_view bytes, std::uint64_t count) : bytes_(bytes), count_(count) {}
  TrajectoryId IdAt(std::uint64_t number) const;
  std::uint32_t ByOrder(std::uint64_t rank) const;

  std::string_view bytes_;
  std::uint64_t count_;
};

// Reads the entries of a segment from the segment itself; a torn tail of the last one ends them.
// Errors: kDataLoss naming file and record, kNotFound.
Result<SegmentEntries> ScanSegment(const std::filesystem::path& folder, std::uint32_t segment);

// The index of one segment: mapped where its file fits the segment, else made by reading that.
class SegmentIndex {
 public:
  static Result<SegmentIndex> Load(const std::filesystem::path& folder, std::uint32_t segment);
  const IndexView& view() const { return view_; }

 private:
  explicit SegmentIndex(IndexView view) : view_(view) {}
  IndexView view_;
  std::optional<MappedFile> mapped_;
  std::unique_ptr<std::string> made_;  // where nothing is mapped
};

}  // namespace thresher::trajectory_store
