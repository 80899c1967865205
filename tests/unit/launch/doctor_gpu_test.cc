#include "launch/doctor_gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thresher::launch {
namespace {

using Level = Finding::Level;
using ::testing::HasSubstr;

Status Usable(int) { return Status::Ok(); }

backend::Gpus Built() {
  backend::Gpus gpus;
  gpus.architectures = "90a";
  gpus.runtime = "13.0";
  gpus.status = FailedPrecondition("GPU: no NVIDIA driver answers; install one");
  return gpus;
}

TEST(DoctorGpuTest, AMachineWithoutGpuAndBuildLacksNothing) {
  backend::Gpus gpus;
  gpus.status = FailedPrecondition("not built");
  const auto found = GpuFindings(gpus, {}, Usable);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].level, Level::kGood);
  EXPECT_EQ(found[0].remedy, "");
}

TEST(DoctorGpuTest, ADriverWithoutABuildIsToldWithTheRemedy) {
  backend::Gpus gpus;
  gpus.status = FailedPrecondition("build where nvcc is found");
  const auto found = GpuFindings(gpus, {"NVIDIA H200, 143771 MiB, 580.1", true}, Usable);
  EXPECT_EQ(found[0].level, Level::kNote);
  EXPECT_THAT(found[0].found, HasSubstr("NVIDIA H200"));
  EXPECT_THAT(found[0].remedy, HasSubstr("nvcc"));
}

TEST(DoctorGpuTest, NoDriverAndOneTooOldAreToldApart) {
  backend::Gpus gpus = Built();
  EXPECT_THAT(GpuFindings(gpus, {}, Usable)[0].found, HasSubstr("no driver"));
  gpus.driver = "11.4";
  gpus.status = FailedPrecondition("GPU: the driver is for CUDA 11.4; this program needs 13.0");
  const Finding old = GpuFindings(gpus, {}, Usable)[0];
  EXPECT_EQ(old.level, Level::kNote);
  EXPECT_THAT(old.found, HasSubstr("11.4"));
  EXPECT_THAT(old.remedy, HasSubstr("this program needs 13.0"));
}

TEST(DoctorGpuTest, EachGpuIsListedAndABusyOneNamed) {
  backend::Gpus gpus = Built();
  gpus.driver = "13.0";
  gpus.status = Status::Ok();
  gpus.list = {{0, "NVIDIA H200", 9, 0, std::size_t{140} << 30, true},
               {1, "NVIDIA A100", 8, 0, std::size_t{80} << 30, false}};
  const auto found = GpuFindings(gpus, {}, [](int index) {
    return index == 1 ? Unavailable("GPU 1: another process has it") : Status::Ok();
  });
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].what, "GPU");
  EXPECT_THAT(found[0].found, HasSubstr("kernels for 90a"));
  EXPECT_EQ(found[1].level, Level::kGood);
  EXPECT_EQ(found[1].found, "NVIDIA H200, 140.0 GiB, compute capability 9.0");
  EXPECT_EQ(found[2].level, Level::kNote);
  EXPECT_THAT(found[2].remedy, HasSubstr("another process"));
  EXPECT_EQ(found[3].what, "kernel set cuda-bf16-sm90-v1");
  EXPECT_THAT(found[3].found, HasSubstr("cuda:0;"));
}

TEST(DoctorGpuTest, WithoutAFittingGpuTheTensorCoreSetHasItsRemedy) {
  backend::Gpus gpus = Built();
  gpus.status = Status::Ok();
  gpus.list = {{0, "NVIDIA A100", 8, 0, std::size_t{80} << 30, false}};
  const auto found = GpuFindings(gpus, {}, Usable);
  EXPECT_EQ(found.back().level, Level::kNote);
  EXPECT_THAT(found.back().remedy, HasSubstr("cpu-fp32-v1"));
}

}  // namespace
}  // namespace thresher::launch
