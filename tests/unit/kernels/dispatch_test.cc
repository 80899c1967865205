#include "kernels/cpu/dispatch.h"

#include <gtest/gtest.h>

namespace thresher::kernels {
namespace {

TEST(Dispatch, StartsWithTheBestVariantAndPortableIsAlwaysThere) {
  EXPECT_EQ(ActiveCpuVariant(), BestCpuVariant());
  EXPECT_TRUE(CpuVariantAvailable(CpuVariant::kPortable));
  EXPECT_TRUE(CpuVariantAvailable(BestCpuVariant()));
}

TEST(Dispatch, SetChangesTheVariantAndNotTheKernelSet) {
  const std::string name = KernelSetName();
  SetCpuVariant(CpuVariant::kPortable);
  EXPECT_EQ(ActiveCpuVariant(), CpuVariant::kPortable);
  EXPECT_EQ(name, KernelSetName());
  SetCpuVariant(BestCpuVariant());
  EXPECT_STREQ(CpuVariantName(CpuVariant::kPortable), "portable");
  EXPECT_STREQ(CpuVariantName(CpuVariant::kAvx2), "avx2");
  EXPECT_STREQ(CpuVariantName(CpuVariant::kAvx512), "avx512");
}

TEST(Dispatch, KernelSetsHaveNamesAndTheProcessStartsWithFp32) {
  EXPECT_EQ(ActiveKernelSet(), KernelSet::kFp32);
  EXPECT_STREQ(KernelSetName(), "cpu-fp32-v1");
  SetKernelSet(KernelSet::kBf16Dot);
  EXPECT_STREQ(KernelSetName(), "cpu-bf16dot-v1");
  SetKernelSet(KernelSet::kFp32);
  EXPECT_STREQ(KernelSetName(KernelSet::kBf16Amx), "cpu-bf16amx-v1");
}

TEST(Dispatch, ASetIsNativeWhereTheVariantHasItsInstructions) {
  SetCpuVariant(CpuVariant::kPortable);
  EXPECT_TRUE(KernelSetNative(KernelSet::kFp32));
  EXPECT_FALSE(KernelSetNative(KernelSet::kBf16Dot));
  EXPECT_FALSE(KernelSetNative(KernelSet::kBf16Amx));
  SetCpuVariant(BestCpuVariant());
  EXPECT_EQ(KernelSetNative(KernelSet::kBf16Dot), CpuVariantAvailable(CpuVariant::kAvx512Bf16));
  EXPECT_EQ(KernelSetNative(KernelSet::kBf16Amx), CpuVariantAvailable(CpuVariant::kAmx));
}

}  // namespace
}  // namespace thresher::kernels
