#include "common/comm/watchdog.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/data/file_handle.h"
#include "common/data/files.h"
#include "common/log/log.h"

namespace thresher::comm {
namespace {

using std::chrono::milliseconds;

constexpr int kExitStuck = 3;
constexpr milliseconds kShortestTick{10}, kLongestTick{1000};
constexpr int kTicksInADeadline = 8;  // enough to see a beat that stands still
constexpr int kTicksToTell = 2;
constexpr int kSilentTicks = 3;  // one is lost on a busy machine, two on a slow disk

std::filesystem::path FileOf(const WatchdogOptions& options, const char* kind, std::uint32_t rank) {
  return options.folder / (std::string(kind) + "_" + std::to_string(rank) + ".json");
}

// No fsync: it is for readers, not for a restart.
Status Overwrite(const std::filesystem::path& path, const std::string& text) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(path, O_WRONLY | O_CREAT | O_TRUNC));
  THRESHER_RETURN_IF_ERROR(file.WriteAt(0, text));
  return file.Close();
}

double Milliseconds(Duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

}  // namespace

Watchdog::Watchdog(std::shared_ptr<FlightRecorder> recorder, WatchdogOptions options)
    : recorder_(std::move(recorder)),
      options_(std::move(options)),
      tick_(std::clamp(options_.deadline / kTicksInADeadline, kShortestTick, kLongestTick)) {
  for (std::uint32_t rank = 0; rank < options_.size; ++rank) {
    if (rank != options_.rank.value) peers_.push_back({{rank, std::nullopt, {}}, {}});
  }
}

Result<std::unique_ptr<Watchdog>> Watchdog::Start(std::shared_ptr<FlightRecorder> recorder,
                                                  WatchdogOptions options) {
  const Status folder = CreateDirectories(options.folder);
  if (!folder.ok() && folder.code() != StatusCode::kResourceExhausted) return folder;
  std::unique_ptr<Watchdog> made(new Watchdog(std::move(recorder), std::move(options)));
  // What a rank of an earlier job left has another job in it. A full disk is not the training's
  // end.
  const Status written = made->WritePlace();
  if (written.code() == StatusCode::kResourceExhausted || !folder.ok()) {
    LogWarning("the watchdog begins without its file: " +
               (folder.ok() ? written : folder).message());
  } else if (!written.ok()) {
    return written;
  }
  Watchdog* const self = made.get();
  self->recorder_->ReportWith([self](const Status& failed) { return self->Explain(failed); });
  self->thread_ =
      NamedThread("watchdog", [self](const std::stop_token& stop) { self->Loop(stop); });
  return made;
}

Watchdog::~Watchdog() {
  recorder_->ReportWith({});
  thread_.RequestStop();
  stopped_.NotifyAll();
  thread_.Join();
}

void Watchdog::Loop(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex_);
      stopped_.WaitFor(lock, tick_, [&] { return stop.stop_requested(); });
    }
    if (!stop.stop_requested()) Look();
  }
}

void Watchdog::Look() {
  ++beat_;
  const Status written = WritePlace();
  if (!written.ok()) LogDebug("the watchdog could not write: " + written.ToString());
  const auto newest = recorder_->Newest();
  const bool going_on = newest && newest->ended == TimePoint{};
  const Duration age = going_on ? SystemClock().Now() - newest->posted : Duration::zero();
  if (age < options_.deadline / 4) {
    std::lock_guard lock(mutex_);
    // After one that failed what was seen is still to be told.
    if (!newest || newest->state != OperationRing::State::kFailed) watching_ = false;
    return;
  }
  const std::vector<PeerPlace> peers = LookAtPeers();
  if (age < options_.deadline + options_.grace) return;
  const std::string why = "rank " + std::to_string(options_.rank.value) + ": " + newest->what +
                          " #" + std::to_string(newest->sequence) +
                          ": the library has not come back";
  const Status failed = Explain(DeadlineExceeded(why));
  LogError(failed.message());
  if (options_.on_stuck) return options_.on_stuck(failed.message());
  FlushLog();
  std::_Exit(kExitStuck);
}

RankPlace Watchdog::MyPlace() const {
  RankPlace place;
  place.job = options_.job;
  place.beat = beat_;
  if (const auto newest = recorder_->Newest()) {
    place.sequence = newest->sequence;
    place.what = newest->what;
    place.over = newest->ended != TimePoint{};
  }
  return place;
}

Status Watchdog::WritePlace() {
  return Overwrite(FileOf(options_, "place", options_.rank.value), EncodePlace(MyPlace()));
}

std::vector<PeerPlace> Watchdog::LookAtPeers() {
  // Before the lock: a disk may take its time.
  std::vector<Result<RankPlace>> places;
  for (std::uint32_t rank = 0; rank < options_.size; ++rank) {
    if (rank == options_.rank.value) continue;
    const auto text = ReadFile(FileOf(options_, "place", rank));
    places.push_back(text.ok() ? ParsePlace(*text) : Result<RankPlace>(text.status()));
  }
  const TimePoint now = SystemClock().Now();
  std::vector<PeerPlace> out;
  std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    Peer& peer = peers_[i];
    if (!watching_) peer.heard = now;
    // One that is being written is as it was when it was last read.
    const Result<RankPlace>& place = places[i];
    if (place.ok() && place->job == options_.job) {
      if (!peer.seen.place || peer.seen.place->beat != place->beat) peer.heard = now;
      peer.seen.place = *place;
    }
    peer.seen.silent = now - peer.heard;
    out.push_back(peer.seen);
  }
  watching_ = true;
  return out;
}

// An operation may fail at once: the others are given the time to tell where they are.
Status Watchdog::Explain(const Status& failed) {
  (void)LookAtPeers();
  {
    std::unique_lock lock(mutex_);
    stopped_.WaitFor(lock, kTicksToTell * tick_, [] { return false; });
  }
  const std::vector<PeerPlace> peers = LookAtPeers();
  RankPlace mine = MyPlace();
  std::string text = failed.message();
  for (const std::string& line : WhoIsWhere(mine, peers, kSilentTicks * tick_)) text += "; " + line;
  WriteReport(text, peers);
  return Status(failed.code(), text);
}

void Watchdog::WriteReport(const std::string& error, const std::vector<PeerPlace>& peers) {
  const TimePoint now = SystemClock().Now();
  nlohmann::json report = {{"rank", options_.rank.value},
                           {"ranks", options_.size},
                           {"job", options_.job},
                           {"error", error},
                           {"deadline_ms", options_.deadline.count()}};
  const OperationRing recent = recorder_->Copy();
  for (const OperationRing::Entry& entry : recent.entries()) {
    const bool ended = entry.ended != TimePoint{};
    report["operations"].push_back(
        {{"sequence", entry.sequence},
         {"operation", entry.what},
         {"sent_bytes", entry.sent_bytes},
         {"received_bytes", entry.received_bytes},
         {"peers", entry.peers},
         {"state", OperationRing::StateName(entry.state)},
         {"begun_ms_ago", Milliseconds(now - entry.posted)},
         {"took_ms", Milliseconds((ended ? entry.ended : now) - entry.posted)}});
  }
  for (const PeerPlace& peer : peers) {
    nlohmann::json seen = {{"rank", peer.rank}, {"silent_ms", Milliseconds(peer.silent)}};
    if (peer.place) {
      seen["sequence"] = peer.place->sequence;
      seen["operation"] = peer.place->what;
      seen["over"] = peer.place->over;
    }
    report["others"].push_back(std::move(seen));
  }
  const std::filesystem::path file = FileOf(options_, "flight", options_.rank.value);
  const Status written = WriteFileAtomic(file, report.dump(2) + "\n");
  LogWarning(written.ok() ? "the flight record is in " + file.string()
                          : "no flight record: " + written.ToString());
}

}  // namespace thresher::comm
