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

}  // namespace
}  // namespace thresher::kernels
