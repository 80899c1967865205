#include "common/model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "common/data/files.h"
#include "common/data/safetensors.h"
#include "common/model/element_scan.h"
#include "common/model/stored_weights.h"
#include "common/model/tokenizer.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Names(const ModelConfig& config) {
  std::vector<std::string> names;
  for (const auto& info : ParameterList(config)) names.push_back(info.name);
  return names;
}

TEST(ParameterList, KeepsTheCanonicalOrderWithoutGaps) {
  ModelConfig config = SmallConfig("qwen2", false);
  config.layers = 1;
  EXPECT_THAT(
      Names(config),
      ElementsAre("model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                  "model.layers.0.self_attn.q_proj.weight",
                  "model.layers.0.self_attn.k_proj.weight",
                  "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.q_proj.bias",
                  "model.layers.0.self_attn.k_proj.bias", "model.layers.0.self_attn.v_proj.bias",
                  "model.layers.0.self_attn.o_proj.weight",
                  "model.layers.0.post_attention_layernorm.weight",
                  "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight",
                  "model.layers.0.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"));
  std::size_t next = 0;
  for (const auto& info : ParameterList(config)) {
    EXPECT_EQ(info.offset, next);
    std::size_t count = 1;
    for (auto size : info.shape) count *= static_cast<std::size_t>(size);
    EXPECT_EQ(info.count, count);
    EXPECT_EQ(info.decay, info.shape.size() == 2) << info.name;
    next += info.count;
  }
  EXPECT_EQ(ParameterCount(config), next);
}

TEST(ParameterList, ATiedLlamaHasNeitherHeadNorBiases) {
  const ModelConfig config = SmallConfig("llama", true);
  for (const auto& name : Names(config)) {
    EXPECT_NE(name, "lm_head.weight");
    EXPECT_EQ(name.find("bias"), std::string::npos) << name;
  }
  EXPECT_EQ(GradientSize(config), ParameterCount(config) + 37 * 40);
  EXPECT_EQ(GradientSize(SmallConfig("llama", false)), ParameterCount(SmallConfig("llama", false)));
}

TEST(ParameterList, AQwen3HasNormsOfQAndKButNoBiases) {
  ModelConfig config = SmallConfig("qwen3", true);
  config.layers = 1;
  EXPECT_THAT(
      Names(config),
      ElementsAre(
          "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
          "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
          "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.q_norm.weight",
          "model.layers.0.self_attn.k_norm.weight", "model.layers.0.self_attn.o_proj.weight",
          "model.layers.0.post_attention_layernorm.weight", "model.layers.0.mlp.gate_proj.weight",
          "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight",
          "model.norm.weight"));
}

TEST(InitialWeights, HasTheWantedSpread) {
  ModelConfig config = SmallConfig("qwen2", false);
  config.width = 128;
  config.layers = 2;
  const auto flat = InitialWeights(config, 3, 0.02);
  for (const auto& info : ParameterList(config)) {
    const auto values = std::span(flat).subspan(info.offset, info.count);
    double sum = 0, squares = 0, fourth = 0;
    for (float x : values) {
      sum += x;
      squares += double{x} * x;
      fourth += std::pow(double{x}, 4);
    }
    const double n = static_cast<double>(info.count);
    if (info.name.ends_with("norm.weight")) {
      EXPECT_EQ(sum, n);
      EXPECT_EQ(squares, n);
    } else if (info.name.ends_with("bias")) {
      EXPECT_EQ(squares, 0);
    } else {
      const bool residual = info.name.find("o_proj") != std::string::npos ||
                            info.name.find("down_proj") != std::string::npos;
      const double std = residual ? 0.02 / 2 : 0.02;
      // Five standard errors of mean, variance and kurtosis of n normals.
      EXPECT_NEAR(sum / n, 0, 5 * std / std::sqrt(n)) << info.name;
      EXPECT_NEAR(squares / n / (std * std), 1, 5 * std::sqrt(2 / n)) << info.name;
      EXPECT_NEAR(fourth / n / std::pow(std, 4), 3, 5 * std::sqrt(96 / n)) << info.name;
    }
  }
}

TEST(InitialWeights, IsAFunctionOfConfigurationAndSeed) {
  const ModelConfig config = SmallConfig("llama", true);
  EXPECT_EQ(InitialWeights(config, 3, 0.02), InitialWeights(config, 3, 0.02));
  EXPECT_NE(InitialWeights(config, 3, 0.02), InitialWeights(config, 4, 0.02));
}

TEST(InitialWeights, NoTwoTensorsShareTheirNumbers) {
  const ModelConfig config = SmallConfig("llama", false);
  const auto flat = InitialWeights(config, 3, 0.02);
  std::vector<float> firsts;
  for (const auto& info : ParameterList(config)) {
    if (info.shape.size() == 2) firsts.push_back(std::abs(flat[info.offset]));
  }
  std::ranges::sort(firsts);
  EXPECT_EQ(std::ranges::adjacent_find(firsts), firsts.end());
}

class WeightBlob : public ::testing::Test {
 protected:
  // The blob with one tensor changed, removed (null) or added.
  std::string Changed(const std::string& name, const std::function<bool(TensorView&)>& change) {
    const auto file = Safetensors::Parse(blob_, "w").value();
    std::vector<TensorView> tensors;
    for (TensorView tensor : file.tensors()) {
      if (tensor.name != name || change(tensor)) tensors.push_back(tensor);
    }
    return EncodeSafetensors(tensors, {{"format", "pt"}}).value();
  }

  Status DecodeStatus(std::string_view blob) {
    return DecodeWeights(config_, blob, "m/model.safetensors").status();
  }

  ModelConfig config_ = SmallConfig("qwen2", false);
  std::vector<float> flat_ = LivelyWeights(config_, 1);
  std::string blob_ = EncodeWeights(config_, flat_).value();
};

TEST_F(WeightBlob, ComesBackBitForBitAndIsDeterministic) {
  flat_[0] = -0.0f;
  flat_[1] = 1e-42f;  // denormal
  flat_[2] = std::numeric_limits<float>::infinity();
  const std::string blob = EncodeWeights(config_, flat_).value();
  const auto back = DecodeWeights(config_, blob, "w");
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(std::memcmp(back->data(), flat_.data(), flat_.size() * sizeof(float)), 0);
  EXPECT_EQ(EncodeWeights(config_, *back).value(), blob);
}

TEST_F(WeightBlob, HoldsTheParameterListInOrder) {
  const auto file = Safetensors::Parse(blob_, "w").value();
  std::vector<std::string> names;
  for (const auto& tensor : file.tensors()) names.push_back(tensor.name);
  EXPECT_EQ(names, Names(config_));
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
}

TEST_F(WeightBlob, NamesTheTensorThatDoesNotFit) {
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const auto missing = DecodeStatus(Changed(name, [](TensorView&) { return false; }));
  EXPECT_EQ(missing.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(missing.message(),
              HasSubstr("m/model.safetensors: tensor '" + name + "' is missing"));

  const auto unknown = DecodeStatus(Changed(name, [](TensorView& t) {
    t.name = "visual.weight";
    return true;
  }));
  EXPECT_THAT(unknown.message(), HasSubstr(name));

  const auto shape = DecodeStatus(Changed(name, [](TensorView& t) {
    std::swap(t.shape[0], t.shape[1]);
    return true;
  }));
  EXPECT_EQ(shape.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(shape.message(), HasSubstr(name));
  EXPECT_THAT(shape.message(), HasSubstr("[40, 56]; allowed: [56, 40]"));

  const auto dtype = DecodeStatus(Changed(name, [](TensorView& t) {
    t.dtype = DType::kI32;
    return true;
  }));
  EXPECT_THAT(dtype.message(), HasSubstr("has dtype I32; allowed: F32"));
}

TEST_F(WeightBlob, RefusesATensorTooMany) {
  const auto file = Safetensors::Parse(blob_, "w").value();
  std::vector<TensorView> tensors = file.tensors();
  tensors.push_back({"visual.weight", DType::kF32, {1}, std::string_view("abcd", 4)});
  const auto status = DecodeStatus(EncodeSafetensors(tensors, {}).value());
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("'visual.weight' is not of this model"));
}

TEST_F(WeightBlob, DamagedBytesAreDataLoss) {
  EXPECT_EQ(DecodeStatus(blob_.substr(0, blob_.size() - 1)).code(), StatusCode::kDataLoss);
  EXPECT_EQ(DecodeStatus(blob_.substr(0, 5)).code(), StatusCode::kDataLoss);
  EXPECT_EQ(DecodeStatus("").code(), StatusCode::kDataLoss);
}

TEST_F(WeightBlob, HoldsSixteenBitWeightsInHalfTheBytes) {
  for (auto type : {kernels::WeightType::kBf16, kernels::WeightType::kF16}) {
    ModelConfig config = config_;
    config.dtype = type;
    const std::string blob = EncodeWeights(config, flat_).value();
    EXPECT_LT(blob.size(), blob_.size() * 55 / 100);
    const auto back = DecodeWeights(config, blob, "blob");
    ASSERT_TRUE(back.ok()) << back.status().ToString();
    std::vector<float> rounded(flat_.size());
    RoundTo(type, flat_, rounded.data());
    EXPECT_EQ(*back, rounded);
    const auto bytes = Safetensors::Parse(blob, "blob").value().tensors()[0].data.data();
    EXPECT_EQ(PublishedHash(config, flat_),
              HashText128({bytes, flat_.size() * sizeof(std::uint16_t)}));
    EXPECT_NE(*back, flat_);
    EXPECT_EQ(EncodeWeights(config, *back).value(), blob);
    // A blob of another type is no blob of this run.
    const auto other = DecodeWeights(config, blob_, "blob").status();
    EXPECT_EQ(other.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(other.message(),
                HasSubstr("has dtype F32; allowed: " + std::string(DTypeName(StoredType(type)))));
  }
}

TEST_F(WeightBlob, AWeightThatItsTypeCannotHoldIsRefusedByName) {
  ModelConfig config = config_;
  config.dtype = kernels::WeightType::kF16;
  flat_[config_.vocab * config_.width + 1] = 7e4f;  // behind the embedding
  const auto refused = EncodeWeights(config, flat_).status();
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("model.layers.0.input_layernorm.weight"));
  EXPECT_THAT(refused.message(), HasSubstr("float16 cannot hold"));
}

TEST_F(WeightBlob, ElementsThatWereRoundedElsewhereGiveTheSameBlob) {
  using kernels::WeightType;
  for (WeightType type : {WeightType::kF32, WeightType::kBf16, WeightType::kF16}) {
    ModelConfig config = config_;
    config.dtype = type;
    std::string elements = PublishedElements(config, flat_);
    const auto bytes = [&] { return std::as_bytes(std::span(elements)); };
    EXPECT_EQ(EncodePublished(config, bytes()).value(), EncodeWeights(config, flat_).value());
    EXPECT_EQ(HashBytes128(bytes()), PublishedHash(config, flat_));
    // No number, then an infinite one behind it.
    std::vector<float> broken = flat_;
    broken[5] = std::nanf("");
    elements = PublishedElements(config, broken);
    EXPECT_TRUE(EncodePublished(config, bytes()).ok());
    broken[static_cast<std::size_t>(config_.vocab * config_.width) + 1] = -INFINITY;
    elements = PublishedElements(config, broken);
    const auto refused = EncodePublished(config, bytes());
    if (type == WeightType::kF32) {
      EXPECT_TRUE(refused.ok());
      continue;
    }
    EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refused.status().message(),
              std::string("weights: tensor 'model.layers.0.input_layernorm.weight' at [1] is more "
                          "than ") +
                  kernels::WeightTypeName(type) + " holds");
  }
}

class ModelFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ("model_folder_" + std::to_string(NewIncarnation().value));
    std::filesystem::create_directories(folder_);
    tokenizer_ = Tokenizer::FromAlphabet("0123456789+-*/=,; ").value();
    ASSERT_TRUE(SaveModelFolder(folder_, config_, flat_, *tokenizer_).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  ModelConfig config_ = SmallConfig("llama", true);
  std::vector<float> flat_ = LivelyWeights(config_, 1);
  std::unique_ptr<Tokenizer> tokenizer_;
  std::filesystem::path folder_;
};

TEST_F(ModelFolder, ComesBack) {
  const auto model = LoadModelFolder(folder_);
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ(model->config.Hash(), config_.Hash());
  EXPECT_EQ(model->flat, flat_);
  EXPECT_EQ(model->tokenizer->Hash(), tokenizer_->Hash());
  for (const char* name : {"config.json", "generation_config.json", "model.safetensors",
                           "tokenizer.json", "tokenizer_config.json"}) {
    EXPECT_TRUE(std::filesystem::exists(folder_ / name)) << name;
  }
}

TEST_F(ModelFolder, NamesTheFileThatIsMissingOrDamaged) {
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    const auto whole = ReadFile(folder_ / name).value();
    ASSERT_TRUE(WriteFileAtomic(folder_ / name, whole.substr(0, whole.size() / 2)).ok());
    const auto damaged = LoadModelFolder(folder_).status();
    EXPECT_EQ(damaged.code(), StatusCode::kDataLoss) << name;
    EXPECT_THAT(damaged.message(), HasSubstr(name));
    std::filesystem::remove(folder_ / name);
    const auto missing = LoadModelFolder(folder_).status();
    EXPECT_EQ(missing.code(), StatusCode::kNotFound) << name;
    EXPECT_THAT(missing.message(), HasSubstr(name));
    ASSERT_TRUE(WriteFileAtomic(folder_ / name, whole).ok());
  }
  EXPECT_TRUE(LoadModelFolder(folder_).ok());
}

TEST_F(ModelFolder, RefusesATokenizerLargerThanTheVocabulary) {
  config_.vocab = 10;
  const auto status = SaveModelFolder(folder_, config_, InitialWeights(config_, 1, 1), *tokenizer_);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("vocab is 10"));
}

}  // namespace
}  // namespace thresher::model
