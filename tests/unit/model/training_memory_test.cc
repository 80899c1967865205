#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "common/model/packed_model.h"
#include "common/model/training_pass.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

std::uint64_t StatusBytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoull(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

// Whole sequences of `each` rows.
TrainRows RowsOf(std::int32_t sequences, std::int32_t each, std::int32_t vocab) {
  TrainRows rows;
  for (std::int32_t i = 0; i < sequences * each; ++i) {
    rows.token.push_back(i * 31 % vocab);
    rows.position.push_back(i % each);
    rows.target.push_back(i * 37 % vocab);
    rows.temperature.push_back(1.0f);
  }
  return rows;
}

// Forward, loss and backward take memory for activations and for so many logits, never for those of
// all rows.
TEST(TrainingMemory, HasNoRoomForRowsTimesVocabulary) {
  ModelConfig config = SmallConfig("llama", true);
  config.vocab = 60000;
  config.layers = 1;
  config.context = 64;
  const TrainRows rows = RowsOf(32, 64, config.vocab);
  const auto policy =
      PackedModel::Make(config, InitialWeights(config, 1, 0.02), 0, /*with_backward=*/true);
  std::vector<float> gradient(GradientSize(config), 1e-9f);  // has its memory already
  const std::vector<float> dlogprob(rows.size(), 1.0f), dentropy(rows.size(), 0.1f);
  std::ofstream("/proc/self/clear_refs") << "5";  // the greatest size from here on
  const std::uint64_t before = StatusBytes("VmRSS");
  const auto pass = MakeCpuTrainingPass(config);
  ASSERT_TRUE(pass->BeginLeaf(policy, gradient).ok());
  ASSERT_TRUE(pass->LogProbs(rows, false).ok());
  ASSERT_TRUE(pass->Backward(dlogprob, dentropy).ok());
  ASSERT_TRUE(pass->EndLeaf().ok());
  const std::uint64_t peak = StatusBytes("VmHWM");
  if (peak == 0 || before == 0) GTEST_SKIP() << "the kernel tells no peak of this process";
  const std::uint64_t logits = rows.size() * static_cast<std::uint64_t>(config.vocab) * 4;
  ASSERT_GT(logits, 3 * kMostKeptLogitBytes);
  EXPECT_LT(peak - std::min(before, peak), kMostKeptLogitBytes + logits / 16);
}

// The memory of a model that is of no more use serves the next one, unless somebody has it.
TEST(PackedModel, TakesTheMemoryOfASpareOneAndItsBitsAreTheSame) {
  const ModelConfig config = SmallConfig("qwen2", false);
  const auto first = InitialWeights(config, 1, 0.1), second = InitialWeights(config, 2, 0.1);
  const auto bytes = [](const PackedModel& model) {
    const auto all = PackedWeights::Of(model).bytes();
    return std::vector<std::byte>(all.begin(), all.end());
  };
  const auto fresh = PackedModel::Make(config, second, 0, true);
  auto spare = PackedModel::Make(config, first, 0, true);
  const auto* memory = PackedWeights::Of(*spare).bytes().data();
  const auto again = PackedModel::Make(config, second, 0, true, std::move(spare));
  EXPECT_EQ(PackedWeights::Of(*again).bytes().data(), memory);
  EXPECT_EQ(bytes(*again), bytes(*fresh));
  const auto held = bytes(*again);
  const auto other = PackedModel::Make(config, first, 0, true, again);
  EXPECT_NE(PackedWeights::Of(*other).bytes().data(), memory);
  EXPECT_EQ(bytes(*again), held);
}

}  // namespace
}  // namespace thresher::model
