#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <random>

#include "common/data/safetensors.h"
#include "common/model/model_folder.h"
#include "tests/unit/data/temp_folder.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using kernels::WeightType;

// 100 million parameters: 200 MB in 16 bits.
ModelConfig LargeConfig(bool tied) {
  ModelConfig config = SmallConfig("qwen2", tied);
  config.vocab = 40000;
  config.layers = 6;
  config.width = 768;
  config.heads = 12;
  config.kv_heads = 4;
  config.head_dim = 64;
  config.context = 131072;  // whose rotary tables would be 34 MB
  config.ffn_width = tied ? 4000 : 2304;
  config.dtype = WeightType::kBf16;
  return config;
}

// Every tensor is a part of one random stretch of finite numbers: quick to make.
void WriteFolder(const std::filesystem::path& folder, const ModelConfig& config) {
  std::string pool(static_cast<std::size_t>(config.vocab) * config.width * 2, '\0');
  std::minstd_rand random(1);
  for (std::size_t i = 1; i < pool.size(); i += 2) {
    pool[i - 1] = static_cast<char>(random());
    pool[i] = 0x3C;
  }
  std::vector<TensorView> tensors;
  for (const ParameterInfo& info : ParameterList(config)) {
    tensors.push_back(
        {info.name, DType::kBF16, info.shape, std::string_view(pool).substr(0, info.count * 2)});
  }
  const std::string blob = EncodeSafetensors(tensors, {}).value();
  std::ofstream(folder / "model.safetensors", std::ios::binary).write(blob.data(), blob.size());
  std::ofstream(folder / "config.json") << config.ToJson();
}

std::uint64_t StatusBytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoull(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

// {packed size, growth of the peak} of a process that loads the folder.
std::array<std::uint64_t, 2> MeasureInChild(const std::filesystem::path& folder,
                                            const LoadOptions& options) {
  std::array<int, 2> ends{};
  EXPECT_EQ(pipe(ends.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::uint64_t before = StatusBytes("VmRSS");
    const auto model = LoadPackedModel(folder, options);
    std::array<std::uint64_t, 2> seen{};
    if (model.ok()) seen = {(*model)->packed_bytes(), StatusBytes("VmHWM") - before};
    const bool written = write(ends[1], seen.data(), sizeof seen) == sizeof seen;
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  std::array<std::uint64_t, 2> seen{};
  EXPECT_EQ(read(ends[0], seen.data(), sizeof seen), static_cast<ssize_t>(sizeof seen));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  return seen;
}

#if !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)  // their shadow counts as memory

TEST(LoadMemory, PeaksAtThePackedSizeAndATenth) {
  for (bool tied : {true, false}) {
    TempFolder folder;
    const ModelConfig config = LargeConfig(tied);
    WriteFolder(folder.path(), config);
    const std::uint64_t stored = 2 * ParameterCount(config);
    ASSERT_GT(stored, 180'000'000u);
    for (const bool wide : {false, true}) {
      LoadOptions options;
      if (wide) options.weight_type = WeightType::kF32;
      const auto [packed, peak] = MeasureInChild(folder.path(), options);
      const std::uint64_t size = wide ? 2 * stored : stored;
      EXPECT_GE(packed, size);
      EXPECT_LE(static_cast<double>(packed), 1.01 * static_cast<double>(size));  // padded panels
      EXPECT_LE(static_cast<double>(peak), 1.1 * static_cast<double>(size));
      EXPECT_GE(static_cast<double>(peak), 0.9 * static_cast<double>(size)) << "nothing measured";
    }
  }
}

#endif

}  // namespace
}  // namespace thresher::model
