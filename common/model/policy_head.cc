#include "common/base/check.h"
#include "common/model/forward.h"
#include "common/model/packed_model.h"
#include "kernels/cpu/head.h"

namespace thresher::model {
namespace {

// Rows of hidden states [T, D], whose count the other columns share.
std::int64_t CheckedRows(const PackedWeights& model, std::span<const float> hidden,
                         std::size_t rows, std::span<const float> temperature) {
  THRESHER_CHECK(hidden.size() == rows * static_cast<std::size_t>(model.config().width),
                 "hidden is not [T, D]");
  THRESHER_CHECK(temperature.size() == rows, "temperature is not [T]");
  for (float t : temperature) THRESHER_CHECK(t >= 0, "temperature below 0");
  return static_cast<std::int64_t>(rows);
}

void CheckTargets(const PackedWeights& model, std::span<const std::int32_t> target) {
  for (std::int32_t id : target) {
    THRESHER_CHECK(id >= 0 && id < model.valid_vocab(), "target is no valid id");
  }
}

}  // namespace

LogProbResult LogProb(const PackedModel& packed, std::span<const float> hidden,
                      std::span<const std::int32_t> target, std::span<const float> temperature,
                      Workspace&) {
  const PackedWeights& model = PackedWeights::Of(packed);
  const ModelConfig& config = model.config();
  const std::int64_t rows = CheckedRows(model, hidden, target.size(), temperature);
  CheckTargets(model, target);
  LogProbResult result;
  result.logprob.resize(target.size());
  result.lse.resize(target.size());
  result.entropy.resize(target.size());
  kernels::HeadLogProb(rows, config.width, config.vocab, model.valid_vocab(), hidden.data(),
                       config.width, model.head(), temperature.data(), target.data(),
                       result.logprob.data(), result.lse.data(), result.entropy.data());
  return result;
}

void Sample(const PackedModel& packed, std::span<const float> hidden,
            std::span<const float> temperature, std::span<const double> uniform, Workspace&,
            std::span<std::int32_t> token, std::span<float> logprob) {
  const PackedWeights& model = PackedWeights::Of(packed);
  const ModelConfig& config = model.config();
  const std::int64_t rows = CheckedRows(model, hidden, token.size(), temperature);
  THRESHER_CHECK(uniform.size() == token.size() && logprob.size() == token.size(),
                 "columns of unequal length");
  kernels::HeadSample(rows, config.width, config.vocab, model.valid_vocab(), hidden.data(),
                      config.width, model.head(), temperature.data(), uniform.data(), token.data(),
                      logprob.data());
}

std::vector<float> Logits(const PackedModel& packed, std::span<const float> hidden) {
  const PackedWeights& model = PackedWeights::Of(packed);
  const std::int64_t width = model.config().width;
  const std::int64_t rows = static_cast<std::int64_t>(hidden.size()) / width;
  THRESHER_CHECK(static_cast<std::int64_t>(hidden.size()) == rows * width, "hidden is not [T, D]");
  std::vector<float> logits(static_cast<std::size_t>(rows * model.valid_vocab()));
  kernels::HeadLogits(rows, width, model.valid_vocab(), hidden.data(), width, model.head(),
                      logits.data(), model.valid_vocab());
  return logits;
}

void LogProbBackward(const PackedModel& packed, std::span<const float> hidden,
                     std::span<const std::int32_t> target, std::span<const float> temperature,
                     std::span<const float> lse, std::span<const float> dlogprob, Workspace&,
                     std::span<float> dhidden, std::span<float> gradient) {
  const PackedWeights& model = PackedWeights::Of(packed);
  const ModelConfig& config = model.config();
  THRESHER_CHECK(model.with_backward(), "model was packed without a backward pass");
  THRESHER_CHECK(lse.size() == target.size() && dlogprob.size() == target.size(),
                 "columns of unequal length");
  THRESHER_CHECK(dhidden.size() == hidden.size(), "dhidden is not [T, D]");
  THRESHER_CHECK(gradient.size() == GradientSize(config), "gradient of another model");
  CheckTargets(model, target);
  kernels::HeadBackwardArgs args{};
  args.t = CheckedRows(model, hidden, target.size(), temperature);
  args.d = args.ldh = args.lddh = config.width;
  args.v = config.vocab;
  args.valid_vocab = model.valid_vocab();
  args.hidden = hidden.data();
  args.packed_head = model.head();
  args.packed_head_transposed = model.head_transposed();
  args.temperature = temperature.data();
  args.targets = target.data();
  args.lse = lse.data();
  args.dlogprob = dlogprob.data();
  args.dhidden = dhidden.data();
  args.dhead = gradient.data() + model.layout().head_gradient;
  kernels::HeadBackward(args);
}

}  // namespace thresher::model
