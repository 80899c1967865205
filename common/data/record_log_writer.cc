#include <fcntl.h>

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "common/data/files.h"
#include "common/data/record_log.h"
#include "common/data/record_log_format.h"

namespace thresher {

using record_log::Damage;
using record_log::kSegmentHeaderBytes;
using record_log::SegmentPath;
using record_log::SegmentScanner;

namespace {

// A log of weeks must not fill the machine's memory with pages that nobody reads, nor leave a sync
// gigabytes to write: what is written goes to the disk in steps, and a tail of it stays cached.
constexpr std::uint64_t kStartStepBytes = 1 << 20;
constexpr std::uint64_t kCachedTailBytes = 8 << 20;

// Records of one segment that are not yet written, or not yet known to be on disk.
struct Chunk {
  std::uint32_t segment = 0;
  std::uint64_t first_sequence = 0;  // of the segment, for its header when it must be made
  std::uint64_t offset = 0;          // in the segment
  std::string bytes;
  std::size_t written = 0;
};

}  // namespace

const char* LogPointName(LogPoint point) {
  switch (point) {
    case LogPoint::kBeforeWrite:
      return "before_write";
    case LogPoint::kAfterWrite:
      return "after_write";
    case LogPoint::kBeforeSync:
      return "before_sync";
    case LogPoint::kAfterSync:
      return "after_sync";
  }
  THRESHER_CHECK(false, "unknown log point");
}

struct RecordLogWriter::State {
  std::filesystem::path folder;
  RecordLogOptions options;
  FileHandle lock;  // the folder, flock'ed
  FileHandle file;  // of segment `open_segment`; not open before the first record
  std::uint32_t open_segment = 0;
  std::uint64_t file_end = 0;  // behind the last record written to it
  std::uint64_t started = 0;   // of it, what was told to go to the disk
  bool segment_ended = false;  // the next record begins another one
  std::uint64_t taken = 0;     // space that was taken ahead; the file is as long
  LogCursor end;               // where the next record goes, buffered ones counted
  LogPosition synced;          // everything before it is on disk
  std::deque<Chunk> chunks;
  std::uint64_t repaired_bytes = 0;

  Status Lock();
  Status Recover();
  Status RecoverPrevious(std::uint32_t segment);
  Status SyncNames();
  void TakeSpace(std::uint64_t end);
  Status BeginSegment(const Chunk& chunk);
  Status FinishSegment();
  Status SyncFile();
  void Reached(LogPoint point) const {
    if (options.reached) options.reached(point);
  }
  void WriteBehind();
  Status WriteChunks();
  Status Flush(bool sync);
  Chunk& ChunkFor(std::size_t record_bytes);
};

Status RecordLogWriter::State::Lock() {
  THRESHER_ASSIGN_OR_RETURN(lock, FileHandle::Open(folder, O_RDONLY | O_DIRECTORY));
  // Some network file systems cannot lock a directory; only a lock that is held refuses.
  if (lock.TryLock().code() == StatusCode::kFailedPrecondition) {
    return FailedPrecondition(folder.string() + ": another process writes this log");
  }
  return Status::Ok();
}

// Finds the end of the log from its last segment and cuts off a torn tail.
Status RecordLogWriter::State::Recover() {
  THRESHER_ASSIGN_OR_RETURN(const auto segments, record_log::ListSegments(folder));
  THRESHER_ASSIGN_OR_RETURN(const LogCursor begin, record_log::ReadBegin(folder));
  if (segments.empty()) return Status::Ok();
  const std::uint32_t segment = segments.back().number;
  std::filesystem::path path = SegmentPath(folder, segment);
  THRESHER_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
  Result<std::uint64_t> first = record_log::DecodeSegmentHeader(bytes, segment);
  if (!first.ok()) return Damage(path, first.status().message());

  std::optional<std::uint64_t> previous;
  if (segment == begin.position.segment) previous = begin.previous;
  SegmentScanner scanner(bytes, kSegmentHeaderBytes, *first, previous);
  while (scanner.Next()) {
  }
  if (scanner.TailBytes() > 0 && !scanner.TailIsTorn()) return Damage(path, scanner.Problem());
  end.position = {segment, scanner.offset()};
  end.sequence = scanner.sequence();
  if (!scanner.previous()) {
    THRESHER_RETURN_IF_ERROR(RecoverPrevious(segment - 1));
  } else {
    end.previous = *scanner.previous();
  }
  THRESHER_ASSIGN_OR_RETURN(file, FileHandle::Open(path, O_RDWR));
  open_segment = segment;
  file_end = scanner.offset();
  repaired_bytes = scanner.TailBytes();
  if (scanner.offset() != bytes.size()) THRESHER_RETURN_IF_ERROR(file.Truncate(scanner.offset()));
  // The writer before may have died before its sync, or of one that failed: then the kernel shows
  // what it will never write. Who goes on from these records, and speaks of them, must find them
  // after a power cut too.
  bytes.resize(scanner.offset());
  THRESHER_RETURN_IF_ERROR(file.WriteAt(0, bytes));
  THRESHER_RETURN_IF_ERROR(file.Sync());
  THRESHER_RETURN_IF_ERROR(SyncNames());
  synced = end.position;
  return Status::Ok();
}

// The last segment holds no record: the last checksum stands in the one before, which is complete.
Status RecordLogWriter::State::RecoverPrevious(std::uint32_t segment) {
  std::filesystem::path path = SegmentPath(folder, segment);
  THRESHER_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
  Result<std::uint64_t> first = record_log::DecodeSegmentHeader(bytes, segment);
  if (!first.ok()) return Damage(path, first.status().message());
  SegmentScanner scanner(bytes, kSegmentHeaderBytes, *first, std::nullopt);
  while (scanner.Next()) {
  }
  if (scanner.TailBytes() > 0) return Damage(path, scanner.Problem());
  if (scanner.sequence() != end.sequence || !scanner.previous()) {
    return Damage(path, "ends with record " + std::to_string(scanner.sequence()) + ", expected " +
                            std::to_string(end.sequence));
  }
  end.previous = *scanner.previous();
  return Status::Ok();
}

// Names of segments, and that of the folder, which may have been made for this log.
Status RecordLogWriter::State::SyncNames() {
  THRESHER_RETURN_IF_ERROR(SyncDirectory(folder));
  return folder.has_parent_path() ? SyncDirectory(folder.parent_path()) : Status::Ok();
}

// So that the bytes before `end` have their place. Whether there is room, the write tells.
void RecordLogWriter::State::TakeSpace(std::uint64_t end) {
  const std::uint64_t step = options.preallocate_bytes;
  if (step == 0 || end <= taken) return;
  const std::uint64_t size = std::max<std::uint64_t>(
      end, std::min<std::uint64_t>((end + step - 1) / step * step, options.segment_bytes));
  if (file.Preallocate(size).ok()) taken = size;
}

// Makes the segment of `chunk` under its final name only when its header is on disk.
Status RecordLogWriter::State::BeginSegment(const Chunk& chunk) {
  std::filesystem::path path = SegmentPath(folder, chunk.segment);
  std::filesystem::path temporary = path.string() + ".tmp";
  FileHandle previous = std::exchange(file, FileHandle());
  Status status = [&] {
    THRESHER_ASSIGN_OR_RETURN(file, FileHandle::Open(temporary, O_RDWR | O_CREAT | O_TRUNC));
    taken = 0;
    TakeSpace(kSegmentHeaderBytes);
    THRESHER_RETURN_IF_ERROR(
        file.WriteAt(0, record_log::EncodeSegmentHeader(chunk.segment, chunk.first_sequence)));
    THRESHER_RETURN_IF_ERROR(file.Sync());
    THRESHER_RETURN_IF_ERROR(Files().Rename(temporary, path));
    return SyncNames();
  }();
  if (!status.ok()) {
    (void)Files().Remove(temporary).ok();  // its space may be what is missing
    file = std::move(previous);
    return status;
  }
  open_segment = chunk.segment;
  file_end = started = kSegmentHeaderBytes;
  return Status::Ok();
}

// The open segment, all of its chunks written, gets its final size and reaches the disk.
Status RecordLogWriter::State::FinishSegment() {
  if (taken > file_end) THRESHER_RETURN_IF_ERROR(file.Truncate(file_end));
  THRESHER_RETURN_IF_ERROR(SyncFile());
  file.DropCached(file_end);
  while (chunks.front().segment == open_segment) chunks.pop_front();
  return Status::Ok();
}

// After a failed sync the kernel may have dropped the pages: what is still here is written again.
Status RecordLogWriter::State::SyncFile() {
  Reached(LogPoint::kBeforeSync);
  Status status = file.SyncData();
  Reached(LogPoint::kAfterSync);
  if (status.ok()) return status;
  for (Chunk& chunk : chunks) chunk.written = 0;
  return status;
}

Status RecordLogWriter::State::WriteChunks() {
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    if (chunks[i].segment != open_segment) {
      if (file.is_open()) {
        THRESHER_RETURN_IF_ERROR(FinishSegment());
        i = 0;
      }
      THRESHER_RETURN_IF_ERROR(BeginSegment(chunks[i]));
    }
    Chunk& chunk = chunks[i];
    std::size_t written = 0;
    Reached(LogPoint::kBeforeWrite);
    TakeSpace(chunk.offset + chunk.bytes.size());
    Status status = file.WriteAt(chunk.offset + chunk.written,
                                 std::string_view(chunk.bytes).substr(chunk.written), &written);
    chunk.written += written;
    file_end = chunk.offset + chunk.written;
    Reached(LogPoint::kAfterWrite);
    THRESHER_RETURN_IF_ERROR(status);
  }
  return Status::Ok();
}

void RecordLogWriter::State::WriteBehind() {
  if (file_end < started + kStartStepBytes) return;
  file.StartWriting(started, file_end);
  started = file_end;
  if (started > kCachedTailBytes) file.DropCached(started - kCachedTailBytes);
}

Status RecordLogWriter::State::Flush(bool sync) {
  THRESHER_RETURN_IF_ERROR(WriteChunks());
  if (sync && file.is_open()) {
    THRESHER_RETURN_IF_ERROR(SyncFile());
    synced = end.position;
  }
  WriteBehind();
  chunks.clear();
  return Status::Ok();
}

// The chunk that takes the next record; `end.position` is where in its segment.
Chunk& RecordLogWriter::State::ChunkFor(std::size_t record_bytes) {
  LogPosition& position = end.position;
  if (position.segment == 0) {
    position = {record_log::kFirstSegment, kSegmentHeaderBytes};
  } else if (position.offset > kSegmentHeaderBytes &&
             (segment_ended || position.offset + record_bytes > options.segment_bytes)) {
    position = {position.segment + 1, kSegmentHeaderBytes};
  }
  segment_ended = false;
  if (chunks.empty() || chunks.back().segment != position.segment) {
    chunks.push_back({position.segment, end.sequence, position.offset, {}, 0});
  }
  return chunks.back();
}

RecordLogWriter::RecordLogWriter(State* state) : state_(state) {}
RecordLogWriter::RecordLogWriter(RecordLogWriter&& other) noexcept
    : state_(std::exchange(other.state_, nullptr)) {}
RecordLogWriter& RecordLogWriter::operator=(RecordLogWriter&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
RecordLogWriter::~RecordLogWriter() {
  if (state_ == nullptr) return;
  // Gives preallocated space back; when that fails, zeros stay at the end, which readers know.
  if (state_->taken > state_->file_end && state_->file.is_open() && state_->chunks.empty()) {
    (void)state_->file.Truncate(state_->file_end);
  }
  delete state_;
}

Result<RecordLogWriter> RecordLogWriter::Open(const std::filesystem::path& folder,
                                              const RecordLogOptions& options) {
  THRESHER_RETURN_IF_ERROR(CreateDirectories(folder));
  auto state = std::make_unique<State>();
  state->folder = folder;
  state->options = options;
  THRESHER_RETURN_IF_ERROR(state->Lock());
  THRESHER_RETURN_IF_ERROR(state->Recover());
  return RecordLogWriter(state.release());
}

Result<LogPosition> RecordLogWriter::Append(std::uint32_t kind,
                                            std::span<const std::string_view> payload) {
  const std::size_t size = record_log::PayloadSize(payload);
  if (size > record_log::kMaxPayloadBytes) {
    return OutOfRange(state_->folder.string() + ": a record of " + std::to_string(size) +
                      " bytes; allowed: " + std::to_string(record_log::kMaxPayloadBytes));
  }
  LogCursor& end = state_->end;
  Chunk& chunk = state_->ChunkFor(record_log::kRecordOverheadBytes + size);
  LogPosition position = end.position;
  // A segment is begun when the one before it is on disk.
  const bool follows_unsynced = position.offset > kSegmentHeaderBytes && position != state_->synced;
  end.previous = record_log::AppendRecord(chunk.bytes, kind, end.sequence, end.previous, payload,
                                          follows_unsynced);
  end.sequence += 1;
  end.position.offset += record_log::kRecordOverheadBytes + size;
  return position;
}

void RecordLogWriter::EndSegment() { state_->segment_ended = true; }

Status RecordLogWriter::Flush(bool sync) { return state_->Flush(sync); }

std::size_t RecordLogWriter::buffered_bytes() const {
  std::size_t bytes = 0;
  for (const Chunk& chunk : state_->chunks) bytes += chunk.bytes.size();
  return bytes;
}
std::uint64_t RecordLogWriter::next_sequence() const { return state_->end.sequence; }
LogCursor RecordLogWriter::end() const { return state_->end; }
std::uint64_t RecordLogWriter::repaired_bytes() const { return state_->repaired_bytes; }

}  // namespace thresher
