#include "launch/scoring.h"

#include <gtest/gtest.h>

#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/model/small_model.h"

namespace thresher::launch {
namespace {

// A training pass gives the bits of the plain forward, however sequences are cut into passes; the
// CPU's stands for a device's here, whose bits tests/gpu compares with it.
TEST(ScorerTest, ATrainingPassGivesTheBitsOfTheForward) {
  const model::ModelConfig config = model::SmallConfig("qwen2", true);
  const auto weights =
      model::PackedModel::Make(config, model::LivelyWeights(config, 3), config.vocab - 2, false);
  std::vector<std::vector<std::int32_t>> sequences = {{5}, {1, 2}};
  for (int length : {9, 33, 80, 17}) {
    sequences.push_back(
        model::RandomTokens(static_cast<std::uint64_t>(length), length, config.vocab - 2));
  }
  Scorer plain(weights, nullptr);
  for (std::size_t pass_tokens : {std::size_t{1}, std::size_t{60}, std::size_t{4096}}) {
    Scorer pass(weights, model::MakeCpuTrainingPass(config), pass_tokens);
    for (float temperature : {1.0f, 0.7f}) {
      const auto a = plain.Score(sequences, temperature), b = pass.Score(sequences, temperature);
      ASSERT_TRUE(a.ok() && b.ok());
      ASSERT_EQ(a->size(), sequences.size());
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        EXPECT_EQ((*a)[i].size(), sequences[i].size() - 1);
        EXPECT_TRUE(kernels::testing::SameBits((*a)[i], (*b)[i])) << i;
      }
    }
  }
}

}  // namespace
}  // namespace thresher::launch
