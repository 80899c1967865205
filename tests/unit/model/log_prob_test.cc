#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

constexpr std::int32_t kValid = 33;  // fewer than the 37 rows of the head
constexpr int kRows = 90;

class PolicyHead : public ::testing::Test {
 protected:
  void SetUp() override {
    config_ = SmallConfig("llama", true);
    model_ = PackedModel::Make(config_, LivelyWeights(config_, 3), kValid, false);
    const auto tokens = RandomTokens(5, kRows, kValid);
    const auto pages = PageTable(0, 1, kRows);
    KvCache cache(config_, 8);
    RowBatch batch;
    Append(tokens, 0, kRows, pages, batch);
    hidden_ = HiddenOf(*model_, batch, cache);
    TrajectoryId id;
    for (std::uint32_t t = 0; t < kRows; ++t) {
      uniform_.push_back(RandomStream(11, id, RandomPurpose::kSample).Uniform(t));
    }
  }

  // log softmax of one row in double precision, from the plain logits.
  std::vector<double> Reference(int row, double temperature) const {
    const auto logits = Logits(*model_, hidden_);
    std::vector<double> z(kValid);
    double sum = 0;
    for (int i = 0; i < kValid; ++i)
      z[i] = logits[static_cast<std::size_t>(row * kValid + i)] / temperature;
    const double top = *std::max_element(z.begin(), z.end());
    for (double value : z) sum += std::exp(value - top);
    for (double& value : z) value -= top + std::log(sum);
    return z;
  }

  ModelConfig config_;
  std::shared_ptr<const PackedModel> model_;
  std::vector<float> hidden_;
  std::vector<double> uniform_;
  WorkspacePtr workspace_ = NewWorkspace();
};

TEST_F(PolicyHead, SampledLogprobsEqualRecomputedOnesBitForBit) {
  for (float temperature : {0.0f, 0.3f, 1.0f, 2.5f}) {
    const std::vector<float> temperatures(kRows, temperature);
    std::vector<std::int32_t> token(kRows);
    std::vector<float> logprob(kRows);
    Sample(*model_, hidden_, temperatures, uniform_, *workspace_, token, logprob);
    EXPECT_EQ(LogProb(*model_, hidden_, token, temperatures, *workspace_).logprob, logprob);
    // One row alone, as a decode step of a single sequence would ask for it.
    const auto width = static_cast<std::size_t>(config_.width);
    for (std::size_t t = 0; t < kRows; t += 7) {
      const auto one =
          LogProb(*model_, std::span(hidden_).subspan(t * width, width),
                  std::span(token).subspan(t, 1), std::span(temperatures).first(1), *workspace_);
      EXPECT_EQ(one.logprob[0], logprob[t]);
    }
  }
}

TEST_F(PolicyHead, LogprobAndEntropyMatchDoublePrecision) {
  const auto targets = RandomTokens(6, kRows, kValid);
  const std::vector<float> temperatures(kRows, 0.7f);
  const auto result = LogProb(*model_, hidden_, targets, temperatures, *workspace_);
  for (int t = 0; t < kRows; ++t) {
    const auto reference = Reference(t, 0.7f);
    double entropy = 0;
    for (double value : reference) entropy -= std::exp(value) * value;
    // z and lse are floats below 64 in size: each rounds by at most 2^-19, and a few add up.
    EXPECT_NEAR(result.logprob[static_cast<std::size_t>(t)],
                reference[static_cast<std::size_t>(targets[static_cast<std::size_t>(t)])], 1e-5);
    EXPECT_NEAR(result.entropy[static_cast<std::size_t>(t)], entropy, 2e-5);
  }
}

TEST_F(PolicyHead, SamplingInvertsTheCumulatedDistribution) {
  const std::vector<float> temperatures(kRows, 1.3f);
  std::vector<std::int32_t> token(kRows);
  std::vector<float> logprob(kRows);
  Sample(*model_, hidden_, temperatures, uniform_, *workspace_, token, logprob);
  for (int t = 0; t < kRows; ++t) {
    const auto reference = Reference(t, 1.3f);
    double below = 0;
    const auto drawn = token[static_cast<std::size_t>(t)];
    for (int i = 0; i < drawn; ++i) below += std::exp(reference[static_cast<std::size_t>(i)]);
    const double u = uniform_[static_cast<std::size_t>(t)];
    EXPECT_LE(below, u + 1e-5);
    EXPECT_GE(below + std::exp(reference[static_cast<std::size_t>(drawn)]), u - 1e-5);
  }
}

TEST_F(PolicyHead, ZeroTemperatureTakesTheGreatestLogit) {
  const std::vector<float> temperatures(kRows, 0.0f);
  std::vector<std::int32_t> token(kRows);
  std::vector<float> logprob(kRows);
  Sample(*model_, hidden_, temperatures, uniform_, *workspace_, token, logprob);
  const auto logits = Logits(*model_, hidden_);
  for (int t = 0; t < kRows; ++t) {
    const auto row = logits.begin() + t * kValid;
    EXPECT_EQ(token[static_cast<std::size_t>(t)], std::max_element(row, row + kValid) - row);
  }
}

TEST_F(PolicyHead, IdsBeyondTheTokenizerHaveNoMass) {
  auto flat = LivelyWeights(config_, 3);
  // Padding rows of the head that would win every draw.
  for (std::size_t i = static_cast<std::size_t>(kValid * config_.width);
       i < static_cast<std::size_t>(config_.vocab * config_.width); ++i) {
    flat[i] = 1000.0f;
  }
  const auto loud = PackedModel::Make(config_, flat, kValid, false);
  const std::vector<float> temperatures(kRows, 1.0f);
  std::vector<std::int32_t> token(kRows), loud_token(kRows);
  std::vector<float> logprob(kRows), loud_logprob(kRows);
  Sample(*model_, hidden_, temperatures, uniform_, *workspace_, token, logprob);
  Sample(*loud, hidden_, temperatures, uniform_, *workspace_, loud_token, loud_logprob);
  EXPECT_EQ(loud_token, token);
  EXPECT_EQ(loud_logprob, logprob);
}

}  // namespace
}  // namespace thresher::model
