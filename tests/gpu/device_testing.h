#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/gpu/device.h"
#include "common/gpu/handles.h"

namespace thresher::gpu::testing {

// Skips where there is no device.
class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto device = OpenDevice(0);
    if (!device.ok()) GTEST_SKIP() << device.status().message();
  }
};

// A copy of host values on the device, and back.
template <class T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values)
      : count_(values.size()), memory_(MakeDeviceMemory(bytes() + 1).value()) {
    EXPECT_EQ(cudaMemcpy(memory_.data(), values.data(), bytes(), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  T* data() const { return memory_.template as<T>(); }
  std::vector<T> Read() const {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), memory_.data(), bytes(), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }

 private:
  std::size_t bytes() const { return count_ * sizeof(T); }
  std::size_t count_;
  DeviceMemory memory_;
};

}  // namespace thresher::gpu::testing
