// Adapters: what they are merged to, and their gradients, against naive forms in their own words.
#include "common/model/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <map>

#include "common/data/files.h"
#include "common/model/adapter_files.h"
#include "common/model/trained.h"
#include "tests/unit/data/temp_folder.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using ::testing::HasSubstr;

LoraConfig Options(int rank, const std::string& targets = "all-linear") {
  LoraConfig options;
  options.rank = rank;
  options.alpha = 6;
  options.targets = targets;
  options.phase = "all";
  return options;
}

Lora Make(const LoraConfig& options, const ModelConfig& config,
          const std::vector<bool>& frozen = {}) {
  auto lora = Lora::Make(options, config, frozen);
  EXPECT_TRUE(lora.ok()) << lora.status().ToString();
  return std::move(lora).value();
}

std::vector<float> Random(std::uint64_t item, std::size_t count) {
  RandomSequence random(4, TrajectoryId{Stream::kTrain, 0, item, 0}, RandomPurpose::kBootstrap);
  std::vector<float> out(count);
  for (float& v : out) v = static_cast<float>(random.NextUniform() - 0.5);
  return out;
}

std::vector<std::uint32_t> Bits(std::span<const float> values) {
  std::vector<std::uint32_t> bits;
  for (float v : values) bits.push_back(std::bit_cast<std::uint32_t>(v));
  return bits;
}

void MergeAll(const Lora& lora, std::span<const float> base, std::span<const float> adapters,
              std::span<float> weights) {
  for (std::size_t i = 0; i < lora.targets().size(); ++i) lora.Merge(i, base, adapters, weights);
}

class LoraTest : public ::testing::Test {
 protected:
  const ModelConfig config_ = SmallConfig("qwen3", true);
  const std::vector<float> weights_ = LivelyWeights(config_, 2);
};

TEST_F(LoraTest, TheStartIsExactlyTheBaseModel) {
  const Lora lora = Make(Options(4), config_);
  std::vector<float> weights = weights_;
  weights[lora.targets()[3].offset + 5] = -0.0f;
  std::vector<float> merged(weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) merged[i] = weights[i];
  for (const ParameterInfo& info : lora.targets()) {
    std::ranges::fill(std::span(merged).subspan(info.offset, info.count), 7.0f);
  }
  MergeAll(lora, lora.BaseOf(weights), lora.Initial(1), merged);
  EXPECT_EQ(Bits(merged), Bits(weights));
}

// Element by element, in the words of the definition.
TEST_F(LoraTest, MergedIsTheBaseAndTheScaledProductOfEveryRank) {
  for (const int rank : {1, 3, 4, 16, 33}) {
    for (const bool stabilised : {false, true}) {
      LoraConfig options = Options(rank);
      options.rank_stabilised = stabilised;
      const Lora lora = Make(options, config_);
      const float scale =
          static_cast<float>(6.0 / (stabilised ? std::sqrt(double(rank)) : double(rank)));
      const std::vector<float> adapters = Random(std::uint64_t(rank), lora.count());
      std::vector<float> merged = weights_, expected = weights_;
      MergeAll(lora, lora.BaseOf(weights_), adapters, merged);
      for (std::size_t i = 0; i < lora.targets().size(); ++i) {
        const ParameterInfo& info = lora.targets()[i];
        const float* a = adapters.data() + lora.parameters()[2 * i].offset;
        const float* b = adapters.data() + lora.parameters()[2 * i + 1].offset;
        for (std::int64_t n = 0; n < info.shape[0]; ++n) {
          for (std::int64_t k = 0; k < info.shape[1]; ++k) {
            float product = 0;
            for (int j = 0; j < rank; ++j) {
              product = std::fma(b[n * rank + j], a[j * info.shape[1] + k], product);
            }
            const float part = scale * product;
            expected[info.offset + std::size_t(n * info.shape[1] + k)] += part;
          }
        }
      }
      EXPECT_EQ(Bits(merged), Bits(expected)) << rank;
    }
  }
}

// f(A, B) = sum of G times merged: its derivatives are the projections of G. In double.
TEST_F(LoraTest, GradientsAreThoseOfADoubleOracleAndOfFiniteDifferences) {
  const int rank = 5;
  const Lora lora = Make(Options(rank), config_);
  const std::vector<float> adapters = Random(1, lora.count());
  const std::vector<float> gradient = Random(2, GradientSize(config_));
  std::vector<float> out(lora.count(), 9.0f);
  lora.Project(adapters, gradient, out);
  const auto f = [&](std::size_t target, const std::vector<double>& x) {
    const ParameterInfo& info = lora.targets()[target];
    const double* a = x.data() + lora.parameters()[2 * target].offset;
    const double* b = x.data() + lora.parameters()[2 * target + 1].offset;
    double sum = 0;
    for (std::int64_t n = 0; n < info.shape[0]; ++n) {
      for (std::int64_t k = 0; k < info.shape[1]; ++k) {
        double product = 0;
        for (int j = 0; j < rank; ++j) product += b[n * rank + j] * a[j * info.shape[1] + k];
        sum += double(gradient[info.offset + std::size_t(n * info.shape[1] + k)]) * (6.0 / rank) *
               product;
      }
    }
    return sum;
  };
  std::vector<double> x(adapters.begin(), adapters.end());
  for (std::size_t p = 0; p < lora.parameters().size(); ++p) {
    const ParameterInfo& info = lora.parameters()[p];
    for (std::size_t i = info.offset; i < info.offset + info.count; i += 1 + info.count / 7) {
      // f is linear in one element: a central difference has no error but rounding's.
      const double was = x[i];
      x[i] = was + 0.5;
      const double above = f(p / 2, x);
      x[i] = was - 0.5;
      const double slope = above - f(p / 2, x);
      x[i] = was;
      EXPECT_NEAR(out[i], slope, 1e-5 * (1 + std::abs(slope))) << info.name << " " << i;
    }
  }
}

TEST_F(LoraTest, InitialAdaptersAreUniformAndAFunctionOfTheSeed) {
  const ModelConfig config = SmallConfig("llama", true);
  const Lora lora = Make(Options(16), config);
  const std::vector<float> adapters = lora.Initial(7);
  EXPECT_EQ(adapters, lora.Initial(7));
  EXPECT_NE(adapters, lora.Initial(8));
  for (std::size_t p = 0; p < lora.parameters().size(); ++p) {
    const ParameterInfo& info = lora.parameters()[p];
    const auto own = std::span(adapters).subspan(info.offset, info.count);
    const bool is_b = p % 2 == 1;
    const double bound = is_b ? 0 : 1 / std::sqrt(double(info.shape[1]));
    double square = 0;
    for (float v : own) {
      EXPECT_LE(std::abs(v), bound);
      square += double(v) * v;
    }
    // The variance of uniform numbers is bound^2 / 3; 640 of them or more.
    EXPECT_NEAR(square / double(info.count), bound * bound / 3, 0.15 * bound * bound / 3);
    EXPECT_EQ(info.decay, true);
  }
  // Tensors differ from each other.
  EXPECT_NE(adapters[0], adapters[lora.parameters()[2].offset]);
}

TEST_F(LoraTest, TargetsAreTheNamedMatricesOfEveryLayerThatIsNotFrozen) {
  const Lora two = Make(Options(2, "q_proj, down_proj"), config_);
  ASSERT_EQ(two.targets().size(), 4u);
  EXPECT_EQ(two.targets()[0].name, "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(two.targets()[3].name, "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(two.parameters()[0].name, "model.layers.0.self_attn.q_proj.lora_A.weight");
  EXPECT_EQ(two.parameters()[7].name, "model.layers.1.mlp.down_proj.lora_B.weight");
  EXPECT_EQ(two.parameters()[7].shape, (std::vector<std::int64_t>{config_.width, 2}));
  EXPECT_EQ(Make(Options(2), config_).targets().size(), 14u);

  std::vector<bool> frozen(ParameterList(config_).size());
  for (std::size_t i = 0; i < frozen.size(); ++i) {
    frozen[i] = ParameterList(config_)[i].name.starts_with("model.layers.1.");
  }
  EXPECT_EQ(Make(Options(2), config_, frozen).targets().size(), 7u);
  frozen.assign(frozen.size(), true);
  const auto none = Lora::Make(Options(2, "q_proj"), config_, frozen);
  EXPECT_THAT(none.status().message(), HasSubstr("lora.targets: value 'q_proj'; allowed: a matrix "
                                                 "that learner.freeze leaves to train"));
}

class AdapterFilesTest : public LoraTest {
 protected:
  void Write(const Lora& lora, std::span<const float> adapters) {
    const auto bytes = EncodeSafetensors(AdapterTensors(lora, adapters), {});
    ASSERT_TRUE(bytes.ok());
    ASSERT_TRUE(WriteFileAtomic(file_, *bytes).ok());
    ASSERT_TRUE(WriteFileAtomic(json_, AdapterConfigJson(lora, "somewhere")).ok());
  }
  TempFolder folder_;
  const std::filesystem::path file_ = folder_.path() / kAdapterFile;
  const std::filesystem::path json_ = folder_.path() / kAdapterConfigFile;
};

TEST_F(AdapterFilesTest, GiveBackWhatWasWritten) {
  const Lora lora = Make(Options(3), config_);
  const std::vector<float> adapters = Random(5, lora.count());
  Write(lora, adapters);
  EXPECT_TRUE(CheckAdapterConfig(json_, lora).ok());
  const auto read = ReadAdapters(file_, lora);
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(Bits(*read), Bits(adapters));
  const auto opened = Safetensors::Open(file_);
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE(opened->Find("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight").ok());
}

TEST_F(AdapterFilesTest, OfOtherAdaptersAreRefusedByKey) {
  Write(Make(Options(3), config_), Random(5, Make(Options(3), config_).count()));
  const auto refused = [&](const LoraConfig& options) {
    return CheckAdapterConfig(json_, Make(options, config_)).ToString();
  };
  EXPECT_THAT(refused(Options(4)), HasSubstr("lora.rank is 3; allowed: 4, the run's"));
  EXPECT_THAT(refused(Options(3, "q_proj")), HasSubstr("lora.targets is [\"down_proj\""));
  LoraConfig other = Options(3);
  other.alpha = 8;
  EXPECT_THAT(refused(other), HasSubstr("lora.alpha is 6.0; allowed: 8.0"));
  other = Options(3);
  other.rank_stabilised = true;
  EXPECT_THAT(refused(other), HasSubstr("lora.rank_stabilised is false; allowed: true"));

  EXPECT_THAT(ReadAdapters(file_, Make(Options(4), config_)).status().ToString(),
              HasSubstr("tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"));
  EXPECT_THAT(ReadAdapters(file_, Make(Options(3, "q_proj"), config_)).status().ToString(),
              HasSubstr("28 tensors; allowed: 4"));
  ASSERT_TRUE(WriteFileAtomic(json_, "[]").ok());
  EXPECT_EQ(CheckAdapterConfig(json_, Make(Options(3), config_)).code(), StatusCode::kDataLoss);
}

TEST_F(AdapterFilesTest, NameWholeMatricesWhereALayerHasNone) {
  std::vector<bool> frozen(ParameterList(config_).size());
  frozen[1 + 1] = true;  // layer 0's q_proj
  ASSERT_EQ(ParameterList(config_)[2].name, "model.layers.0.self_attn.q_proj.weight");
  const std::string json = AdapterConfigJson(Make(Options(3, "q_proj"), config_, frozen), "");
  EXPECT_THAT(json, HasSubstr("\"model.layers.1.self_attn.q_proj\""));
  EXPECT_THAT(AdapterConfigJson(Make(Options(3, "q_proj"), config_), ""), HasSubstr("\"q_proj\""));
}

}  // namespace
}  // namespace thresher::model
