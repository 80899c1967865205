#include "common/model/rope_scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "common/model/json_fields.h"

namespace thresher::model {
namespace {

using ::testing::ElementsAre;
using Kind = RopeScaling::Kind;

std::vector<std::uint32_t> Bits(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

// What torch 2.13 computes with the formulas of Transformers 5.23, bit for bit.
TEST(InverseFrequencies, AreThoseOfTransformers) {
  EXPECT_THAT(Bits(InverseFrequencies(16, 10000, {})),
              ElementsAre(1065353216, 1050798235, 1036831949, 1023510243, 1008981770, 995049016,
                          981668463, 967166816));
  EXPECT_THAT(Bits(InverseFrequencies(16, 10000, {Kind::kLinear, 3})),
              ElementsAre(1051372203, 1037557967, 1023969417, 1009562585, 995783693, 982133115,
                          967754559, 954011435));
  // The first four are kept, the fifth is stretched in part, the others fully.
  EXPECT_THAT(Bits(InverseFrequencies(16, 500000, {Kind::kLlama3, 8, 1, 4, 8192})),
              ElementsAre(1065353216, 1044812720, 1025116360, 1005516623, 973706706, 940558584,
                          920588484, 900532135));
}

// Where the three parts meet there is no step.
TEST(InverseFrequencies, Llama3ScalingIsMonotonic) {
  const auto plain = InverseFrequencies(256, 500000, {});
  const auto scaled = InverseFrequencies(256, 500000, {Kind::kLlama3, 32, 1, 4, 8192});
  int kept = 0, stretched = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_LE(scaled[i], plain[i]);
    EXPECT_GE(scaled[i], plain[i] / 32);
    if (i > 0) {
      EXPECT_LT(scaled[i], scaled[i - 1]);
    }
    kept += scaled[i] == plain[i];
    stretched += scaled[i] == plain[i] / 32;
  }
  EXPECT_GT(kept, 20);
  EXPECT_GT(stretched, 20);
  EXPECT_LT(kept + stretched, 128);
}

TEST(RopeScaling, WhatIsWrittenIsReadBack) {
  for (const RopeScaling& scaling :
       {RopeScaling{}, RopeScaling{Kind::kLinear, 2.5}, RopeScaling{Kind::kLlama3, 8, 2, 5, 77}}) {
    double theta = 10000;
    const auto back = RopeScaling::FromJson(scaling.ToJson(), "c", "rope_scaling", theta);
    ASSERT_TRUE(back.ok()) << back.status().ToString();
    EXPECT_EQ(*back, scaling);
    EXPECT_EQ(theta, 10000);
  }
}

}  // namespace
}  // namespace thresher::model
