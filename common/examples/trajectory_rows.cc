#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "common/base/hash.h"
#include "common/data/files.h"
#include "common/data/trajectory_store.h"
#include "common/examples/rows.h"
#include "common/wire/records.h"

namespace thresher::examples {
namespace {

using Entry = TrajectoryStoreReader::Entry;

bool Wanted(const Trajectory& t, const TrajectoryFilter& filter) {
  const std::uint32_t step = t.OldestVersion().step;
  return t.id.stream == Stream::kTrain && t.finish == FinishReason::kStop &&
         t.outcome.kind == OutcomeKind::kScored && t.outcome.reward >= filter.min_reward &&
         step >= filter.from_step && (filter.to_step == 0 || step <= filter.to_step);
}

class TrajectoryRows final : public Rows {
 public:
  TrajectoryRows(std::filesystem::path folder, const RenderOptions& render)
      : folder_(std::move(folder)),
        context_(static_cast<std::uint32_t>(render.context)),
        over_long_(render.over_long) {}

  Status ReadThrough(const TrajectoryFilter& filter, const RowsOptions& options) {
    THRESHER_ASSIGN_OR_RETURN(reader_, TrajectoryStoreReader::Open(folder_ / "trajectories"));
    struct Found {
      Entry entry;
      Hash128 instance;
    };
    std::map<TrajectoryId, Found> found;
    std::set<TrajectoryId> seen;  // one that is stored twice counts once
    THRESHER_RETURN_IF_ERROR(reader_->ReadAll([&](const Entry& entry, std::string_view bytes) {
      if (entry.id.stream != Stream::kTrain) return Status::Ok();
      auto trajectory = wire::DecodeTrajectory(bytes);
      if (!trajectory.ok()) return trajectory.status().WithContext(Name(entry));
      if (!Wanted(*trajectory, filter) || !seen.insert(entry.id).second) return Status::Ok();
      const Hash128 instance = trajectory->instance_hash;
      THRESHER_ASSIGN_OR_RETURN(const bool kept, Look(entry, std::move(*trajectory)));
      if (kept) found[entry.id] = {entry, instance};
      return Status::Ok();
    }));
    Hasher128 hasher;
    for (const auto& [id, at] : found) {
      hasher.UpdateU64(id.item);
      hasher.UpdateU64(id.sample);
      hasher.UpdateHash(at.entry.content_hash);
      const bool apart = IsHeldOut(at.instance, options.held_out_share);
      (apart ? held_out_ : rows_).push_back(at.entry);
    }
    hash_ = hasher.Finish();
    counts_.examples = rows_.size();
    counts_.held_out = held_out_.size();
    return Status::Ok();
  }

  std::uint64_t size() const override { return rows_.size(); }
  std::uint64_t held_out() const override { return held_out_.size(); }
  Result<Example> At(std::uint64_t row) const override { return Read(rows_.at(row)); }
  Result<Example> HeldOut(std::uint64_t row) const override { return Read(held_out_.at(row)); }
  const SourceCounts& counts() const override { return counts_; }
  Hash128 hash() const override { return hash_; }

 private:
  std::string Name(const Entry& entry) const {
    return folder_.string() + ": trajectory " + entry.id.ToString();
  }

  // Counts it; false: it is dropped.
  Result<bool> Look(const Entry& entry, Trajectory&& t) {
    if (t.tokens.size() > context_ && over_long_ == OverLong::kRefuse) {
      return InvalidArgument(Name(entry) + ": " + std::to_string(t.tokens.size()) +
                             " tokens; allowed: at most model.context (" +
                             std::to_string(context_) +
                             "), or supervised.over_long: truncate or "
                             "drop");
    }
    const bool cut = t.tokens.size() > context_;
    const Example example = Cut(std::move(t));
    const bool dropped = example.LossTokens() == 0 || (cut && over_long_ == OverLong::kDrop);
    counts_.dropped += dropped;
    if (dropped) return false;
    counts_.truncated += cut;
    counts_.tokens += example.tokens.size();
    counts_.loss_tokens += example.LossTokens();
    return true;
  }

  Example Cut(Trajectory&& t) const {
    Example example;
    example.instance_hash = t.instance_hash;
    example.outcome = std::move(t.outcome);
    example.outcome.position_rewards.clear();  // of no use here, and behind a cut
    example.tokens = std::move(t.tokens);
    example.segments = std::move(t.segments);
    example.text = std::move(t.text);
    if (example.tokens.size() <= context_) return example;
    example.tokens.resize(context_);
    std::erase_if(example.segments, [&](const Segment& s) { return s.begin >= context_; });
    example.segments.back().end = context_;
    return example;
  }

  Result<Example> Read(const Entry& entry) const {
    THRESHER_ASSIGN_OR_RETURN(const std::string bytes, reader_->Read(entry));
    auto trajectory = wire::DecodeTrajectory(bytes);
    if (!trajectory.ok()) return trajectory.status().WithContext(Name(entry));
    if (trajectory->id != entry.id || trajectory->ContentHash() != entry.content_hash) {
      return DataLoss(Name(entry) + ": changed since the folder was opened");
    }
    return Cut(std::move(*trajectory));
  }

  const std::filesystem::path folder_;
  const std::uint32_t context_;
  const OverLong over_long_;
  std::unique_ptr<TrajectoryStoreReader> reader_;
  std::vector<Entry> rows_, held_out_;
  SourceCounts counts_;
  Hash128 hash_;
};

Status RequireTokenizer(const std::filesystem::path& folder, const model::Tokenizer& ours) {
  const std::filesystem::path file = folder / "model" / "tokenizer.json";
  THRESHER_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  THRESHER_ASSIGN_OR_RETURN(const auto theirs, model::Tokenizer::FromJson(text, file.string()));
  if (theirs->Hash() == ours.Hash()) return Status::Ok();
  return InvalidArgument(file.string() +
                         ": another tokenizer than the run's; allowed: the same, for trajectories "
                         "are learned token for token");
}

}  // namespace

Result<std::unique_ptr<Rows>> OpenTrajectories(const std::filesystem::path& folder,
                                               const RenderOptions& render,
                                               const TrajectoryFilter& filter,
                                               const RowsOptions& options) {
  THRESHER_RETURN_IF_ERROR(RequireTokenizer(folder, *render.tokenizer));
  auto rows = std::make_unique<TrajectoryRows>(folder, render);
  THRESHER_RETURN_IF_ERROR(rows->ReadThrough(filter, options));
  return std::unique_ptr<Rows>(std::move(rows));
}

}  // namespace thresher::examples
