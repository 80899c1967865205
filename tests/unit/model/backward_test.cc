#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

constexpr float kTemperatures[] = {0.8f, 1.0f, 1.3f};  // of sequences in turn
constexpr std::int32_t kValid = 33;                    // fewer than the 37 rows of the head

// Which weights a problem has.
enum class Terms { kLogProb, kEntropy, kBoth };

// Whole sequences with a weight for each token's log-probability and one for the entropy of its
// row: the loss is their weighted sum.
struct Problem {
  std::vector<std::vector<std::int32_t>> tokens;  // one longer than the rows: targets are shifted
  std::vector<std::vector<std::int32_t>> pages;
  std::vector<std::vector<float>> weights, entropy_weights;
};

std::vector<float> RandomWeights(std::uint64_t seed, int count) {
  std::vector<float> weights;
  for (std::int32_t t : RandomTokens(seed, count, 1000)) weights.push_back(t / 500.0f - 1);
  return weights;
}

Problem MakeProblem(const std::vector<int>& lengths, Terms terms = Terms::kBoth) {
  Problem problem;
  int page = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    problem.tokens.push_back(RandomTokens(20 + i, lengths[i] + 1, kValid));
    problem.pages.push_back(PageTable(page, 1, lengths[i]));
    page += (lengths[i] + 15) / 16;
    const std::vector<float> none(static_cast<std::size_t>(lengths[i]), 0.0f);
    problem.weights.push_back(terms == Terms::kEntropy ? none : RandomWeights(40 + i, lengths[i]));
    problem.entropy_weights.push_back(terms == Terms::kLogProb ? none
                                                               : RandomWeights(60 + i, lengths[i]));
  }
  return problem;
}

struct Pass {
  RowBatch rows;
  std::vector<std::int32_t> targets;
  std::vector<float> weights, entropy_weights, temperature, hidden;
  LogProbResult result;
  KeptLogits logits;
  TapePtr tape;
  std::unique_ptr<KvCache> cache;
};

// Sequences [begin, end) of the problem, forward.
Pass RunForward(const PackedModel& model, const Problem& problem, std::size_t begin,
                std::size_t end, Workspace& workspace, TapeKind kind = TapeKind::kAllActivations,
                std::size_t most_kept = 0) {
  Pass pass;
  pass.logits.most_bytes = most_kept;
  pass.tape = NewTape(kind);
  pass.cache = std::make_unique<KvCache>(model.config(), 96);
  for (std::size_t i = begin; i < end; ++i) {
    const int length = static_cast<int>(problem.weights[i].size());
    Append(problem.tokens[i], 0, length, problem.pages[i], pass.rows);
    pass.targets.insert(pass.targets.end(), problem.tokens[i].begin() + 1, problem.tokens[i].end());
    pass.weights.insert(pass.weights.end(), problem.weights[i].begin(), problem.weights[i].end());
    pass.entropy_weights.insert(pass.entropy_weights.end(), problem.entropy_weights[i].begin(),
                                problem.entropy_weights[i].end());
    pass.temperature.resize(pass.targets.size(), kTemperatures[i % 3]);
  }
  pass.hidden.resize(pass.targets.size() * static_cast<std::size_t>(model.config().width));
  Forward(model, pass.rows, *pass.cache, workspace, pass.hidden, pass.tape.get());
  pass.result =
      LogProb(model, pass.hidden, pass.targets, pass.temperature, workspace, {}, &pass.logits);
  return pass;
}

// Adds the gradient of sequences [begin, end).
void AddGradient(const PackedModel& model, const Problem& problem, std::size_t begin,
                 std::size_t end, Workspace& workspace, std::vector<float>& gradient, TapeKind kind,
                 std::size_t most_kept) {
  const Pass pass = RunForward(model, problem, begin, end, workspace, kind, most_kept);
  std::vector<float> dhidden(pass.hidden.size());
  LogProbBackward(model, pass.hidden, pass.targets, pass.temperature, pass.result, pass.weights,
                  pass.entropy_weights, workspace, dhidden, gradient, {}, true, &pass.logits);
  Backward(model, pass.rows, *pass.tape, dhidden, workspace, gradient);
}

std::vector<float> GradientOf(const ModelConfig& config, const std::vector<float>& flat,
                              const Problem& problem, const std::vector<std::size_t>& cuts,
                              TapeKind kind = TapeKind::kAllActivations,
                              std::size_t most_kept = 0) {
  const auto model = PackedModel::Make(config, flat, kValid, true);
  const WorkspacePtr workspace = NewWorkspace();
  std::vector<float> gradient(GradientSize(config));
  std::size_t begin = 0;
  for (std::size_t end : cuts) {
    AddGradient(*model, problem, begin, end, *workspace, gradient, kind, most_kept);
    begin = end;
  }
  FoldTiedGradient(config, gradient);
  gradient.resize(ParameterCount(config));
  return gradient;
}

double LossOf(const ModelConfig& config, const std::vector<float>& flat, const Problem& problem) {
  const auto model = PackedModel::Make(config, flat, kValid, false);
  const WorkspacePtr workspace = NewWorkspace();
  const Pass pass = RunForward(*model, problem, 0, problem.tokens.size(), *workspace);
  double loss = 0;
  for (std::size_t t = 0; t < pass.weights.size(); ++t) {
    loss += static_cast<double>(pass.weights[t]) * pass.result.logprob[t] +
            static_cast<double>(pass.entropy_weights[t]) * pass.result.entropy[t];
  }
  return loss;
}

struct Case {
  std::string family;
  bool tied;
};

class ModelGradient : public ::testing::TestWithParam<Case> {
 protected:
  ModelConfig config_ = SmallConfig(GetParam().family, GetParam().tied);
  std::vector<float> flat_ = LivelyWeights(config_, 9);
};

TEST_P(ModelGradient, IsTheSameBitsWhenActivationsAreComputedAgain) {
  // More rows than a tile, sequences that begin and end inside of one.
  const Problem problem = MakeProblem({19, 150, 5, 180, 1});
  ForEachVariant([&](kernels::CpuVariant) {
    const auto kept = GradientOf(config_, flat_, problem, {5});
    EXPECT_EQ(GradientOf(config_, flat_, problem, {5}, TapeKind::kLayerInputs), kept);
    EXPECT_EQ(GradientOf(config_, flat_, problem, {2, 5}, TapeKind::kLayerInputs), kept);
  });
}

TEST_P(ModelGradient, IsTheSameBitsHoweverManyLogitsAreKept) {
  const Problem problem = MakeProblem({19, 150, 5, 180, 1});
  constexpr std::size_t kRow = kValid * sizeof(float);
  const auto again = GradientOf(config_, flat_, problem, {5});
  for (std::size_t most : {kRow - 1, 100 * kRow + 1, 1000 * kRow}) {
    EXPECT_EQ(GradientOf(config_, flat_, problem, {2, 5}, TapeKind::kAllActivations, most), again);
  }
}

TEST(KeptLogits, AreThoseOfTheFirstRowsThatHaveRoom) {
  EXPECT_EQ(KeptLogitBytes(0, 10, 100), 0u);
  EXPECT_EQ(KeptLogitBytes(399, 10, 100), 0u);
  EXPECT_EQ(KeptLogitBytes(1199, 10, 100), 800u);
  EXPECT_EQ(KeptLogitBytes(1u << 20, 10, 100), 4000u);
}

TEST_P(ModelGradient, ATapeOfLayerInputsHoldsLittleMoreThanThese) {
  ModelConfig deep = config_;
  deep.layers = 8;
  const auto model = PackedModel::Make(deep, LivelyWeights(deep, 9), 0, true);
  const Problem problem = MakeProblem({200});
  const WorkspacePtr workspace = NewWorkspace();
  const Pass all = RunForward(*model, problem, 0, 1, *workspace);
  Pass inputs = RunForward(*model, problem, 0, 1, *workspace, TapeKind::kLayerInputs);
  const std::size_t input_bytes = std::size_t{200} * 40 * 9 * sizeof(float);
  EXPECT_LT(TapeBytes(*inputs.tape), input_bytes + 200 * 2 * sizeof(float));
  std::vector<float> gradient(GradientSize(deep));
  const std::vector<float> dhidden(inputs.hidden.size(), 1.0f);
  Backward(*model, inputs.rows, *inputs.tape, dhidden, *workspace, gradient);
  // One layer's at a time.
  EXPECT_LT(TapeBytes(*inputs.tape), input_bytes + TapeBytes(*all.tape) / 7);
}

// Along the gradient of each tensor by itself the loss rises by the tensor's squared norm.
void ExpectFiniteDifferences(const ModelConfig& config, const std::vector<float>& flat,
                             const Problem& problem) {
  const auto gradient = GradientOf(config, flat, problem, {problem.tokens.size()});
  for (const ParameterInfo& info : ParameterList(config)) {
    double norm = 0;
    for (std::size_t i = 0; i < info.count; ++i) norm += std::pow(gradient[info.offset + i], 2);
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 1e-3) << info.name;
    const double step = 4e-3;  // curvature and fp32 noise balance near here
    auto up = flat, down = flat;
    double predicted = 0;
    for (std::size_t i = info.offset; i < info.offset + info.count; ++i) {
      const auto move = static_cast<float>(step * gradient[i] / norm);
      up[i] += move;
      down[i] -= move;
      predicted += static_cast<double>(gradient[i]) * (static_cast<double>(up[i]) - down[i]);
    }
    const double seen = LossOf(config, up, problem) - LossOf(config, down, problem);
    // 24 log-probabilities and entropies with errors near 1e-6 against differences near 8e-3 *
    // norm, plus the third derivative's share.
    EXPECT_NEAR(seen, predicted, 0.01 * std::abs(predicted) + 2e-5) << info.name;
  }
}

TEST_P(ModelGradient, MatchesFiniteDifferencesTensorByTensor) {
  ExpectFiniteDifferences(config_, flat_, MakeProblem({19, 5}));
}

// As an entropy bonus has it: the same weight for all rows.
TEST_P(ModelGradient, OfTheSumOfEntropiesMatchesFiniteDifferences) {
  Problem problem = MakeProblem({19, 5}, Terms::kEntropy);
  for (auto& weights : problem.entropy_weights) std::ranges::fill(weights, 1.0f);
  ExpectFiniteDifferences(config_, flat_, problem);
}

TEST_P(ModelGradient, RowsWithoutWeightsAddExactlyNothing) {
  const auto alone = GradientOf(config_, flat_, MakeProblem({33}), {1});
  Problem more = MakeProblem({33, 20, 16});
  for (std::size_t i : {1, 2}) {
    std::ranges::fill(more.weights[i], 0.0f);
    std::ranges::fill(more.entropy_weights[i], 0.0f);
  }
  EXPECT_EQ(GradientOf(config_, flat_, more, {3}), alone);
}

TEST_P(ModelGradient, IsThatOfLogProbsAloneWhereNoEntropyHasAWeight) {
  Problem problem = MakeProblem({70, 33}, Terms::kLogProb);
  const auto zeros = GradientOf(config_, flat_, problem, {2});
  for (auto& weights : problem.entropy_weights) weights.clear();
  EXPECT_EQ(GradientOf(config_, flat_, problem, {2}), zeros);
  EXPECT_NE(GradientOf(config_, flat_, MakeProblem({70, 33}), {2}), zeros);
}

TEST_P(ModelGradient, CutIntoMicroBatchesChangesNoBit) {
  const Problem problem = MakeProblem({70, 1, 33, 150, 16, 17});
  const auto whole = GradientOf(config_, flat_, problem, {6});
  EXPECT_EQ(GradientOf(config_, flat_, problem, {1, 2, 3, 4, 5, 6}), whole);
  EXPECT_EQ(GradientOf(config_, flat_, problem, {3, 6}), whole);
  EXPECT_EQ(GradientOf(config_, flat_, problem, {4, 5, 6}), whole);
}

TEST_P(ModelGradient, PageTablesChangeNoBit) {
  Problem problem = MakeProblem({70, 33, 150});
  const auto whole = GradientOf(config_, flat_, problem, {3});
  int first = 90;
  for (auto& pages : problem.pages) {
    for (auto& page : pages) page = first--;
  }
  EXPECT_EQ(GradientOf(config_, flat_, problem, {3}), whole);
}

TEST_P(ModelGradient, KernelVariantsAgreeBitForBit) {
  const Problem problem = MakeProblem({70, 33});
  const auto whole = GradientOf(config_, flat_, problem, {2});
  ForEachVariant([&](auto variant) {
    EXPECT_EQ(GradientOf(config_, flat_, problem, {2}), whole) << kernels::CpuVariantName(variant);
  });
}

// Order is part of the result: the test of micro-batches above is not blind.
TEST_P(ModelGradient, AnotherOrderOfSequencesDoesChangeBits) {
  Problem problem = MakeProblem({70, 33, 150});
  const auto whole = GradientOf(config_, flat_, problem, {3});
  std::swap(problem.tokens[0], problem.tokens[2]);
  std::swap(problem.pages[0], problem.pages[2]);
  std::swap(problem.weights[0], problem.weights[2]);
  std::swap(problem.entropy_weights[0], problem.entropy_weights[2]);
  EXPECT_NE(GradientOf(config_, flat_, problem, {3}), whole);
}

INSTANTIATE_TEST_SUITE_P(Families, ModelGradient,
                         ::testing::Values(Case{"llama", true}, Case{"llama3", false},
                                           Case{"qwen2", true}, Case{"qwen2", false},
                                           Case{"qwen3", true}, Case{"qwen3", false}),
                         [](const auto& info) {
                           return info.param.family + (info.param.tied ? "Tied" : "Untied");
                         });

}  // namespace
}  // namespace thresher::model
