#include "broker/tensorboard.h"

#include <fcntl.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "common/base/process.h"
#include "common/data/event_file.h"
#include "common/data/files.h"

namespace thresher::broker {
namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr std::size_t kMostWaiting = 1u << 20;
constexpr int kMostNames = 100;  // tried for a new file

std::string RecordOf(const MetricsLine& line) {
  ScalarEvent event{line.time, line.step, {}};
  for (const auto& [name, value] : line.numbers) {
    event.scalars.emplace_back(name, static_cast<float>(value));
  }
  return EncodeEvent(event);
}

struct Newest {
  double time = 0;
  std::string record;
};

// "EPOCH.NUMBER" at the end of a name: ascends from broker to broker, whatever the clock did.
std::string_view OrderOf(std::string_view name) {
  const std::size_t number = name.rfind('.');
  return name.substr(name.rfind('.', number - 1) + 1);
}

// The last event of the newest file that has one.
std::optional<Newest> NewestEvent(const std::filesystem::path& folder) {
  std::vector<std::string> names = NamesIn(folder);
  std::erase_if(names, [](const std::string& name) { return !name.starts_with(kPrefix); });
  std::ranges::stable_sort(names, std::ranges::greater(), OrderOf);
  for (const std::string& name : names) {
    const Result<MappedFile> file = MappedFile::Open(folder / name);
    if (!file.ok()) continue;
    const std::optional<LastEvent> last = FindLastEvent(file->bytes());
    if (last) return Newest{last->wall_time, std::string(last->record)};
  }
  return std::nullopt;
}

// What stands in `lines` behind the line of that event. All is new where there is no event; where
// its line is gone nothing is known to be.
std::string_view LinesBehind(std::string_view lines, const std::optional<Newest>& newest) {
  if (!newest) return lines;
  const std::string begin = R"({"time":)" + nlohmann::json(newest->time).dump() + ",";
  std::optional<std::string_view> behind;
  for (std::size_t at = lines.rfind(begin); at != std::string_view::npos;
       at = at == 0 ? std::string_view::npos : lines.rfind(begin, at - 1)) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size() - 1);
    const auto line = ParseMetricsLine(lines.substr(at, end - at));
    const bool same = line && RecordOf(*line) == newest->record;
    // Several lines of one moment: the one with equal numbers, else the last.
    if (same || !behind) behind = lines.substr(end + 1);
    if (same) break;
  }
  return behind.value_or(std::string_view());
}

}  // namespace

void TensorBoard::CatchUp(std::string_view lines) {
  events_ = 0;
  std::string_view rest = LinesBehind(lines, NewestEvent(folder_));
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    if (const auto line = ParseMetricsLine(rest.substr(0, end))) Put(*line);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (waiting_.size() < kMostWaiting) continue;
    Flush();
    if (events_ > 0) return;
  }
  Flush();
}

void TensorBoard::Add(const MetricsLine& line) {
  if (events_ == 0) {
    Put(line);
    Flush();
    return;
  }
  // The last ones could not be written: they, and this one, stand in metrics.jsonl.
  const Result<MappedFile> lines = MappedFile::Open(folder_.parent_path() / "metrics.jsonl");
  if (lines.ok()) CatchUp(lines->bytes());
}

void TensorBoard::Put(const MetricsLine& line) {
  waiting_ += RecordOf(line);
  ++events_;
}

void TensorBoard::Flush() {
  if (events_ == 0) return;
  if (Write().ok()) {
    events_ = 0;
  } else {
    ++lost_;
  }
  waiting_.clear();
}

Status TensorBoard::Write() {
  if (!file_.is_open()) THRESHER_RETURN_IF_ERROR(Create());
  if (bytes_ == 0) {
    const std::chrono::duration<double> now = clock_->WallTime();
    waiting_.insert(0, EventFileHead(now.count()));
  }
  const Status status = file_.WriteAt(bytes_, waiting_);
  if (!status.ok()) {
    (void)file_.Truncate(bytes_).ok();  // a part that stays is overwritten by the next event
    return status;
  }
  bytes_ += waiting_.size();
  return Status::Ok();
}

Status TensorBoard::Create() {
  THRESHER_RETURN_IF_ERROR(CreateDirectories(folder_));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(clock_->WallTime()).count();
  char begin[32], end[32];
  std::snprintf(begin, sizeof begin, "%010lld.", static_cast<long long>(seconds));
  std::snprintf(end, sizeof end, ".%06llu", static_cast<unsigned long long>(epoch_.value));
  const std::string name = std::string(kPrefix) + begin + ThisProcess().host + end;
  for (int i = 0; i < kMostNames; ++i) {
    Result<FileHandle> file =
        FileHandle::Open(folder_ / (name + "." + std::to_string(i)), O_WRONLY | O_CREAT | O_EXCL);
    if (file.status().code() == StatusCode::kAlreadyExists) continue;
    if (!file.ok()) return file.status();
    file_ = *std::move(file);
    return Status::Ok();
  }
  return AlreadyExists((folder_ / name).string());
}

}  // namespace thresher::broker
