// Which parameters a run trains, and what a backward pass then leaves out.
#include "common/model/trained.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/model/training_pass.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using ::testing::HasSubstr;

// In the words of the definition.
bool Naive(const std::string& pattern, const std::string& name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] == '*') {
    for (std::size_t skip = 0; skip <= name.size(); ++skip) {
      if (Naive(pattern.substr(1), name.substr(skip))) return true;
    }
    return false;
  }
  return !name.empty() && (pattern[0] == '?' || pattern[0] == name[0]) &&
         Naive(pattern.substr(1), name.substr(1));
}

TEST(TrainedTest, PatternsMatchAsTheirDefinitionSays) {
  RandomSequence random(3, TrajectoryId{}, RandomPurpose::kBootstrap);
  const auto text = [&](const char* letters, std::uint64_t count) {
    std::string out;
    for (std::uint64_t i = random.Below(9); i > 0; --i) out += letters[random.Below(count)];
    return out;
  };
  int matched = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string pattern = text("ab.*?", 5), name = text("ab.", 3);
    matched += Naive(pattern, name);
    ASSERT_EQ(MatchesPattern(pattern, name), Naive(pattern, name)) << pattern << " " << name;
  }
  EXPECT_GT(matched, 1000);
}

Result<Trained> Of(const std::string& freeze, const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides = {"learner.freeze=\"" + freeze + "\""};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return Trained::Of(ParseConfig("", "test", overrides), SmallConfig("llama", true));
}

TEST(TrainedTest, NothingIsFrozenUnlessSaid) {
  const Trained all = Of("").value();
  EXPECT_TRUE(all.frozen.empty());
  EXPECT_EQ(all.List(SmallConfig("llama", true)).size(), 20u);
}

TEST(TrainedTest, NamesAndPatternsFreeze) {
  const ModelConfig config = SmallConfig("llama", true);
  const auto left = Of("model.embed_tokens.*, model.layers.0.*, model.norm.weight").value();
  for (const ParameterInfo& info : left.List(config)) {
    EXPECT_TRUE(info.name.starts_with("model.layers.1.")) << info.name;
  }
  EXPECT_EQ(left.List(config).size(), 9u);
}

TEST(TrainedTest, UnknownPatternsAndAModelWithoutRestAreRefused) {
  EXPECT_THAT(Of("model.layers.0.*, model.layer.1.*").status().message(),
              HasSubstr("learner.freeze: 'model.layer.1.*' names no parameter; allowed: names and "
                        "patterns of model.embed_tokens.weight, "
                        "model.layers.0-1.input_layernorm.weight"));
  EXPECT_THAT(Of("model.layers.*, model.embed_tokens.weight, model.norm.*").status().message(),
              HasSubstr("allowed: what leaves a parameter to train"));
  EXPECT_THAT(Of("*_proj.weight", {"lora.rank=2"}).status().message(), HasSubstr("lora.targets"));
}

// What is needed has the bits of the whole backward pass.
TEST(TrainedTest, ABackwardPassOfFewNeedsGivesTheirBits) {
  for (const bool tied : {true, false}) {
    const ModelConfig config = SmallConfig("qwen3", tied);
    const auto weights = LivelyWeights(config, 3);
    const auto packed = PackedModel::Make(config, weights, config.vocab, true);
    TrainRows rows;
    rows.token = RandomTokens(4, 23, config.vocab);
    rows.target = RandomTokens(5, 23, config.vocab);
    rows.temperature.assign(23, 1.0f);
    for (int i = 0; i < 23; ++i) rows.position.push_back(i);
    const auto gradient = [&](const GradientNeeds* needs) {
      const auto pass = MakeCpuTrainingPass(config);
      if (needs != nullptr) pass->Need(*needs);
      std::vector<float> out(GradientSize(config), 0.0f);
      EXPECT_TRUE(pass->BeginLeaf(packed, out).ok());
      EXPECT_TRUE(pass->LogProbs(rows, false).ok());
      EXPECT_TRUE(pass->Backward(std::vector<float>(23, 0.1f), {}).ok());
      EXPECT_TRUE(pass->EndLeaf().ok());
      FoldTiedGradient(config, out);
      return out;
    };
    const std::vector<float> whole = gradient(nullptr);
    for (const std::string& kept :
         {std::string("model.layers.1.*"), std::string("*.q_proj.weight"), std::string("*norm*"),
          std::string("model.layers.0.mlp.down_proj.weight"), std::string("model.norm.weight"),
          std::string(tied ? "model.embed*" : "lm_head*"), std::string("model.embed*"),
          std::string("*.o_proj.weight"), std::string("*.up_proj.weight")}) {
      std::vector<ParameterInfo> list;
      for (const ParameterInfo& info : ParameterList(config)) {
        if (MatchesPattern(kept, info.name)) list.push_back(info);
      }
      ASSERT_FALSE(list.empty());
      const GradientNeeds needs = NeedsOf(config, list);
      const std::vector<float> few = gradient(&needs);
      for (const ParameterInfo& info : list) {
        const auto begin = static_cast<std::ptrdiff_t>(info.offset);
        const auto end = begin + static_cast<std::ptrdiff_t>(info.count);
        EXPECT_TRUE(std::equal(few.begin() + begin, few.begin() + end, whole.begin() + begin))
            << kept << ": " << info.name;
      }
      // It does leave something out.
      EXPECT_LT(std::ranges::count(whole, 0.0f), std::ranges::count(few, 0.0f)) << kept;
    }
  }
}

}  // namespace
}  // namespace thresher::model
