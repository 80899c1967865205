#include "common/model/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>

#include "common/data/byte_order.h"
#include "common/data/files.h"
#include "common/data/safetensors.h"
#include "common/model/element_scan.h"
#include "tests/unit/data/temp_folder.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using kernels::WeightType;
using ::testing::HasSubstr;

constexpr WeightType kTypes[] = {WeightType::kF32, WeightType::kBf16, WeightType::kF16};

// What the 16-bit types leave of `flat`.
std::vector<float> Rounded(WeightType type, const std::vector<float>& flat) {
  const std::string narrow = Narrow(type, flat);
  std::vector<float> out(flat.size());
  Widen(type, narrow.data(), flat.size(), out.data());
  return out;
}

std::vector<float> LogitsOf(const PackedModel& model) {
  constexpr int kLength = 40;
  KvCache cache(model.config(), 4);
  const auto tokens = RandomTokens(3, kLength, model.config().vocab);
  const auto pages = PageTable(0, 1, kLength);
  RowBatch batch;
  Append(tokens, 0, kLength, pages, batch);
  return Logits(model, HiddenOf(model, batch, cache));
}

class WeightsFolder : public ::testing::Test {
 protected:
  void Save(const ModelConfig& config, std::uint64_t shard_bytes = kDefaultShardBytes) {
    config_ = config;
    flat_ = LivelyWeights(config, 1);
    const Status saved = SaveWeightsFolder(folder_.path(), config, flat_, shard_bytes);
    ASSERT_TRUE(saved.ok()) << saved.ToString();
  }

  static ModelConfig Stored(const std::string& family, bool tied, WeightType type) {
    ModelConfig config = SmallConfig(family, tied);
    config.dtype = type;
    return config;
  }

  std::vector<std::string> WeightFiles() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      const std::string name = entry.path().filename().string();
      if (name.find("safetensors") != std::string::npos) names.push_back(name);
    }
    std::ranges::sort(names);
    return names;
  }

  // Rewrites a weight file with its tensors changed.
  void Change(const std::string& file,
              const std::function<void(std::vector<TensorView>&)>& change) {
    const std::string blob = ReadFile(folder_ / file).value();
    auto tensors = Safetensors::Parse(blob, file)->tensors();
    change(tensors);
    const std::string changed = EncodeSafetensors(tensors, {}).value();
    ASSERT_TRUE(WriteFileAtomic(folder_ / file, changed).ok());
  }

  // The bytes of a tensor of model.safetensors changed in place.
  void Poke(const std::string& tensor, std::size_t element, std::uint32_t bits) {
    std::string blob = ReadFile(folder_ / "model.safetensors").value();
    const TensorView view = Safetensors::Parse(blob, "w")->Find(tensor).value();
    const std::size_t size = DTypeBytes(view.dtype);
    const auto offset = static_cast<std::size_t>(view.data.data() - blob.data());
    std::memcpy(blob.data() + offset + element * size, &bits, size);
    ASSERT_TRUE(WriteFileAtomic(folder_ / "model.safetensors", blob).ok());
  }

  Status LoadStatus(const LoadOptions& options = {}) const {
    return LoadPackedModel(folder_.path(), options).status();
  }

  void ExpectRefused(StatusCode code, const std::vector<std::string>& words) const {
    const Status packed = LoadStatus();
    EXPECT_EQ(packed.code(), code) << packed.ToString();
    for (const auto& word : words) EXPECT_THAT(packed.message(), HasSubstr(word));
    const Status flat = LoadFlatWeights(folder_.path(), config_).status();
    EXPECT_EQ(flat.ToString(), packed.ToString());
  }

  TempFolder folder_;
  ModelConfig config_;
  std::vector<float> flat_;
};

TEST_F(WeightsFolder, LoadedBitsAreThoseOfTheWidenedWeights) {
  for (const char* family : {"llama3", "qwen2", "qwen3"}) {
    for (bool tied : {true, false}) {
      for (WeightType type : kTypes) {
        Save(Stored(family, tied, type));
        const auto rounded = Rounded(type, flat_);
        EXPECT_EQ(LoadFlatWeights(folder_.path(), config_).value(), rounded);
        const auto stored = LoadPackedModel(folder_.path(), {}).value();
        EXPECT_EQ(stored->weight_type(), type);
        EXPECT_EQ(stored->config().Hash(), config_.Hash());
        const auto wide =
            LoadPackedModel(folder_.path(), {.weight_type = WeightType::kF32}).value();
        EXPECT_EQ(wide->weight_type(), WeightType::kF32);
        EXPECT_EQ(wide->config().dtype, type);
        ModelConfig widened = config_;
        widened.dtype = WeightType::kF32;
        const auto expected = LogitsOf(*PackedModel::Make(widened, rounded, 0, false));
        EXPECT_EQ(LogitsOf(*wide), expected);
        // From the flat vector, not yet rounded.
        const auto made = PackedModel::Make(config_, flat_, 0, false);
        EXPECT_EQ(made->weight_type(), type);
        EXPECT_EQ(LogitsOf(*made), expected);
        EXPECT_EQ(LogitsOf(*stored), expected)
            << family << " " << kernels::WeightTypeName(type) << (tied ? " tied" : "");
      }
    }
  }
}

TEST_F(WeightsFolder, SixteenBitWeightsTakeHalfTheMemory) {
  Save(Stored("llama", false, WeightType::kBf16));
  const auto half = LoadPackedModel(folder_.path(), {}).value();
  const auto whole = LoadPackedModel(folder_.path(), {.weight_type = WeightType::kF32}).value();
  EXPECT_LT(half->packed_bytes(), 0.55 * static_cast<double>(whole->packed_bytes()));
  // One copy of a tied head.
  Save(Stored("llama", true, WeightType::kBf16));
  const auto tied = LoadPackedModel(folder_.path(), {}).value();
  EXPECT_LT(tied->packed_bytes() + 37 * 40 * 2, half->packed_bytes());
}

TEST_F(WeightsFolder, TheGradientRunsOnStoredWeightsToo) {
  Save(Stored("qwen3", true, WeightType::kBf16));
  const auto stored = LoadPackedModel(folder_.path(), {.with_backward = true}).value();
  const auto rounded = Rounded(WeightType::kBf16, flat_);
  config_.dtype = WeightType::kF32;
  const auto made = PackedModel::Make(config_, rounded, 0, true);
  const auto gradient = [&](const PackedModel& model) {
    const auto tokens = RandomTokens(3, 20, config_.vocab);
    const auto pages = PageTable(0, 1, 20);
    RowBatch batch;
    Append(tokens, 0, 20, pages, batch);
    KvCache cache(config_, 4);
    const TapePtr tape = NewTape();
    const auto hidden = HiddenOf(model, batch, cache, tape.get());
    std::vector<float> out(GradientSize(config_));
    Backward(model, batch, *tape, hidden, *NewWorkspace(), out);
    return out;
  };
  EXPECT_EQ(gradient(*stored), gradient(*made));
}

TEST_F(WeightsFolder, ShardsHoldTheSameModel) {
  for (WeightType type : kTypes) {
    Save(Stored("qwen2", false, type));
    EXPECT_EQ(WeightFiles(), std::vector<std::string>{"model.safetensors"});
    const auto whole = LogitsOf(*LoadPackedModel(folder_.path(), {}).value());
    Save(config_, 12000);
    EXPECT_GT(WeightFiles().size(), 3u);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "model.safetensors"));
    EXPECT_EQ(LogitsOf(*LoadPackedModel(folder_.path(), {}).value()), whole);
    const auto fine = WeightFiles().size();
    Save(config_, 40000);  // fewer, and none of the old ones is left
    EXPECT_LT(WeightFiles().size(), fine);
    EXPECT_EQ(LogitsOf(*LoadPackedModel(folder_.path(), {}).value()), whole);
    Save(config_);
    EXPECT_EQ(WeightFiles(), std::vector<std::string>{"model.safetensors"});
  }
}

TEST_F(WeightsFolder, NoFilePassesTheLimitUnlessOneTensorDoes) {
  Save(Stored("llama", false, WeightType::kF32), 12000);
  for (const std::string& name : WeightFiles()) {
    if (name.ends_with(".json")) continue;
    const auto file = Safetensors::Open(folder_ / name).value();
    std::size_t bytes = 0;
    for (const auto& tensor : file.tensors()) bytes += tensor.data.size();
    EXPECT_TRUE(bytes <= 12000 || file.tensors().size() == 1) << name;
  }
}

TEST_F(WeightsFolder, AnElementThatIsNoNumberIsFoundByTensorAndPlace) {
  struct Bad {
    WeightType type;
    std::uint32_t bits;
    const char* text;
  };
  for (const Bad& bad :
       {Bad{WeightType::kF32, 0x7FC00000, "nan"}, Bad{WeightType::kF32, 0xFF800000, "-inf"},
        Bad{WeightType::kF32, 0x7F800001, "nan"}, Bad{WeightType::kBf16, 0x7FC0, "nan"},
        Bad{WeightType::kBf16, 0x7F80, "inf"}, Bad{WeightType::kF16, 0x7E00, "nan"},
        Bad{WeightType::kF16, 0xFC00, "-inf"}}) {
    Save(Stored("qwen2", false, bad.type));
    Poke("model.layers.1.mlp.up_proj.weight", 55 * 40 + 39, bad.bits);
    ExpectRefused(StatusCode::kDataLoss,
                  {"model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight' holds ", bad.text,
                   " at [55, 39]"});
    Save(Stored("qwen2", false, bad.type));
    Poke("model.layers.0.self_attn.k_proj.bias", 3, bad.bits);
    ExpectRefused(StatusCode::kDataLoss,
                  {"tensor 'model.layers.0.self_attn.k_proj.bias' holds", " at [3]"});
  }
}

// The largest numbers and denormals are numbers.
TEST_F(WeightsFolder, ExtremesAreKept) {
  Save(Stored("llama", true, WeightType::kF32));
  flat_[0] = std::numeric_limits<float>::max();
  flat_[1] = -1e-42f;
  flat_[2] = -0.0f;
  ASSERT_TRUE(SaveWeightsFolder(folder_.path(), config_, flat_).ok());
  const auto back = LoadFlatWeights(folder_.path(), config_).value();
  EXPECT_EQ(std::memcmp(back.data(), flat_.data(), flat_.size() * sizeof(float)), 0);
  EXPECT_TRUE(LoadStatus().ok());
}

TEST_F(WeightsFolder, AWeightTooLargeForItsTypeIsNamed) {
  const ModelConfig config = Stored("llama", true, WeightType::kF16);
  auto flat = LivelyWeights(config, 1);
  flat[41] = 70000;
  const Status saved = SaveWeightsFolder(folder_.path(), config, flat);
  EXPECT_EQ(saved.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(saved.message(), HasSubstr("'model.embed_tokens.weight' holds 70000"));
  EXPECT_THAT(saved.message(), HasSubstr("at [1, 1], which float16 cannot hold"));
}

TEST_F(WeightsFolder, ShapesMustBeThoseOfTheConfiguration) {
  Save(Stored("qwen3", false, WeightType::kBf16));
  ModelConfig other = config_;
  other.ffn_width = 64;
  ASSERT_TRUE(WriteFileAtomic(folder_ / "config.json", other.ToJson()).ok());
  config_ = other;
  ExpectRefused(StatusCode::kInvalidArgument,
                {"model.safetensors: tensor 'model.layers.0.mlp.gate_proj.weight' has shape "
                 "[56, 40]; allowed by config.json: [64, 40]"});
}

TEST_F(WeightsFolder, MissingAndStrangeTensorsAreNamed) {
  Save(Stored("qwen3", false, WeightType::kF32));
  const std::string file = "model.safetensors";
  Change(file, [](auto& tensors) {
    std::erase_if(tensors,
                  [](auto& t) { return t.name == "model.layers.1.self_attn.k_norm.weight"; });
  });
  ExpectRefused(StatusCode::kInvalidArgument,
                {"tensor 'model.layers.1.self_attn.k_norm.weight' is missing"});
  Save(config_);
  const std::string extra(4, '\0');
  Change(file, [&](auto& tensors) { tensors.push_back({"visual.w", DType::kF32, {1}, extra}); });
  ExpectRefused(StatusCode::kInvalidArgument, {file + ": tensor 'visual.w' is not of this model"});
  Save(config_);
  Change(file, [&](auto& tensors) { tensors[1].dtype = DType::kI32; });
  ExpectRefused(StatusCode::kInvalidArgument, {"has dtype I32; allowed: F32, BF16, F16"});
}

// Old Llama files hold a table of frequencies for each layer.
TEST_F(WeightsFolder, TablesOfFrequenciesAreIgnored) {
  Save(Stored("llama", false, WeightType::kF32));
  const std::string table(16, '\xff');
  Change("model.safetensors", [&](auto& tensors) {
    tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {4}, table});
  });
  EXPECT_TRUE(LoadStatus().ok()) << LoadStatus().ToString();
}

TEST_F(WeightsFolder, ATiedHeadMayStandTwiceIfItIsTheSame) {
  Save(Stored("llama", true, WeightType::kBf16));
  const auto expected = LogitsOf(*LoadPackedModel(folder_.path(), {}).value());
  const auto add_head = [&](const std::function<void(std::string&)>& change) {
    Save(config_);
    std::string copy;
    Change("model.safetensors", [&](auto& tensors) {
      copy = std::string(tensors[0].data);
      change(copy);
      tensors.push_back({"lm_head.weight", DType::kBF16, tensors[0].shape, copy});
    });
  };
  add_head([](auto&) {});
  EXPECT_EQ(LogitsOf(*LoadPackedModel(folder_.path(), {}).value()), expected);
  add_head([](auto& bytes) { bytes.back() ^= 1; });
  ExpectRefused(StatusCode::kDataLoss, {"tensor 'lm_head.weight' differs from"});
  Save(config_);
  Change("model.safetensors", [&](auto& tensors) {
    tensors.push_back({"lm_head.weight", DType::kBF16, {1}, tensors[0].data.substr(0, 2)});
  });
  ExpectRefused(StatusCode::kInvalidArgument, {"'lm_head.weight' has shape [1]"});
}

TEST_F(WeightsFolder, MatricesOfSeveralTypesAreRefusedUnlessWidened) {
  Save(Stored("llama", false, WeightType::kF32));
  std::string narrow;
  Change("model.safetensors", [&](auto& tensors) {
    TensorView& down =
        *std::ranges::find(tensors, "model.layers.1.mlp.down_proj.weight", &TensorView::name);
    const auto info = ParameterList(config_);
    const auto& at = *std::ranges::find(info, down.name, &ParameterInfo::name);
    narrow = Narrow(WeightType::kBf16, std::span(flat_).subspan(at.offset, at.count));
    down.dtype = DType::kBF16;
    down.data = narrow;
  });
  EXPECT_THAT(LoadStatus().message(),
              HasSubstr("'model.layers.1.mlp.down_proj.weight' is bfloat16; allowed: float32"));
  EXPECT_TRUE(LoadStatus({.weight_type = WeightType::kF32}).ok());
  EXPECT_TRUE(LoadFlatWeights(folder_.path(), config_).ok());
}

// Norms and biases are fp32 to the engine whatever they are stored in.
TEST_F(WeightsFolder, VectorsMayHaveATypeOfTheirOwn) {
  Save(Stored("llama", true, WeightType::kBf16));
  std::vector<float> norm(40, 1.25f);
  Change("model.safetensors", [&](auto& tensors) {
    tensors.back().dtype = DType::kF32;
    tensors.back().data = {reinterpret_cast<const char*>(norm.data()), 160};
  });
  EXPECT_TRUE(LoadStatus().ok()) << LoadStatus().ToString();
  EXPECT_EQ(LoadFlatWeights(folder_.path(), config_)->back(), 1.25f);
}

TEST_F(WeightsFolder, TheStoredTypeIsThePolicysWhateverTheConfigurationSays) {
  Save(Stored("llama", true, WeightType::kBf16));
  ModelConfig other = config_;
  other.dtype = WeightType::kF32;
  ASSERT_TRUE(WriteFileAtomic(folder_ / "config.json", other.ToJson()).ok());
  const auto model = LoadPackedModel(folder_.path(), {}).value();
  EXPECT_EQ(model->config().dtype, WeightType::kBf16);
  EXPECT_EQ(model->weight_type(), WeightType::kBf16);
  EXPECT_THAT(LoadStatus({.weight_type = WeightType::kF16}).message(),
              HasSubstr("weight type is float16; allowed: bfloat16"));
}

TEST_F(WeightsFolder, ATokenizerLargerThanTheModelIsRefused) {
  Save(Stored("llama", true, WeightType::kF32));
  EXPECT_TRUE(LoadStatus({.valid_vocab = 37}).ok());
  EXPECT_THAT(LoadStatus({.valid_vocab = 38}).message(), HasSubstr("key 'vocab_size' is 37"));
}

// Offsets in the file are not always multiples of an element's size.
TEST_F(WeightsFolder, TensorsAtOddOffsetsAreRead) {
  for (WeightType type : kTypes) {
    Save(Stored("qwen3", false, type));
    const auto expected = LogitsOf(*LoadPackedModel(folder_.path(), {}).value());
    const std::string blob = ReadFile(folder_ / "model.safetensors").value();
    const auto length = LoadLittle<std::uint64_t>(blob.data());
    std::string odd;
    AppendLittle<std::uint64_t>(odd, length + 1);
    odd += blob.substr(8, length) + " " + blob.substr(8 + length);
    ASSERT_TRUE(WriteFileAtomic(folder_ / "model.safetensors", odd).ok());
    EXPECT_EQ(LogitsOf(*LoadPackedModel(folder_.path(), {}).value()), expected);
    EXPECT_EQ(LogitsOf(*LoadPackedModel(folder_.path(), {.weight_type = WeightType::kF32}).value()),
              expected);
  }
}

TEST_F(WeightsFolder, WithoutWeightsItSaysWhatIsMissing) {
  Save(Stored("llama", true, WeightType::kF32));
  std::filesystem::remove(folder_ / "model.safetensors");
  ExpectRefused(StatusCode::kNotFound, {"model.safetensors"});
  std::filesystem::remove(folder_ / "config.json");
  EXPECT_EQ(LoadStatus().code(), StatusCode::kNotFound);
  EXPECT_THAT(LoadStatus().message(), HasSubstr("config.json"));
}

class ShardedFolder : public WeightsFolder {
 protected:
  void SetUp() override {
    Save(Stored("llama", false, WeightType::kF32), 20000);
    first_ = WeightFiles().front();
  }
  void WriteIndex(const std::string& text) {
    ASSERT_TRUE(WriteFileAtomic(folder_ / kIndex, text).ok());
  }
  std::string Index() const { return ReadFile(folder_ / kIndex).value(); }
  static std::string Replaced(std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  }

  const std::string kIndex = "model.safetensors.index.json";
  std::string first_;
};

TEST_F(ShardedFolder, AMissingFileIsNamed) {
  std::filesystem::remove(folder_ / first_);
  ExpectRefused(StatusCode::kNotFound, {first_});
}

TEST_F(ShardedFolder, ADamagedFileIsNamed) {
  const std::string whole = ReadFile(folder_ / first_).value();
  ASSERT_TRUE(WriteFileAtomic(folder_ / first_, whole.substr(0, whole.size() - 1)).ok());
  ExpectRefused(StatusCode::kDataLoss, {first_});
}

TEST_F(ShardedFolder, ADamagedIndexIsNamed) {
  const std::string whole = Index();
  WriteIndex(whole.substr(0, whole.size() / 2));
  ExpectRefused(StatusCode::kDataLoss, {kIndex});
  WriteIndex("{}");
  ExpectRefused(StatusCode::kInvalidArgument, {kIndex, "key 'weight_map' is missing"});
  WriteIndex(R"({"weight_map": {"a": "x", "a": "y"}})");
  ExpectRefused(StatusCode::kDataLoss, {kIndex, "'a' stands twice"});
}

TEST_F(ShardedFolder, FilesOutsideTheFolderAreRefused) {
  for (const char* name : {"../model.safetensors", "/etc/passwd", "a/b.safetensors",
                           "a\\\\b.safetensors", "a\\u0000.safetensors", "tokenizer.json", ""}) {
    WriteIndex("{\"weight_map\": {\"model.norm.weight\": \"" + std::string(name) + "\"}}");
    ExpectRefused(StatusCode::kInvalidArgument,
                  {kIndex + ": tensor 'model.norm.weight' is in", "allowed: a .safetensors file"});
  }
  WriteIndex(R"({"weight_map": {"model.norm.weight": 5}})");
  ExpectRefused(StatusCode::kInvalidArgument, {"is in 5"});
}

TEST_F(ShardedFolder, TheIndexMustAgreeWithTheFiles) {
  const std::string whole = Index();
  WriteIndex(Replaced(whole, "\"model.norm.weight\"", "\"model.other.weight\""));
  ExpectRefused(StatusCode::kInvalidArgument, {kIndex, "'model.other.weight' is not in"});
  const std::string first = "\"model.embed_tokens.weight\": \"" + first_ + "\"";
  WriteIndex(Replaced(whole, first + ",", ""));
  EXPECT_FALSE(LoadStatus().ok());
  WriteIndex(Replaced(whole, first, "\"model.embed_tokens.weight\": \"" + WeightFiles()[1] + "\""));
  ExpectRefused(StatusCode::kInvalidArgument, {"'model.embed_tokens.weight' is not in"});
}

TEST_F(ShardedFolder, ATensorInTwoFilesIsRefused) {
  const std::string norm(160, '\0');
  Change(first_, [&](auto& tensors) {
    tensors.push_back({"model.norm.weight", DType::kF32, {40}, norm});
  });
  ExpectRefused(StatusCode::kInvalidArgument, {"'model.norm.weight' is in", "as well"});
}

}  // namespace
}  // namespace thresher::model
