#include "common/examples/source.h"

#include <utility>

#include "common/config/data_files.h"
#include "common/data/prompt_stream.h"
#include "common/examples/rows.h"

namespace thresher::examples {
namespace {

class FileSource final : public SupervisedSource {
 public:
  FileSource(const Config& config, const ModelSide& model) : config_(config) {
    render_.tokenizer = &model.tokenizer;
    render_.bos = model.bos;
    render_.eos = model.eos;
    render_.context = model.context;
    const std::string& over_long = config.supervised.over_long;
    render_.over_long = over_long == "truncate" ? OverLong::kTruncate
                        : over_long == "drop"   ? OverLong::kDrop
                                                : OverLong::kRefuse;
  }

  Status Open(bool trusted) {
    const SupervisedConfig& s = config_.supervised;
    THRESHER_ASSIGN_OR_RETURN(render_.loss_roles, ParseRoles(s.loss_roles));
    THRESHER_RETURN_IF_ERROR(FindTemplate());
    RowsOptions options;
    options.held_out_share = s.eval_share;
    options.trusted = trusted && render_.over_long == OverLong::kRefuse;
    const char* key = s.source == "jsonl" ? "supervised.file" : "supervised.run";
    THRESHER_RETURN_IF_ERROR(OpenAll(key, s.source == "jsonl" ? s.file : s.run, options, rows_));
    options.held_out_share = 0;
    if (!s.eval_file.empty()) {
      THRESHER_RETURN_IF_ERROR(OpenAll("supervised.eval_file", s.eval_file, options, measured_));
    }
    return Finish();
  }

  Result<Example> At(std::uint64_t item) const override {
    const PromptStream::Prompt at = stream_->At(item);
    return rows_[at.source]->At(at.row);
  }

  std::uint64_t held_out() const override { return counts_.held_out; }

  Result<Example> HeldOut(std::uint64_t index) const override {
    for (const auto& rows : measured_) {
      if (index < rows->size()) return rows->At(index);
      index -= rows->size();
    }
    for (const auto& rows : rows_) {
      if (index < rows->held_out()) return rows->HeldOut(index);
      index -= rows->held_out();
    }
    return OutOfRange("no such held-out example");
  }

  const SourceCounts& counts() const override { return counts_; }
  const std::vector<DataHash>& hashes() const override { return hashes_; }

 private:
  using AllRows = std::vector<std::unique_ptr<Rows>>;

  Status FindTemplate() {
    if (config_.model.init.empty()) return Status::Ok();
    auto found = model::ChatTemplate::FromFolder(config_.model.init);
    if (found.ok()) render_.chat_template = *std::move(found);
    const bool none = found.status().code() == StatusCode::kNotFound;
    return found.ok() || none ? Status::Ok() : found.status().WithContext("model.init");
  }

  Status OpenAll(const std::string& key, const std::string& text, const RowsOptions& options,
                 AllRows& out) {
    const SupervisedConfig& s = config_.supervised;
    THRESHER_ASSIGN_OR_RETURN(const auto paths, ParseWeightedPaths(text));
    for (const WeightedPath& path : paths) {
      const TrajectoryFilter filter{s.min_reward, static_cast<std::uint32_t>(s.from_step),
                                    static_cast<std::uint32_t>(s.to_step)};
      auto rows = key == "supervised.run" ? OpenTrajectories(path.path, render_, filter, options)
                                          : OpenLines(path.path, Renderer(render_), options);
      if (!rows.ok()) return rows.status().WithContext(key);
      if ((*rows)->size() == 0) return NothingLeft(key, path.path, (*rows)->counts());
      hashes_.push_back({key, path.path, path.weight, (*rows)->hash()});
      if (&out == &rows_) weights_.push_back({(*rows)->size(), path.weight});
      out.push_back(*std::move(rows));
    }
    return Status::Ok();
  }

  static Status NothingLeft(const std::string& key, const std::string& path,
                            const SourceCounts& counts) {
    return InvalidArgument(key + ": " + path + " has no example (" +
                           std::to_string(counts.dropped) + " dropped as too long, " +
                           std::to_string(counts.held_out) + " held out); allowed: at least one");
  }

  Status Finish() {
    for (const auto& rows : rows_) {
      const SourceCounts& c = rows->counts();
      counts_.examples += c.examples;
      counts_.held_out += c.held_out;
      counts_.dropped += c.dropped;
      counts_.truncated += c.truncated;
      counts_.tokens += c.tokens;
      counts_.loss_tokens += c.loss_tokens;
    }
    for (const auto& rows : measured_) counts_.held_out += rows->size();
    if (config_.supervised.eval_share > 0 && counts_.held_out == 0) {
      return InvalidArgument(
          "supervised.eval_share: " + std::to_string(config_.supervised.eval_share) + " of " +
          std::to_string(counts_.examples) + " examples is none of them; allowed: a larger share");
    }
    stream_ = std::make_unique<PromptStream>(config_.run.seed, Stream::kSupervised, weights_);
    return Status::Ok();
  }

  const Config config_;
  RenderOptions render_;
  AllRows rows_, measured_;
  std::vector<PromptStream::Source> weights_;
  std::unique_ptr<PromptStream> stream_;
  SourceCounts counts_;
  std::vector<DataHash> hashes_;
};

Result<std::unique_ptr<SupervisedSource>> Open(const Config& config, const ModelSide& model,
                                               bool trusted) {
  auto source = std::make_unique<FileSource>(config, model);
  THRESHER_RETURN_IF_ERROR(source->Open(trusted));
  return std::unique_ptr<SupervisedSource>(std::move(source));
}

}  // namespace

bool UsesFiles(const Config& config) {
  return config.supervised.FromFiles() &&
         (config.supervised.steps > 0 || config.objective.supervised_coefficient > 0 ||
          config.supervised.eval_every > 0);
}

Result<std::unique_ptr<SupervisedSource>> OpenSource(const Config& config, const ModelSide& model) {
  return Open(config, model, false);
}

Result<std::unique_ptr<SupervisedSource>> OpenSource(const model::RunContext& run) {
  const ModelSide model{*run.tokenizer, run.model.bos_id, run.model.eos_id(),
                        static_cast<std::size_t>(run.model.context)};
  THRESHER_ASSIGN_OR_RETURN(auto source, Open(run.config, model, true));
  THRESHER_RETURN_IF_ERROR(RequireSameData(run.data, source->hashes()));
  return source;
}

Status RequireSameData(const std::vector<DataHash>& recorded, const std::vector<DataHash>& found) {
  for (std::size_t i = 0; i < std::max(recorded.size(), found.size()); ++i) {
    if (i >= found.size()) {
      return FailedPrecondition(
          recorded[i].key + ": " + recorded[i].path +
          ", which the run was made with, is missing; allowed: the same data");
    }
    const DataHash& now = found[i];
    const bool same = i < recorded.size() && recorded[i].key == now.key &&
                      recorded[i].weight == now.weight && recorded[i].hash == now.hash;
    if (same) continue;
    const std::string was = i < recorded.size() ? recorded[i].hash.ToString() + " with weight " +
                                                      std::to_string(recorded[i].weight)
                                                : "nothing";
    return FailedPrecondition(now.key + ": " + now.path + " has the hash " + now.hash.ToString() +
                              " and weight " + std::to_string(now.weight) +
                              "; allowed: what the run was made with (" + was + ")");
  }
  return Status::Ok();
}

}  // namespace thresher::examples
