#include "common/gpu/device.h"

#include <gtest/gtest.h>

#include "common/gpu/error.h"
#include "common/gpu/handles.h"

namespace thresher::gpu {
namespace {

TEST(Error, TellsALostDeviceFromALackOfMemory) {
  EXPECT_TRUE(ToStatus(cudaSuccess, "x").ok());
  const Status memory = ToStatus(cudaErrorMemoryAllocation, "cudaMalloc of 7 bytes");
  EXPECT_EQ(memory.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(memory.message().find("cudaMalloc of 7 bytes: cudaErrorMemoryAllocation"),
            std::string::npos);
  for (cudaError_t error : {cudaErrorIllegalAddress, cudaErrorECCUncorrectable,
                            cudaErrorLaunchFailure, cudaErrorAssert}) {
    EXPECT_EQ(KindOf(error), ErrorKind::kDeviceLost);
    EXPECT_EQ(ToStatus(error, "x").code(), StatusCode::kAborted);
  }
  EXPECT_EQ(ToStatus(cudaErrorInsufficientDriver, "x").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(ToStatus(cudaErrorNoKernelImageForDevice, "x").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(ToStatus(cudaErrorDevicesUnavailable, "x").code(), StatusCode::kUnavailable);
  EXPECT_EQ(ToStatus(cudaErrorInvalidValue, "x").code(), StatusCode::kInternal);
}

TEST(Device, WithoutADriverTheErrorSaysWhatToDo) {
  const auto devices = ListDevices();
  if (devices.ok()) {  // a GPU: nothing to be said
    EXPECT_FALSE(devices->empty());
    return;
  }
  EXPECT_EQ(devices.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(devices.status().message().find("driver"), std::string::npos)
      << devices.status().ToString();
  EXPECT_EQ(OpenDevice(0).status().message(), devices.status().message());
}

TEST(Device, AnArchitectureRunsOnItsOwnMajorAndWithALetterOnItselfAlone) {
  EXPECT_TRUE(RunsOn("90a", 9, 0));
  EXPECT_FALSE(RunsOn("90a", 10, 0));
  EXPECT_FALSE(RunsOn("90a", 8, 0));
  EXPECT_TRUE(RunsOn("80, 90a", 8, 6));
  EXPECT_TRUE(RunsOn("80, 90a", 9, 0));
  EXPECT_FALSE(RunsOn("86", 8, 0));
  EXPECT_FALSE(RunsOn("100a", 10, 3));
  EXPECT_TRUE(RunsOn("100", 10, 3));
}

TEST(Handles, AreEmptyAtFirst) {
  EXPECT_FALSE(Stream());
  EXPECT_FALSE(Event());
  EXPECT_EQ(DeviceMemory().bytes(), 0u);
  EXPECT_EQ(PinnedMemory().data(), nullptr);
}

}  // namespace
}  // namespace thresher::gpu
