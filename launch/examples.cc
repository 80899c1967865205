#include "launch/examples.h"

#include <filesystem>
#include <string>

#include "common/config/data_files.h"
#include "common/model/tokenizer.h"

namespace thresher::launch {
namespace {

// Lives as long as the source that encodes with it.
class WithTokenizer final : public examples::SupervisedSource {
 public:
  WithTokenizer(std::unique_ptr<model::Tokenizer> tokenizer,
                std::unique_ptr<examples::SupervisedSource> source)
      : tokenizer_(std::move(tokenizer)), source_(std::move(source)) {}

  Result<examples::Example> At(std::uint64_t item) const override { return source_->At(item); }
  std::uint64_t held_out() const override { return source_->held_out(); }
  Result<examples::Example> HeldOut(std::uint64_t index) const override {
    return source_->HeldOut(index);
  }
  const examples::SourceCounts& counts() const override { return source_->counts(); }
  const std::vector<DataHash>& hashes() const override { return source_->hashes(); }

 private:
  std::unique_ptr<model::Tokenizer> tokenizer_;
  std::unique_ptr<examples::SupervisedSource> source_;
};

std::string AbsolutePaths(const std::string& text) {
  if (text.empty()) return text;
  const auto paths = ParseWeightedPaths(text);
  if (!paths.ok()) return text;  // the schema has accepted it
  std::string out;
  for (const WeightedPath& path : *paths) {
    out += (out.empty() ? "" : ",") + std::filesystem::absolute(path.path).string() + ":" +
           std::to_string(path.weight);
  }
  return out;
}

}  // namespace

Config WithAbsolutePaths(Config config) {
  SupervisedConfig& s = config.supervised;
  for (std::string* text : {&s.file, &s.run, &s.eval_file}) *text = AbsolutePaths(*text);
  return config;
}

std::unique_ptr<examples::SupervisedSource> OpenExamples(const Config& config,
                                                         const tasks::Environment& environment) {
  if (!examples::UsesFiles(config)) return nullptr;
  auto tokenizer = model::Tokenizer::FromAlphabet(environment.alphabet());
  if (!tokenizer.ok()) throw ConfigError(tokenizer.status().message());
  const examples::ModelSide model{**tokenizer, model::Tokenizer::kBos, model::Tokenizer::kEos,
                                  static_cast<std::size_t>(config.model.context)};
  auto source = examples::OpenSource(config, model);
  if (!source.ok()) throw ConfigError(source.status().message());
  return std::make_unique<WithTokenizer>(*std::move(tokenizer), *std::move(source));
}

}  // namespace thresher::launch
