#include "common/model/zero_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "common/model/packed_model.h"
#include "common/model/rope_scaling.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

double ResidentMiB() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::strtod(line.c_str() + 6, nullptr) / 1024;
  }
  return 0;
}

TEST(ZeroPages, AreZeroAndTakeMemoryWhereTheyWereWritten) {
  const double before = ResidentMiB();
  ZeroPages pages = ZeroPages::Make(std::size_t{1} << 30).value();  // 4 GiB
  EXPECT_LT(ResidentMiB() - before, 8);
  float* middle = pages.data() + (std::size_t{1} << 29);
  EXPECT_EQ(*middle, 0.0f);
  for (std::size_t i = 0; i < (8u << 20); ++i) middle[i] = 1.0f;  // 32 MiB
  EXPECT_LT(ResidentMiB() - before, 48);
  ZeroPages moved = std::move(pages);
  EXPECT_EQ(pages.data(), nullptr);
  EXPECT_EQ(moved.data() + (std::size_t{1} << 29), middle);
  moved = ZeroPages();
  EXPECT_LT(ResidentMiB() - before, 48);
}

TEST(ZeroPages, MoreThanTheAddressSpaceIsRefused) {
  for (std::size_t floats : {std::size_t{1} << 60, ~std::size_t{0}}) {
    EXPECT_EQ(ZeroPages::Make(floats).status().code(), StatusCode::kResourceExhausted);
  }
}

// A cache with room for every sequence at full length, of which a short one is used.
TEST(KvCacheMemory, IsOfThePagesInUse) {
  ModelConfig config = SmallConfig("llama", true);
  config.context = 1 << 20;
  const auto model = PackedModel::Make(config, LivelyWeights(config, 1), 0, false);
  const double before = ResidentMiB();
  KvCache cache(config, 64 * (config.context / 16));  // 17 GB
  const auto tokens = RandomTokens(1, 100, config.vocab);
  const auto pages = PageTable(3000000, 1, 100);
  RowBatch batch;
  Append(tokens, 0, 100, pages, batch);
  (void)HiddenOf(*model, batch, cache);
  EXPECT_LT(ResidentMiB() - before, 32);
}

TEST(RopeTables, AreFilledAsFarAsTheyAreUsedWithTheSameBits) {
  ModelConfig config = SmallConfig("llama3", true);
  config.context = 5000;
  const auto frequencies =
      InverseFrequencies(config.head_dim, config.rope_theta, config.rope_scaling);
  const std::size_t half = frequencies.size();
  auto whole = RopeTables::Make(config, frequencies).value();
  whole->Require(config.context);
  auto grown = RopeTables::Make(config, frequencies).value();
  EXPECT_EQ(grown->cos()[0], 0.0f);  // cos(0) is 1: not filled
  for (std::int32_t positions : {1, 2, 256, 257, 300, 1000, 999, 5000}) {
    grown->Require(positions);
    const std::size_t floats = static_cast<std::size_t>(positions) * half;
    EXPECT_TRUE(std::equal(whole->cos(), whole->cos() + floats, grown->cos())) << positions;
    EXPECT_TRUE(std::equal(whole->sin(), whole->sin() + floats, grown->sin())) << positions;
  }
}

}  // namespace
}  // namespace thresher::model
