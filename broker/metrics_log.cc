#include "broker/metrics_log.h"

#include <algorithm>

#include "common/data/files.h"

namespace thresher::broker {

using Kind = MetricsLine::Kind;

Result<MetricsLog> MetricsLog::Open(const std::filesystem::path& run, const Clock& clock,
                                    Options options) {
  const std::filesystem::path path = run / "metrics.jsonl";
  THRESHER_ASSIGN_OR_RETURN(JsonLines lines, JsonLines::Open(path));
  MetricsLog log(std::move(lines));
  THRESHER_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  log.ReadBack(file.bytes());
  if (options.tensorboard) {
    log.tensorboard_.emplace(run, clock, options.epoch);
    log.tensorboard_->CatchUp(file.bytes());
  }
  return log;
}

void MetricsLog::Add(const std::string& json_line) {
  std::optional<MetricsLine> line = ParseMetricsLine(json_line);
  THRESHER_CHECK(line.has_value(), "a line of metrics.jsonl without time and number");
  const auto& last = newest_[static_cast<int>(Kind::kStep)];
  const bool known = line->kind == Kind::kRound ? rounds_.contains(line->number)
                                                : last && line->number <= last->number;
  if (known) return;
  if (lines_.Append(json_line) && tensorboard_) tensorboard_->Add(*line);
  Remember(*std::move(line));
}

void MetricsLog::Remember(MetricsLine line) {
  if (line.kind == Kind::kRound) rounds_.insert(line.number);
  newest_[static_cast<int>(line.kind)] = std::move(line);
}

// A run of weeks has a gigabyte of lines. What is reported again was lost with the last group of
// records, so its line stands near the end; of those only the last step's and rounds are parsed.
void MetricsLog::ReadBack(std::string_view text) {
  constexpr std::size_t kFarEnough = 8u << 20;
  if (text.size() > kFarEnough) text.remove_prefix(text.size() - kFarEnough);
  bool step_found = false;
  std::vector<MetricsLine> rounds;  // newest first
  while (!text.empty()) {
    const std::size_t end = text.ends_with('\n') ? text.size() - 1 : text.size();
    const std::size_t newline = end == 0 ? std::string_view::npos : text.rfind('\n', end - 1);
    const std::size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
    const std::string_view line = text.substr(begin, end - begin);
    text = text.substr(0, begin);
    if (step_found && line.find(R"("round":)") == std::string_view::npos) continue;
    std::optional<MetricsLine> parsed = ParseMetricsLine(line);
    if (!parsed) continue;
    if (parsed->kind == Kind::kRound) {
      rounds.push_back(*std::move(parsed));
    } else if (!step_found) {
      step_found = true;
      Remember(*std::move(parsed));
    }
  }
  for (auto round = rounds.rbegin(); round != rounds.rend(); ++round) Remember(*std::move(round));
}

}  // namespace thresher::broker
