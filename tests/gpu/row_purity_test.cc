// A sequence has the bits of the CPU in whatever company it is computed: mixes of 1 to 512
// sequences, batches, chunks of prompts, graphs on and off, prefixes shared or not.
// THRESHER_MIXES=2000: so many mixes.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "tests/gpu/device_policy_testing.h"

namespace thresher::actor {
namespace {

class DeviceRowPurity : public DevicePolicyTest {
 protected:
  // Mostly short prompts and answers; every 16th of several chunks and attention splits.
  std::vector<GenerationRequest> Pool(int count) const {
    std::vector<GenerationRequest> pool;
    for (int i = 0; i < count; ++i) {
      const int prompt = i % 16 == 9 ? 60 + i % 90 : 1 + i * 7 % 37;
      pool.push_back(Request(static_cast<std::uint64_t>(i), prompt,
                             static_cast<std::uint32_t>(1 + i * 5 % 14)));
      pool.back().sampling.temperature =
          i % 5 == 0 ? 0.0f : 0.6f + 0.1f * static_cast<float>(i % 9);
    }
    return pool;
  }
};

TEST_F(DeviceRowPurity, ASequenceHasTheBitsOfTheCpuInEveryMix) {
  const int largest = Amount("THRESHER_LARGEST_MIX", 512, 6);
  const int mixes = Amount("THRESHER_MIXES", 60, 6);
  const std::vector<int> batches =
      largest > 33 ? std::vector<int>{1, 8, 33, largest} : std::vector<int>{largest / 2};
  const std::vector<GenerationRequest> pool = Pool(largest + largest / 4);
  const Results expected = RunAll({64, 256, 0}, pool);
  std::vector<Engine> engines;
  for (int batch : batches) {
    for (int chunk : {16, 48, 512}) {
      for (bool graphs : {true, false}) {
        engines.push_back(OnDevice({batch, chunk, batch * 12 + 12, chunk != 48}, graphs));
      }
    }
  }
  std::mt19937 random(20);
  std::size_t sequences = 0;
  for (int mix = 0; mix < mixes; ++mix) {
    // A quarter of any size, the others small.
    const int most = mix % 4 == 0 ? largest : std::min(64, largest);
    const int size = 1 + static_cast<int>(random() % static_cast<unsigned>(most));
    Engine& engine = engines[random() % engines.size()];
    std::vector<GenerationRequest> chosen = pool;
    std::shuffle(chosen.begin(), chosen.end(), random);
    chosen.resize(static_cast<std::size_t>(size));
    for (const GenerationRequest& request : chosen) ASSERT_TRUE(engine.Submit(request).ok());
    Results results;
    Drain(engine, results);
    ASSERT_EQ(results.size(), chosen.size());
    for (const auto& [id, result] : results) {
      ASSERT_EQ(result.tokens, expected.at(id).tokens) << "mix " << mix << " " << id.ToString();
      ASSERT_EQ(result.logprobs, expected.at(id).logprobs) << "mix " << mix << " " << id.ToString();
    }
    sequences += results.size();
  }
  Measured(std::to_string(mixes) + " mixes of up to " + std::to_string(largest) + ", " +
           std::to_string(sequences) + " sequences, 0 differ");
}

}  // namespace
}  // namespace thresher::actor
