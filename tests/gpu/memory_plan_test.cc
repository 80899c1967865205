// What device_plan.h and training_plan.h foresee is within 15 % of what an engine and a leaf take.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "actor/engine/engine.h"
#include "common/gpu/device.h"
#include "common/model/cuda/cuda_runner.h"
#include "common/model/cuda/cuda_training_pass.h"
#include "common/model/cuda/device_parameters.h"
#include "common/model/cuda/device_weights.h"
#include "common/model/training_plan.h"
#include "kernels/cuda/gemm_bf16.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/model/small_model.h"
#ifdef THRESHER_CUDA_SIM
#include "tests/support/cuda_sim/cuda_sim.h"
#endif

namespace thresher::model {
namespace {

// A real device gives memory in pieces of 2 MiB, so its shapes are large enough for that not to be
// seen.
#ifdef THRESHER_CUDA_SIM
constexpr int kScale = 1;
std::size_t UsedNow() { return cuda_sim::UsedBytes(); }
#else
constexpr int kScale = 12;
std::size_t UsedNow() {
  std::size_t free_bytes = 0, total_bytes = 0;
  EXPECT_EQ(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
  return total_bytes - free_bytes;
}
#endif

// The most that was taken since it was made.
class Height {
 public:
  void Look() { height_ = std::max(height_, UsedNow() - before_); }
  std::size_t bytes() const { return height_; }

 private:
  const std::size_t before_ = UsedNow();
  std::size_t height_ = 0;
};

struct Shape {
  const char* family;
  bool tied;
  int layers, width, heads, kv_heads, head_dim, ffn, vocab, context;
};
// More of the head, of the layers, of keys and values.
constexpr Shape kShapes[] = {{"qwen2", true, 2, 64, 4, 2, 16, 160, 4000, 128},
                             {"qwen3", false, 6, 96, 6, 2, 16, 256, 300, 256},
                             {"llama", false, 3, 64, 4, 4, 32, 96, 700, 2048}};

ModelConfig ConfigOf(const Shape& shape, DeviceKernelSet set) {
  ModelConfig config = SmallConfig(shape.family, shape.tied);
  config.layers = shape.layers;
  config.width = shape.width * kScale;
  config.heads = shape.heads * kScale;
  config.kv_heads = shape.kv_heads * kScale;
  config.head_dim = shape.head_dim;
  config.ffn_width = shape.ffn * kScale;
  config.vocab = shape.vocab * kScale;
  config.context = shape.context;
  if (set == DeviceKernelSet::kBf16) config.dtype = kernels::WeightType::kBf16;
  return config;
}

// Of the whole, and of what remains of the set's fixed scratch memory.
void ExpectForeseen(std::size_t planned, const Height& height, DeviceKernelSet set) {
  const std::size_t fixed =
      set == DeviceKernelSet::kBf16 ? kernels::cuda::kBf16ScratchBytes : std::size_t{0};
  ASSERT_GT(height.bytes(), fixed);
  const double taken = static_cast<double>(height.bytes() - fixed);
  const double foreseen = static_cast<double>(planned) - static_cast<double>(fixed);
  ::testing::Test::RecordProperty("foreseen_by_taken", std::to_string(foreseen / taken));
  EXPECT_NEAR(foreseen / taken, 1.0, 0.15)
      << "foreseen " << planned << ", taken " << height.bytes();
}

std::shared_ptr<const PackedModel> Pack(const ModelConfig& config, std::uint64_t seed,
                                        bool with_backward) {
  return PackedModel::Make(config, InitialWeights(config, seed, 0.02), config.vocab, with_backward);
}

class MemoryPlan : public ::testing::TestWithParam<DeviceKernelSet> {
 protected:
  void SetUp() override {
    const auto device = gpu::OpenDevice(0);
    if (!device.ok()) GTEST_SKIP() << device.status().message();
    if (GetParam() == DeviceKernelSet::kBf16 && device->major != 9) {
      GTEST_SKIP() << "compute capability is not 9.0";
    }
  }

  static actor::GenerationRequest Request(const ModelConfig& config, std::uint64_t item,
                                          int prompt) {
    actor::GenerationRequest request;
    request.id.item = item;
    request.prompt = RandomTokens(item, prompt, config.vocab);
    request.sampling.max_new_tokens = 3;
    return request;
  }
};

TEST_P(MemoryPlan, ForeseesWhatAnEngineTakes) {
  for (const Shape& shape : kShapes) {
    SCOPED_TRACE(shape.family);
    // The simulated tensor cores are slow.
    if (GetParam() == DeviceKernelSet::kBf16 && &shape == &kShapes[1]) continue;
    const ModelConfig config = ConfigOf(shape, GetParam());
    CudaRunnerOptions options;
    options.set = GetParam();
    options.slots = 6 * kScale;
    options.max_rows = options.slots + 80 * kScale;
    options.self_test_batches = {1};
    Height height;
    auto runner = MakeCudaRunner(config, options);
    ASSERT_TRUE(runner.ok()) << runner.status().ToString();
    actor::EngineOptions engine_options;
    engine_options.max_batch = options.slots;
    engine_options.prefill_chunk = options.max_rows - options.slots;
    actor::Engine engine(config, engine_options, std::move(runner).value());
    for (std::uint32_t version = 0; version < 2; ++version) {  // the second beside the first
      ASSERT_TRUE(engine.SetWeights(Pack(config, version, false), {0, version}).ok());
      height.Look();
      for (std::uint64_t item = 0; item < 2; ++item) {
        ASSERT_TRUE(engine.Submit(Request(config, item, 20 + 30 * static_cast<int>(item))).ok());
      }
      while (engine.load() > 0) {
        ASSERT_TRUE(engine.Step().ok());
        height.Look();
      }
    }
    const auto plan =
        PlanDevice(config, {options.set, options.slots, options.max_rows, 0}, std::size_t{1} << 40);
    ASSERT_TRUE(plan.ok());
    // What the driver takes for recordings shows only in part: few sizes occur here.
    ExpectForeseen(plan->total() - plan->graphs, height, GetParam());
  }
}

TEST_P(MemoryPlan, ForeseesWhatALeafTakes) {
  for (const Shape& shape : kShapes) {
    const ModelConfig config = ConfigOf(shape, GetParam());
    TrainRows rows;
    const std::vector<int> lengths = {40, 21, 60, 33};
    for (int copy = 0; copy < kScale; ++copy) {
      for (int length : lengths) {
        const auto tokens = RandomTokens(7, length + 1, config.vocab);
        for (int i = 0; i < length; ++i) {
          rows.token.push_back(tokens[static_cast<std::size_t>(i)]);
          rows.target.push_back(tokens[static_cast<std::size_t>(i) + 1]);
          rows.position.push_back(i);
          rows.temperature.push_back(1.0f);
        }
      }
    }
    struct Way {
      bool recompute, reference;
    };
    constexpr Way kWays[] = {{true, true}, {false, false}, {false, true}};
    for (const Way& way : kWays) {
      // A simulated device is slow: two ways for each shape, and one with tensor cores.
      const auto turn = (&way - kWays + (&shape - kShapes)) % 3;
      if (turn >= (GetParam() == DeviceKernelSet::kBf16 ? 1 : 2)) continue;
      SCOPED_TRACE(std::string(shape.family) + (way.recompute ? " recomputed" : "") +
                   (way.reference ? " with reference" : ""));
      TrainingPlanOptions plan{GetParam(), static_cast<std::int64_t>(rows.size()),
                               static_cast<std::int64_t>(lengths.size()) * kScale, way.recompute,
                               way.reference};
      CudaTrainingOptions options;
      options.set = GetParam();
      options.self_test_batches = {1};
      Height height;
      auto pass = MakeCudaTrainingPass(config, options);
      ASSERT_TRUE(pass.ok()) << pass.status().ToString();
      std::vector<float> gradient(GradientSize(config), 0.0f);
      ASSERT_TRUE((*pass)->BeginLeaf(Pack(config, 1, true), gradient).ok());
      height.Look();
      if (plan.reference) {
        ASSERT_TRUE((*pass)->ReferenceLogProbs(Pack(config, 2, false), rows).ok());
        height.Look();
      }
      ASSERT_TRUE((*pass)->LogProbs(rows, plan.recompute).ok());
      height.Look();
      ASSERT_TRUE((*pass)->Backward(std::vector<float>(rows.size(), 0.1f), {}).ok());
      height.Look();
      ASSERT_TRUE((*pass)->EndLeaf().ok());
      ExpectForeseen(PlanTraining(config, plan).total(), height, GetParam());
    }
  }
}

// The bytes of a matrix of bf16 rows.
std::vector<std::uint16_t> Fetched(const DeviceMatrix& matrix) {
  std::vector<std::uint16_t> values(static_cast<std::size_t>(matrix.n * matrix.rows.ld));
  EXPECT_EQ(cudaMemcpy(values.data(), matrix.rows.data, values.size() * sizeof(std::uint16_t),
                       cudaMemcpyDeviceToHost),
            cudaSuccess);
  return values;
}

TEST(StagingOfWeights, AMatrixMayBeLargerThanTheMemoryThatItPassesThrough) {
  const auto device = gpu::OpenDevice(0);
  if (!device.ok()) GTEST_SKIP() << device.status().message();
  ModelConfig config = SmallConfig("qwen2", false);
  config.dtype = kernels::WeightType::kBf16;
  config.vocab = 300;  // ten panels, the last one in part
  const auto stream = gpu::MakeStream().value();
  const auto model = Pack(config, 4, false);
  const std::size_t whole = WeightStagingBytes(config, DeviceKernelSet::kBf16);
  const std::size_t panel =
      kernels::PackedBytes(config.dtype, kernels::kGemmPanel,
                           std::max({config.width, config.ffn_width, config.q_width()}));
  std::vector<std::vector<std::uint16_t>> matrices[3];
  for (std::size_t way = 0; way < 3; ++way) {
    const std::size_t bytes = way == 0 ? whole : way * panel;
    const auto staging = DeviceArray<std::byte>::Make(bytes).value();
    const auto weights = DeviceWeights::Make(config, DeviceKernelSet::kBf16, false).value();
    ASSERT_TRUE(weights->Upload(PackedWeights::Of(*model), staging, stream.get()).ok());
    ASSERT_TRUE(gpu::Await(stream, "copy of weights").ok());
    for (int layer = 0; layer < config.layers; ++layer) {
      const DeviceLayer& of = weights->layer(layer);
      for (const DeviceMatrix* matrix : {&of.qkv, &of.o, &of.gate_up, &of.down}) {
        matrices[way].push_back(Fetched(*matrix));
      }
    }
    matrices[way].push_back(Fetched(weights->embedding()));
    matrices[way].push_back(Fetched(weights->head()));
  }
  EXPECT_EQ(matrices[1], matrices[0]);
  EXPECT_EQ(matrices[2], matrices[0]);
}

TEST(StagingOfWeights, IsBounded) {
  ModelConfig config = SmallConfig("llama", false);
  config.dtype = kernels::WeightType::kBf16;
  config.vocab = 128000, config.width = 4096, config.ffn_width = 14336;
  EXPECT_LE(WeightStagingBytes(config, DeviceKernelSet::kBf16), std::size_t{32} << 20);
  EXPECT_EQ(WeightStagingBytes(config, DeviceKernelSet::kFp32), 0u);
}

#ifdef THRESHER_CUDA_SIM
TEST(TrainingMemory, APassUnderTheReferenceTakesTheRoomOfOneLayer) {
  const auto taken_with = [](int layers) {
    ModelConfig config = SmallConfig("qwen3", true);
    config.layers = layers;
    const auto rows = [&](int length) {
      const auto tokens = RandomTokens(7, length + 1, config.vocab);
      TrainRows out;
      out.token.assign(tokens.begin(), tokens.end() - 1);
      out.target.assign(tokens.begin() + 1, tokens.end());
      out.temperature.assign(static_cast<std::size_t>(length), 1.0f);
      for (int i = 0; i < length; ++i) out.position.push_back(i);
      return out;
    };
    auto pass = MakeCudaTrainingPass(config, {}).value();
    const auto reference = Pack(config, 2, false);
    std::vector<float> gradient(GradientSize(config), 0.0f);
    EXPECT_TRUE(pass->BeginLeaf(Pack(config, 1, true), gradient).ok());
    EXPECT_TRUE(pass->LogProbs(rows(60), false).ok());
    EXPECT_TRUE(pass->ReferenceLogProbs(reference, rows(1)).ok());  // its weights are there now
    const std::size_t before = UsedNow();
    EXPECT_TRUE(pass->ReferenceLogProbs(reference, rows(60)).ok());
    return UsedNow() - before;
  };
  const std::size_t taken = taken_with(2);
  EXPECT_GT(taken, 0u);
  EXPECT_EQ(taken_with(7), taken);
}
#endif

TEST_P(MemoryPlan, ForeseesParametersOnTheDevice) {
  const ModelConfig config = ConfigOf(kShapes[0], GetParam());
  TrainRows rows;
  const auto tokens = RandomTokens(7, 61, config.vocab);
  for (int copy = 0; copy < kScale; ++copy) {
    rows.token.insert(rows.token.end(), tokens.begin(), tokens.end() - 1);
    rows.target.insert(rows.target.end(), tokens.begin() + 1, tokens.end());
    for (int i = 0; i < 60; ++i) rows.position.push_back(i);
  }
  rows.temperature.assign(rows.token.size(), 1.0f);
  const std::vector<float> dlogprob(rows.size(), 0.1f);
  for (const int leaves : {1, 4}) {
    SCOPED_TRACE(leaves);
    TrainingPlanOptions plan{GetParam(), static_cast<std::int64_t>(rows.size()), kScale, true};
    plan.resident_leaves = leaves;
    plan.ranks = true;
    CudaTrainingOptions options;
    options.set = GetParam();
    options.self_test_batches = {1};
    const TrainingPlan foreseen = PlanTraining(config, plan);
    Height height;
    auto parameters = DeviceParameters::Make(config, {});
    ASSERT_TRUE(parameters.ok()) << parameters.status().ToString();
    const std::vector<float> weights = InitialWeights(config, 1, 0.02);
    const std::vector<float> moments(weights.size(), 0.1f);
    ASSERT_TRUE((*parameters)->Set(weights, moments, moments).ok());
    height.Look();
    EXPECT_NEAR(static_cast<double>(foreseen.parameters) / static_cast<double>(height.bytes()), 1.0,
                0.05);
    options.parameters = *parameters;
    auto pass = MakeCudaTrainingPass(config, options);
    ASSERT_TRUE(pass.ok()) << pass.status().ToString();
    ASSERT_TRUE((*parameters)->BeginSum(static_cast<std::size_t>(leaves)).ok());
    for (int leaf = 0; leaf < leaves; ++leaf) {
      ASSERT_TRUE((*pass)->BeginLeaf(nullptr, {}).ok());
      ASSERT_TRUE((*pass)->LogProbs(rows, true).ok());
      ASSERT_TRUE((*pass)->Backward(dlogprob, {}).ok());
      ASSERT_TRUE((*pass)->EndLeaf().ok());
    }
    ASSERT_TRUE((*parameters)->OnDevice().ok());
    height.Look();
    ASSERT_TRUE((*parameters)->SquareSums(65536).ok());
    ASSERT_TRUE((*parameters)->Step({}).ok());
    ASSERT_TRUE((*parameters)->ReadPublished().ok());
    height.Look();
    ExpectForeseen(foreseen.total(), height, GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, MemoryPlan,
                         ::testing::Values(DeviceKernelSet::kFp32, DeviceKernelSet::kBf16),
                         [](const auto& info) {
                           return info.param == DeviceKernelSet::kFp32 ? "Fp32" : "Bf16";
                         });

}  // namespace
}  // namespace thresher::model
