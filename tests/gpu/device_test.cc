#include "common/gpu/device.h"

#include "tests/gpu/device_testing.h"

namespace thresher::gpu {
namespace {

class Device : public testing::DeviceTest {};

TEST_F(Device, AnIndexThatDoesNotExistIsRefusedWithThoseThatDo) {
  const auto devices = ListDevices();
  ASSERT_TRUE(devices.ok());
  for (int index : {-1, 4096}) {
    const auto refused = OpenDevice(index);
    ASSERT_EQ(refused.status().code(), StatusCode::kNotFound);
    EXPECT_NE(refused.status().message().find((*devices)[0].name), std::string::npos);
  }
}

TEST_F(Device, HandlesAreEmptyOnceTheyAreMovedFrom) {
  auto memory = MakeDeviceMemory(1000);
  ASSERT_TRUE(memory.ok());
  DeviceMemory moved = std::move(*memory);
  EXPECT_EQ(memory->bytes(), 0u);
  EXPECT_EQ(moved.bytes(), 1000u);
  auto stream = MakeStream();
  ASSERT_TRUE(stream.ok());
  EXPECT_TRUE(Synchronize(*stream).ok());
}

TEST_F(Device, MoreMemoryThanThereIsIsRefusedAndTheDeviceGoesOn) {
  const auto refused = MakeDeviceMemory(std::size_t{1} << 50);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("are free"), std::string::npos);
  EXPECT_TRUE(MakeDeviceMemory(1000).ok());
}

}  // namespace
}  // namespace thresher::gpu
