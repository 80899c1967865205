#include "launch/scoring.h"

#include <algorithm>
#include <string>

#include "common/base/check.h"
#include "kernels/cpu/attention.h"

namespace thresher::launch {
namespace {

std::int32_t PagesFor(std::size_t positions) {
  constexpr std::size_t kPage = kernels::kKvPageSize;
  return static_cast<std::int32_t>((positions + kPage - 1) / kPage);
}

// What one pass is made of; pages of the sequences follow one another.
struct Pass {
  model::RowBatch rows;
  std::vector<std::int32_t> target;
  std::vector<std::vector<std::int32_t>> page_tables;
  std::int32_t pages = 0;

  explicit Pass(std::span<const std::vector<std::int32_t>> sequences) {
    page_tables.reserve(sequences.size());
    for (const auto& tokens : sequences) Add(tokens);
  }

  void Add(const std::vector<std::int32_t>& tokens) {
    const std::size_t count = tokens.size() - 1;  // the last token predicts nothing
    auto& table = page_tables.emplace_back();
    for (std::int32_t i = PagesFor(count); i > 0; --i) table.push_back(pages++);
    for (std::size_t i = 0; i < count; ++i) {
      rows.token.push_back(tokens[i]);
      rows.position.push_back(static_cast<std::int32_t>(i));
      rows.page_table.push_back(table.data());
      target.push_back(tokens[i + 1]);
    }
  }
};

model::TrainRows RowsOf(std::span<const std::vector<std::int32_t>> sequences, float temperature) {
  model::TrainRows rows;
  for (const auto& tokens : sequences) {
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      rows.token.push_back(tokens[i]);
      rows.position.push_back(static_cast<std::int32_t>(i));
      rows.target.push_back(tokens[i + 1]);
      rows.temperature.push_back(temperature);
    }
  }
  return rows;
}

}  // namespace

Scorer::Scorer(std::shared_ptr<const model::PackedModel> weights, WorkerPool* pool,
               std::size_t pass_tokens)
    : weights_(std::move(weights)),
      pass_tokens_(pass_tokens),
      workspace_(model::NewWorkspace(pool)) {}

Scorer::Scorer(std::shared_ptr<const model::PackedModel> weights,
               std::unique_ptr<model::TrainingPass> device, std::size_t pass_tokens)
    : weights_(std::move(weights)), pass_tokens_(pass_tokens), device_(std::move(device)) {}

Status Scorer::Check(std::span<const std::int32_t> tokens) const {
  const model::ModelConfig& config = weights_->config();
  if (tokens.empty()) return InvalidArgument("no tokens");
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    // A token that is predicted must be one that can be drawn.
    const std::int32_t end = i == 0 ? config.vocab : weights_->valid_vocab();
    if (tokens[i] < 0 || tokens[i] >= end) {
      return InvalidArgument("tokens[" + std::to_string(i) + "] is " + std::to_string(tokens[i]) +
                             "; allowed: 0 to " + std::to_string(end - 1));
    }
  }
  // The last token is predicted, never read.
  if (tokens.size() > static_cast<std::size_t>(config.context) + 1) {
    return OutOfRange(std::to_string(tokens.size()) + " tokens; allowed: at most " +
                      std::to_string(config.context + 1) + ", the model's context and one");
  }
  return Status::Ok();
}

std::vector<float> Scorer::OnCpu(std::span<const std::vector<std::int32_t>> sequences,
                                 float temperature) {
  const Pass pass(sequences);
  if (cache_ == nullptr || cache_->pages() < pass.pages) {
    cache_ = std::make_unique<model::KvCache>(weights_->config(), pass.pages);
  }
  std::vector<float> hidden(pass.target.size() *
                            static_cast<std::size_t>(weights_->config().width));
  model::Forward(*weights_, pass.rows, *cache_, *workspace_, hidden);
  const std::vector<float> temperatures(pass.target.size(), temperature);
  return model::LogProb(*weights_, hidden, pass.target, temperatures, *workspace_).logprob;
}

Status Scorer::ScorePass(std::span<const std::vector<std::int32_t>> sequences, float temperature,
                         std::vector<std::vector<float>>& out) {
  std::vector<float> logprobs;
  if (device_ == nullptr) {
    logprobs = OnCpu(sequences, temperature);
  } else if (const model::TrainRows rows = RowsOf(sequences, temperature); rows.size() > 0) {
    THRESHER_ASSIGN_OR_RETURN(logprobs, device_->ReferenceLogProbs(weights_, rows));
  }
  auto next = logprobs.begin();
  for (const auto& tokens : sequences) {
    const auto end = next + static_cast<std::ptrdiff_t>(tokens.size() - 1);
    out.emplace_back(next, end);
    next = end;
  }
  return Status::Ok();
}

Result<std::vector<std::vector<float>>> Scorer::Score(
    std::span<const std::vector<std::int32_t>> sequences, float temperature) {
  std::vector<std::vector<float>> out;
  out.reserve(sequences.size());
  for (std::size_t begin = 0; begin < sequences.size();) {
    std::size_t end = begin, rows = 0;
    do {
      THRESHER_CHECK(Check(sequences[end]).ok(), "a sequence that cannot be scored");
      rows += sequences[end++].size();
    } while (end < sequences.size() && rows + sequences[end].size() <= pass_tokens_);
    THRESHER_RETURN_IF_ERROR(ScorePass(sequences.subspan(begin, end - begin), temperature, out));
    begin = end;
  }
  return out;
}

}  // namespace thresher::launch
