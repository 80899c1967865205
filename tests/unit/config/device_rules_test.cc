// Keys that name devices, and what has to hold between them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/config.h"
#include "common/config/device.h"

namespace thresher {
namespace {

using ::testing::HasSubstr;

// What the configuration is refused with; "": it is accepted.
std::string Refusal(const std::vector<std::string>& overrides) {
  try {
    (void)ParseConfig("", "test.yaml", overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(DeviceRules, ADeviceIsNamedByItsKindAndNumber) {
  for (const char* good : {"cpu", "cuda", "cuda:3", "cuda:0,cuda:2"}) {
    EXPECT_EQ(Refusal({std::string("actors.device=") + good}), "") << good;
  }
  for (const char* bad : {"gpu", "cuda:-1", "cuda:1,", "cpu,cuda:1", "cuda:x", "\"\""}) {
    const std::string text = Refusal({std::string("learner.device=") + bad});
    EXPECT_THAT(text, HasSubstr("learner.device")) << bad;
    EXPECT_THAT(text, HasSubstr("cuda:N")) << bad;
  }
}

TEST(DeviceRules, GpusComputeTwoKernelSets) {
  EXPECT_EQ(Refusal({"actors.device=cuda", "engine.kernel_set=cpu-fp32-v1"}), "");
  const std::string other = Refusal({"actors.device=cuda", "engine.kernel_set=cpu-bf16dot-v1"});
  EXPECT_THAT(other, HasSubstr("engine.kernel_set"));
  EXPECT_THAT(other, HasSubstr("cuda-bf16-sm90-v1"));
}

TEST(DeviceRules, TensorCoresNeedGpusOnBothSidesAndBf16Weights) {
  const std::string set = "engine.kernel_set=cuda-bf16-sm90-v1", bf16 = "model.dtype=bfloat16";
  EXPECT_EQ(Refusal({set, bf16, "actors.device=cuda", "learner.device=cuda"}), "");
  EXPECT_THAT(Refusal({set, bf16, "actors.device=cuda"}), HasSubstr("learner.device (cpu)"));
  EXPECT_THAT(Refusal({set, "actors.device=cuda", "learner.device=cuda"}),
              HasSubstr("model.dtype (float32)"));
}

TEST(DeviceRules, OnlyGpusAreShared) {
  EXPECT_EQ(Refusal({"engine.colocated=true", "actors.device=cuda", "learner.device=cuda"}), "");
  EXPECT_THAT(Refusal({"engine.colocated=true"}), HasSubstr("engine.colocated"));
}

TEST(DeviceRules, ProcessesTakeTheNamedGpusInTurn) {
  const auto all = ParseDevices("cuda", "x").value(),
             two = ParseDevices("cuda:5,cuda:1", "x").value();
  EXPECT_EQ(all.Of(9, 4), (Device{DeviceKind::kCuda, 1}));
  EXPECT_EQ(two.Of(0, 8).index, 5);
  EXPECT_EQ(two.Of(3, 8).index, 1);
  EXPECT_EQ(ParseDevices("cpu", "x").value().Of(3, 1), Device{});
  EXPECT_EQ((Device{DeviceKind::kCuda, 2}).ToString(), "cuda:2");
}

}  // namespace
}  // namespace thresher
