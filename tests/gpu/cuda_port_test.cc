// What the NCCL communicator asks of a device.
#include "common/comm/cuda_port.h"

#include <cmath>
#include <cstring>

#include "common/comm/poll.h"
#include "tests/gpu/device_testing.h"

namespace thresher::comm {
namespace {

using namespace std::chrono_literals;
using gpu::testing::OnDevice;

class CudaPort : public gpu::testing::DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    auto port = MakeCudaPort();
    ASSERT_TRUE(port.ok()) << port.status().ToString();
    port_ = std::move(port).value();
  }
  void Finish() {
    ASSERT_TRUE(port_->Mark().ok());
    const Status status =
        Poller(SystemClock().Now() + 20s).Await([this] { return port_->Reached(); });
    EXPECT_TRUE(status.ok()) << status.ToString();
  }

  std::unique_ptr<DevicePort> port_;
};

TEST_F(CudaPort, StagedBytesComeBack) {
  const auto staging = port_->MakeStaging(3000);
  ASSERT_TRUE(staging.ok());
  EXPECT_EQ(staging->bytes, 3000u);
  for (int i = 0; i < 3000; ++i) staging->host[i] = static_cast<std::byte>(i * 7);
  ASSERT_TRUE(port_->ToDevice(staging->device, staging->host, 3000).ok());
  Finish();
  std::memset(staging->host, 0, 3000);
  ASSERT_TRUE(port_->ToHost(staging->host + 1000, staging->device + 1000, 2000).ok());
  Finish();
  for (int i = 0; i < 3000; ++i) {
    ASSERT_EQ(staging->host[i], i < 1000 ? std::byte{0} : static_cast<std::byte>(i * 7)) << i;
  }
  std::memset(staging->host, 0, 3000);
  ASSERT_TRUE(port_->Peek(staging->host, staging->device, 3000, 20s).ok());
  EXPECT_EQ(staging->host[2999], static_cast<std::byte>(2999 * 7));
  port_->Return(*staging);
}

TEST_F(CudaPort, TheAdditionHasTheBitsOfTheHostInEitherOrder) {
  // Zeros of both signs, denormals, infinities, cancellation; longer than all threads together.
  std::vector<float> a = {0.0f, -0.0f, 1e-45f, 3e38f, -3e38f, INFINITY, 1.0f, 16777216.0f};
  std::vector<float> b = {-0.0f, -0.0f, -2e-45f, 3e38f, -3e38f, 1.0f, -1.0f, 1.0f};
  for (int i = 0; i < 20000; ++i) {
    a.push_back(static_cast<float>(i) * 0.1f);
    b.push_back(1.0f / static_cast<float>(i + 1));
  }
  for (bool other_first : {false, true}) {
    const OnDevice<float> sum(a), other(b);
    ASSERT_TRUE(port_->Add(sum.data(), other.data(), a.size(), other_first).ok());
    Finish();
    const std::vector<float> got = sum.Read();
    for (std::size_t i = 0; i < a.size(); ++i) {
      const float expected = other_first ? b[i] + a[i] : a[i] + b[i];
      ASSERT_EQ(std::memcmp(&got[i], &expected, sizeof expected), 0) << i;
    }
  }
  EXPECT_TRUE(port_->Add(nullptr, nullptr, 0, false).ok());
}

TEST_F(CudaPort, WorkOfAnotherStreamIsWaitedFor) {
  auto other = gpu::MakeStream();
  ASSERT_TRUE(other.ok());
  const auto staging = port_->MakeStaging(sizeof(float) * 2);
  ASSERT_TRUE(staging.ok());
  auto* host = reinterpret_cast<float*>(staging->host);
  host[0] = 5.0f;
  // On the other stream, which nobody waits for: only the port does.
  ASSERT_EQ(cudaMemcpyAsync(staging->device, staging->host, sizeof(float), cudaMemcpyHostToDevice,
                            other->get()),
            cudaSuccess);
  ASSERT_TRUE(port_->WaitFor(reinterpret_cast<CUstream_st*>(other->get())).ok());
  ASSERT_TRUE(port_->ToHost(staging->host + sizeof(float), staging->device, sizeof(float)).ok());
  Finish();
  EXPECT_EQ(host[1], 5.0f);
}

TEST_F(CudaPort, TooMuchStagingIsRefused) {
  const auto refused = port_->MakeStaging(std::size_t{1} << 45);
  EXPECT_FALSE(refused.ok());
  EXPECT_TRUE(port_->MakeStaging(1000).ok());
}

}  // namespace
}  // namespace thresher::comm
