// Actor and learner are one policy: log-probabilities that an engine on the device recorded are
// found again, bit for bit, by the learner's forward on the device and, for a part of them, on the
// CPU. THRESHER_TOKENS=1000000: at least so many tokens.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "common/model/cuda/cuda_training_pass.h"
#include "common/model/training_pass.h"
#include "tests/gpu/device_policy_testing.h"

namespace thresher::actor {
namespace {

constexpr float kTemperature = 0.9f;
constexpr std::size_t kMicroBatch = 8192;  // rows, about
constexpr int kPart = 50;                  // the CPU computes one sequence of so many

class DeviceOnePolicy : public DevicePolicyTest {
 protected:
  DeviceOnePolicy()
      : trained_(model::PackedModel::Make(shape_, model::LivelyWeights(shape_, 3), shape_.vocab,
                                          /*with_backward=*/true)) {}

  // Log-probabilities of every token after the first, of sequences one after another.
  static std::vector<float> LogProbs(model::TrainingPass& pass,
                                     const std::vector<const GenerationResult*>& sequences) {
    model::TrainRows rows;
    for (const GenerationResult* sequence : sequences) {
      for (std::size_t i = 0; i + 1 < sequence->tokens.size(); ++i) {
        rows.token.push_back(sequence->tokens[i]);
        rows.target.push_back(sequence->tokens[i + 1]);
        rows.position.push_back(static_cast<std::int32_t>(i));
        rows.temperature.push_back(kTemperature);
      }
    }
    auto result = pass.LogProbs(rows, /*recompute=*/true);
    EXPECT_TRUE(result.ok()) << result.status().ToString();
    const std::vector<float> nothing(rows.size(), 0.0f);
    EXPECT_TRUE(pass.Backward(nothing, {}).ok());
    return result->logprob;
  }

  // Compares recorded ones with those computed again, in micro-batches; how many tokens.
  std::size_t Compare(model::TrainingPass& pass, const std::vector<const GenerationResult*>& all) {
    std::vector<float> gradient(model::GradientSize(shape_));
    EXPECT_TRUE(pass.BeginLeaf(trained_, gradient).ok());
    std::size_t tokens = 0;
    for (std::size_t first = 0; first < all.size() && !HasFailure();) {
      std::vector<const GenerationResult*> part;
      for (std::size_t rows = 0; first < all.size() && rows < kMicroBatch; ++first) {
        part.push_back(all[first]);
        rows += all[first]->tokens.size();
      }
      const std::vector<float> found = LogProbs(pass, part);
      std::size_t at = 0;
      for (const GenerationResult* sequence : part) {
        at += sequence->tokens.size() - 1;
        const std::size_t count = sequence->logprobs.size();
        EXPECT_EQ(std::memcmp(&found[at - count], sequence->logprobs.data(), 4 * count), 0)
            << sequence->id.ToString();
        tokens += count;
      }
    }
    EXPECT_TRUE(pass.EndLeaf().ok());
    return tokens;
  }

  std::shared_ptr<const model::PackedModel>
      trained_;  // the engine's weights, as the learner packs them
};

TEST_F(DeviceOnePolicy, TheLearnerFindsTheBitsOfTheActor) {
  const std::size_t wanted = static_cast<std::size_t>(Amount("THRESHER_TOKENS", 30000, 100));
  const int batch = Amount("THRESHER_LARGEST_MIX", 512, 8);
  Engine engine = OnDevice({batch, 512, 0}, /*graphs=*/true);
  Results results;
  std::size_t generated = 0;
  for (std::uint64_t item = 0; generated < wanted; ++item) {
    const int prompt = 1 + static_cast<int>(item * 11 % 60);
    GenerationRequest request = Request(item, prompt, static_cast<std::uint32_t>(20 + item % 180));
    request.sampling.temperature = kTemperature;
    generated += request.sampling.max_new_tokens;
    ASSERT_TRUE(engine.Submit(std::move(request)).ok());
  }
  Drain(engine, results, nullptr, 10000000);
  std::vector<const GenerationResult*> all, part;
  for (const auto& [id, result] : results) {
    if (all.size() % kPart == 0) part.push_back(&result);
    all.push_back(&result);
  }
  auto device = model::MakeCudaTrainingPass(shape_, {});
  ASSERT_TRUE(device.ok()) << device.status().ToString();
  const std::size_t on_device = Compare(**device, all);
  const std::size_t on_host = Compare(*model::MakeCpuTrainingPass(shape_), part);
  EXPECT_GE(on_device, wanted);
  EXPECT_GT(on_host, 0u);
  if (HasFailure()) return;
  Measured("actor and learner on the GPU: " + std::to_string(on_device) +
           " tokens, 0 differ; learner on the CPU: " + std::to_string(on_host) +
           " tokens, 0 differ");
}

}  // namespace
}  // namespace thresher::actor
