#include "common/config/device.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace thresher {
namespace {

DeviceChoice Parsed(const std::string& text) {
  const auto choice = ParseDevices(text, "actors.device");
  EXPECT_TRUE(choice.ok()) << choice.status().ToString();
  return choice.ok() ? *choice : DeviceChoice{};
}

TEST(ParseDevices, NamesTheCpuOrGpus) {
  EXPECT_EQ(Parsed("cpu").kind, DeviceKind::kCpu);
  EXPECT_EQ(Parsed("cuda").kind, DeviceKind::kCuda);
  EXPECT_EQ(Parsed("cuda").indices, std::vector<int>{});
  EXPECT_EQ(Parsed("cuda:0").indices, std::vector<int>{0});
  EXPECT_EQ(Parsed("cuda:1,cuda:3").indices, (std::vector<int>{1, 3}));
  EXPECT_EQ(Parsed("cuda:3,cuda:1,cuda:3").indices, (std::vector<int>{3, 1, 3}));
  EXPECT_EQ(Parsed("cuda:2147483647").indices, std::vector<int>{2147483647});
}

TEST(ParseDevices, RefusesEverythingElseWithTheKeyAndWhatIsAllowed) {
  for (const char* text : {"",
                           "gpu",
                           "CPU",
                           "Cuda",
                           " cpu",
                           "cpu ",
                           "cuda:",
                           "cuda:-1",
                           "cuda:+1",
                           "cuda: 1",
                           "cuda:1 ",
                           "cuda:1x",
                           "cuda:0x1",
                           "cuda:1.0",
                           "cuda:2147483648",
                           "cuda:99999999999999999999",
                           "cuda:0,",
                           ",cuda:0",
                           "cuda:0,,cuda:1",
                           "cuda:0,cpu",
                           "cpu,cuda:0",
                           "cuda,cuda",
                           "cuda:0,cuda",
                           "cuda:0;cuda:1",
                           "cuda:0, cuda:1",
                           "0",
                           ","}) {
    const auto choice = ParseDevices(text, "actors.device");
    ASSERT_FALSE(choice.ok()) << "'" << text << "'";
    EXPECT_EQ(choice.status().code(), StatusCode::kInvalidArgument);
    const std::string expected = "actors.device is '" + std::string(text) + "'; allowed: cpu, cuda";
    EXPECT_EQ(choice.status().message().rfind(expected, 0), 0u) << choice.status().message();
  }
}

TEST(ParseDevices, ReadsWhatADeviceIsCalled) {
  for (const Device& device :
       {Device{}, Device{DeviceKind::kCuda, 0}, Device{DeviceKind::kCuda, 7}}) {
    EXPECT_EQ(Parsed(device.ToString()).Of(5, 8), device);
  }
  EXPECT_EQ(Device{}.ToString(), "cpu");
  EXPECT_EQ((Device{DeviceKind::kCuda, 12}.ToString()), "cuda:12");
}

TEST(DeviceChoice, GivesProcessesTheirDevicesInTurn) {
  const DeviceChoice all = Parsed("cuda"), some = Parsed("cuda:5,cuda:2");
  for (int process = 0; process < 12; ++process) {
    EXPECT_EQ(Parsed("cpu").Of(process, 4), Device{});
    EXPECT_EQ(all.Of(process, 4), (Device{DeviceKind::kCuda, process % 4}));
    EXPECT_EQ(all.Of(process, 1), (Device{DeviceKind::kCuda, 0}));
    // Named ones are taken whatever there is; opening them says if one is not.
    EXPECT_EQ(some.Of(process, 1), (Device{DeviceKind::kCuda, process % 2 == 0 ? 5 : 2}));
  }
}

}  // namespace
}  // namespace thresher
