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
  EXPECT_TRUE(Await(*stream, "nothing").ok());
}

TEST_F(Device, MemoryIsCountedAsLongAsItIsHeld) {
  const DeviceMemoryUsage before = UsageOfDevices();
  {
    auto one = MakeDeviceMemory(5000);
    ASSERT_TRUE(one.ok());
    EXPECT_EQ(UsageOfDevices().taken, before.taken + 5000);
    auto two = MakeDeviceMemory(std::size_t{1} << 20);
    ASSERT_TRUE(two.ok());
    *one = std::move(*two);  // what it had lives in the other one, whose end is the block's
    EXPECT_EQ(UsageOfDevices().taken, before.taken + 5000 + (1 << 20));
  }
  EXPECT_EQ(UsageOfDevices().taken, before.taken);
  EXPECT_GE(UsageOfDevices().most, before.taken + 5000 + (1 << 20));
  EXPECT_FALSE(MakeDeviceMemory(std::size_t{1} << 50).ok());
  EXPECT_EQ(UsageOfDevices().taken, before.taken);
}

TEST_F(Device, MoreMemoryThanThereIsIsRefusedAndTheDeviceGoesOn) {
  const auto refused = MakeDeviceMemory(std::size_t{1} << 50);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("are free"), std::string::npos);
  EXPECT_TRUE(MakeDeviceMemory(1000).ok());
}

TEST_F(Device, AWaitEndsWithTheWorkOrAtItsDeadline) {
  const auto stream = MakeStream();
  const auto event = MakeEvent();
  ASSERT_TRUE(stream.ok() && event.ok());
  const auto memory = MakeDeviceMemory(std::size_t{64} << 20);
  ASSERT_TRUE(memory.ok());
  ASSERT_EQ(cudaMemsetAsync(memory->data(), 1, memory->bytes(), stream->get()), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event->get(), stream->get()), cudaSuccess);
  const Status late = Await(*event, "a long step", std::chrono::milliseconds(0));
  if (!late.ok()) {  // a device may be faster than the question
    EXPECT_EQ(late.code(), StatusCode::kDeadlineExceeded);
    EXPECT_NE(late.message().find("a long step"), std::string::npos);
  }
  EXPECT_TRUE(Await(*event, "a step").ok());
  EXPECT_TRUE(Await(*stream, "all of it").ok());
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

}  // namespace
}  // namespace thresher::gpu
