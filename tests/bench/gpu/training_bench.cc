// A leaf of the learner, forward and backward: 16,384 tokens in micro-batches, by the wall clock.
// The gradient's way to the host at the end of the leaf is part of it.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "common/model/cuda/cuda_training_pass.h"
#include "common/model/weights.h"
#include "tests/bench/gpu/session.h"

namespace thresher::bench {
namespace {

constexpr int kLeafTokens = 16384, kMicroBatch = 4096, kSequence = 1024;
constexpr int kRounds = 2;

model::ModelConfig ConfigOf(const BenchShape& shape) {
  model::ModelConfig config;
  config.family = "qwen2";
  config.qkv_bias = true;
  config.dtype = kernels::WeightType::kBf16;
  config.vocab = static_cast<std::int32_t>(shape.vocab);
  config.layers = static_cast<std::int32_t>(shape.layers);
  config.width = static_cast<std::int32_t>(shape.width);
  config.heads = static_cast<std::int32_t>(shape.heads);
  config.kv_heads = static_cast<std::int32_t>(shape.kv_heads);
  config.head_dim = static_cast<std::int32_t>(shape.head_dim);
  config.ffn_width = static_cast<std::int32_t>(shape.ffn_width);
  config.context = kSequence;
  config.tied_embeddings = true;
  config.bos_id = 1;
  config.eos_ids = {2};
  config.pad_id = 0;
  return config;
}

// Quickly drawn: uniform matrices, vectors of ones.
std::vector<float> WeightsOf(const model::ModelConfig& config) {
  std::vector<float> flat(model::ParameterCount(config), 1.0f);
  std::uint32_t state = 1;
  for (const model::ParameterInfo& info : model::ParameterList(config)) {
    if (info.shape.size() == 1) continue;
    for (std::size_t i = 0; i < info.count; ++i) {
      state = state * 1664525u + 1013904223u;
      flat[info.offset + i] = 0.02f * (static_cast<float>(state >> 8) * 0x1p-23f - 1.0f);
    }
  }
  return flat;
}

model::TrainRows RowsOf(const model::ModelConfig& config) {
  model::TrainRows rows;
  for (std::int32_t i = 0; i < kMicroBatch; ++i) {
    rows.token.push_back(i * 7919 % config.vocab);
    rows.target.push_back((i + 1) * 7919 % config.vocab);
    rows.position.push_back(i % kSequence);
    rows.temperature.push_back(1.0f);
  }
  return rows;
}

void Need(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "gpu_bench: %s\n", status.message().c_str());
  std::exit(1);
}

double LeafSeconds(model::TrainingPass& pass,
                   const std::shared_ptr<const model::PackedModel>& policy,
                   const model::TrainRows& rows, std::vector<float>& gradient) {
  const std::vector<float> dlogprob(rows.size(), 1e-3f);
  gradient.assign(gradient.size(), 0.0f);
  const auto start = std::chrono::steady_clock::now();
  Need(pass.BeginLeaf(policy, gradient));
  for (int done = 0; done < kLeafTokens; done += kMicroBatch) {
    Need(pass.LogProbs(rows, /*recompute=*/true).status());
    Need(pass.Backward(dlogprob, {}));
  }
  Need(pass.EndLeaf());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

nlohmann::json BenchTraining(Session& session, const BenchShape& shape) {
  const DeviceLimits limits = MeasureLimits(session);
  const model::ModelConfig config = ConfigOf(shape);
  const auto policy = model::PackedModel::Make(config, WeightsOf(config), config.vocab,
                                               /*with_backward=*/true);
  model::CudaTrainingOptions options;
  options.set = model::DeviceKernelSet::kBf16;
  auto pass = model::MakeCudaTrainingPass(config, options);
  Need(pass.status());
  const model::TrainRows rows = RowsOf(config);
  std::vector<float> gradient(model::GradientSize(config));
  (void)LeafSeconds(**pass, policy, rows, gradient);
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) {
    seconds.push_back(LeafSeconds(**pass, policy, rows, gradient));
  }
  const std::int64_t q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
  const std::int64_t layer = shape.width * (2 * q + 2 * kv + 3 * shape.ffn_width);
  const auto weights = static_cast<double>(shape.layers * layer + shape.vocab * shape.width);
  // 6 flop for every weight of every product and token: what is computed again does not count.
  nlohmann::json row = RateOf(std::string(shape.name) + ", 16,384 tokens", "TFLOP/s",
                              6 * weights * kLeafTokens / 1e12, seconds);
  if (limits.matrix_tflops > 0) AddLimit(row, {"TFLOP/s", limits.matrix_tflops});
  return {{"results", nlohmann::json::array({row})}};
}

}  // namespace thresher::bench
