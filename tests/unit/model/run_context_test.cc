#include "common/model/run_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/data/files.h"
#include "common/model/kernel_choice.h"
#include "tests/unit/data/temp_folder.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using kernels::KernelSet;
using kernels::WeightType;
using ::testing::HasSubstr;

constexpr char kAlphabet[] = " *+,-/0123456789:;=";

class Runs : public ::testing::Test {
 protected:
  void TearDown() override {
    kernels::SetKernelSet(KernelSet::kFp32);
    kernels::SetCpuVariant(kernels::BestCpuVariant());
  }

  Result<RunContext> Create(const std::vector<std::string>& settings) {
    return CreateRun(folder_ / std::to_string(next_++), ParseConfig("", "test", settings),
                     kAlphabet);
  }

  TempFolder folder_;
  int next_ = 0;
};

TEST_F(Runs, AutoIsReplacedByTheSetItStandsForHere) {
  const auto full = Create({});
  ASSERT_TRUE(full.ok()) << full.status().ToString();
  EXPECT_EQ(full->config.engine.kernel_set, "cpu-fp32-v1");
  EXPECT_EQ(full->identity.kernel_set, "cpu-fp32-v1");
  EXPECT_EQ(full->identity.weight_type, "float32");
  EXPECT_THAT(ReadFile(full->folder / "config.yaml").value(), HasSubstr("cpu-fp32-v1"));
  const auto half = Create({"model.dtype=bfloat16"});
  ASSERT_TRUE(half.ok()) << half.status().ToString();
  EXPECT_EQ(half->model.dtype, WeightType::kBf16);
  EXPECT_EQ(half->identity.weight_type, "bfloat16");
  EXPECT_EQ(half->config.engine.kernel_set,
            kernels::KernelSetName(FastestKernelSet(WeightType::kBf16)));
}

TEST_F(Runs, EveryProcessThatOpensARunComputesInItsKernelSet) {
  const auto run = Create({"model.dtype=bfloat16", "engine.kernel_set=cpu-bf16amx-v1"});
  ASSERT_TRUE(run.ok()) << run.status().ToString();
  EXPECT_EQ(kernels::ActiveKernelSet(), KernelSet::kBf16Amx);
  EXPECT_EQ(run->identity.kernel_set, "cpu-bf16amx-v1");
  kernels::SetKernelSet(KernelSet::kFp32);
  const auto opened = OpenRun(run->folder);
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  EXPECT_EQ(kernels::ActiveKernelSet(), KernelSet::kBf16Amx);
  EXPECT_EQ(opened->identity.Hash(), run->identity.Hash());
  // Going on with `auto` is going on with what the run has; another name is another run.
  const Config again = WithKernelSetOf(opened->config, ParseConfig("", "test", {}));
  EXPECT_EQ(again.engine.kernel_set, "cpu-bf16amx-v1");
  const Config other = WithKernelSetOf(
      opened->config, ParseConfig("", "test", {"engine.kernel_set=cpu-bf16dot-v1"}));
  EXPECT_EQ(other.engine.kernel_set, "cpu-bf16dot-v1");
}

TEST_F(Runs, DataIsInTheManifestAndItsContentInTheIdentity) {
  const auto create = [&](const std::vector<DataHash>& data) {
    return CreateRun(folder_ / std::to_string(next_++), ParseConfig("", "test", {}), kAlphabet,
                     data)
        .value();
  };
  const std::vector<DataHash> data = {{"supervised.file", "a b.jsonl", 3, {1, 2}},
                                      {"supervised.eval_file", "c", 1, {3, 4}}};
  const RunContext run = create(data);
  EXPECT_EQ(run.data, data);
  EXPECT_EQ(OpenRun(run.folder)->identity.Hash(), run.identity.Hash());
  auto moved = data, changed = data, heavier = data;
  moved[0].path = "elsewhere";
  changed[1].hash.low ^= 1;
  heavier[0].weight = 4;
  EXPECT_EQ(create(moved).identity.task, run.identity.task);
  EXPECT_NE(create(changed).identity.task, run.identity.task);
  EXPECT_NE(create(heavier).identity.task, run.identity.task);
  EXPECT_NE(create({}).identity.task, run.identity.task);
}

TEST_F(Runs, AManifestWithDataThatIsNoneIsRefusedByName) {
  const auto run = CreateRun(folder_ / "damaged", ParseConfig("", "test", {}), kAlphabet,
                             {{"supervised.file", "a", 1, {1, 2}}});
  ASSERT_TRUE(run.ok());
  const auto file = run->folder / "manifest.json";
  const std::string text = ReadFile(file).value();
  for (const auto& [from, to] :
       std::vector<std::pair<std::string, std::string>>{{"\"weight\": 1", "\"weight\": -1"},
                                                        {"\"data\": [", "\"data\": [7, "},
                                                        {"\"hash\": \"", "\"hash\": \"x"},
                                                        {"\"hash\":", "\"other\":"}}) {
    std::string damaged = text;
    ASSERT_NE(damaged.find(from), std::string::npos) << from;
    damaged.replace(damaged.find(from), from.size(), to);
    ASSERT_TRUE(WriteFileAtomic(file, damaged).ok());
    EXPECT_THAT(OpenRun(run->folder).status().message(), HasSubstr("manifest.json: data[0]")) << to;
  }
}

TEST_F(Runs, TheKernelSetIsPartOfTheNumerics) {
  const auto one = Create({"model.dtype=bfloat16", "engine.kernel_set=cpu-fp32-v1"});
  const auto two = Create({"model.dtype=bfloat16", "engine.kernel_set=cpu-bf16dot-v1"});
  EXPECT_NE(one->identity.Hash(), two->identity.Hash());
  EXPECT_THAT(one->identity.Difference(two->identity), HasSubstr("cpu-bf16dot-v1"));
}

TEST_F(Runs, Qwen3HasNormsAndNoBiases) {
  const auto run = Create({"model.family=qwen3"});
  ASSERT_TRUE(run.ok()) << run.status().ToString();
  EXPECT_TRUE(run->model.qk_norm());
  EXPECT_FALSE(run->model.qkv_bias);
}

TEST_F(Runs, FastestIsNativeAndOfBf16WeightsOnly) {
  EXPECT_EQ(FastestKernelSet(WeightType::kF32), KernelSet::kFp32);
  EXPECT_EQ(FastestKernelSet(WeightType::kF16), KernelSet::kFp32);
  ForEachVariant([](kernels::CpuVariant variant) {
    const KernelSet fastest = FastestKernelSet(WeightType::kBf16);
    EXPECT_TRUE(kernels::KernelSetNative(fastest)) << kernels::CpuVariantName(variant);
    if (variant == kernels::CpuVariant::kPortable) {
      EXPECT_EQ(fastest, KernelSet::kFp32);
    }
    if (variant == kernels::CpuVariant::kAvx512Bf16) {
      EXPECT_EQ(fastest, KernelSet::kBf16Dot);
    }
    if (variant == kernels::CpuVariant::kAmx) {
      EXPECT_EQ(fastest, KernelSet::kBf16Amx);
    }
  });
}

TEST_F(Runs, NamesThatCannotBeChosenAreRefusedWithThoseThatCan) {
  const Status set = ChooseKernelSet("cpu-fp8-v1", "--kernel-set");
  EXPECT_EQ(set.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(set.message(), HasSubstr("--kernel-set is cpu-fp8-v1; allowed: auto, cpu-fp32-v1, "
                                       "cpu-bf16dot-v1, cpu-bf16amx-v1"));
  const Status variant = ChooseCpuVariant("abacus", "engine.kernels");
  EXPECT_EQ(variant.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(variant.message(), HasSubstr("engine.kernels is abacus; allowed on this processor: "
                                           "auto, portable"));
  for (kernels::CpuVariant known : kernels::kCpuVariants) {
    const Status chosen = ChooseCpuVariant(kernels::CpuVariantName(known), "engine.kernels");
    EXPECT_EQ(chosen.code(),
              kernels::CpuVariantAvailable(known) ? StatusCode::kOk : StatusCode::kInvalidArgument);
    if (chosen.ok()) {
      EXPECT_EQ(kernels::ActiveCpuVariant(), known);
    }
  }
  EXPECT_TRUE(ChooseCpuVariant("auto", "engine.kernels").ok());
  EXPECT_EQ(kernels::ActiveCpuVariant(), kernels::BestCpuVariant());
}

}  // namespace
}  // namespace thresher::model
