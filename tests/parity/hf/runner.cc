#include "tests/parity/hf/runner.h"

#include <algorithm>
#include <numeric>

#include "common/model/weights.h"

namespace thresher::model {

using nlohmann::json;

Runner::Runner(std::shared_ptr<const PackedModel> model)
    : model_(std::move(model)),
      cache_(model_->config(), (model_->config().context + 15) / 16),
      pages_(static_cast<std::size_t>(cache_.pages())) {
  std::iota(pages_.begin(), pages_.end(), 0);
}

std::vector<float> Runner::Hidden(std::span<const std::int32_t> ids, std::size_t first,
                                  Tape* tape) {
  RowBatch rows;
  for (std::size_t i = first; i < ids.size(); ++i) {
    rows.token.push_back(ids[i]);
    rows.position.push_back(static_cast<std::int32_t>(i));
    rows.page_table.push_back(pages_.data());
  }
  std::vector<float> hidden(rows.token.size() * static_cast<std::size_t>(model_->config().width));
  Forward(*model_, rows, cache_, *workspace_, hidden, tape);
  return hidden;
}

json Runner::LogitRows(const Ids& ids) {
  const std::vector<float> logits = Logits(*model_, Hidden(ids, 0, nullptr));
  const std::size_t valid = logits.size() / ids.size();
  json rows = json::array();
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>(t * valid);
    rows.push_back(std::vector<float>(row, row + static_cast<std::ptrdiff_t>(valid)));
  }
  return rows;
}

Ids Runner::Greedy(Ids ids, int new_tokens) {
  const auto& ends = model_->config().eos_ids;
  Ids continuation;
  std::size_t done = 0;
  const float temperature = 0;
  const double uniform = 0.5;
  while (static_cast<int>(continuation.size()) < new_tokens) {
    const std::vector<float> hidden = Hidden(ids, done, nullptr);
    done = ids.size();
    std::int32_t token = 0;
    float logprob = 0;
    const auto width = static_cast<std::size_t>(model_->config().width);
    Sample(*model_, std::span(hidden).last(width), {&temperature, 1}, {&uniform, 1}, *workspace_,
           {&token, 1}, {&logprob, 1});
    continuation.push_back(token);
    ids.push_back(token);
    if (std::ranges::find(ends, token) != ends.end()) break;
  }
  return continuation;
}

std::vector<float> Runner::Gradient(const Ids& ids, const std::vector<float>& weights) {
  const std::span<const std::int32_t> inputs = std::span(ids).first(weights.size());
  const std::span<const std::int32_t> targets = std::span(ids).last(weights.size());
  const TapePtr tape = NewTape();
  const std::vector<float> hidden = Hidden(inputs, 0, tape.get());
  const std::vector<float> temperature(weights.size(), 1);
  const auto result = LogProb(*model_, hidden, targets, temperature, *workspace_);
  std::vector<float> dhidden(hidden.size()), gradient(GradientSize(model_->config()));
  LogProbBackward(*model_, hidden, targets, temperature, result, weights, {}, *workspace_, dhidden,
                  gradient);
  RowBatch rows;
  rows.token.assign(inputs.begin(), inputs.end());
  rows.position.resize(inputs.size());
  std::iota(rows.position.begin(), rows.position.end(), 0);
  rows.page_table.assign(inputs.size(), pages_.data());
  Backward(*model_, rows, *tape, dhidden, *workspace_, gradient);
  FoldTiedGradient(model_->config(), gradient);
  gradient.resize(ParameterCount(model_->config()));
  return gradient;
}

}  // namespace thresher::model
