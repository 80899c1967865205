#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "common/model/lora.h"
#include "tests/parity/model/oracle.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using torch::Tensor;

constexpr int kNoisyRuns = 4;
constexpr float kTemperature = 0.75f;
// How much farther than the oracle's noisy runs our result may lie: the noise stands for the
// roundings of the forward pass only, and the backward pass has as many again. (Measured: 0.05 to
// 0.6.)
constexpr double kAllowance = 2;

struct Case {
  std::string name;
  std::string family;
  bool tied;
  int width, heads, kv_heads, head_dim, ffn, layers;
};

const Case kCases[] = {
    {"LlamaTied", "llama", true, 96, 6, 2, 16, 384, 3},
    {"LlamaUntied", "llama", false, 40, 6, 3, 8, 56, 2},
    {"Llama3Untied", "llama3", false, 64, 4, 2, 32, 150, 2},
    {"Qwen3Tied", "qwen3", true, 64, 4, 2, 32, 200, 2},
    {"Qwen3Untied", "qwen3", false, 40, 6, 3, 16, 130, 3},
    {"Qwen2Tied", "qwen2", true, 64, 4, 1, 32, 200, 2},
    {"Qwen2Untied", "qwen2", false, 72, 4, 4, 16, 130, 2},
};

// What is compared: logits, and the gradient of a weighted sum of log-probabilities and entropies.
struct Outcome {
  Tensor logits;                           // float64 [T, V], all sequences
  std::map<std::string, Tensor> gradient;  // float64
};

class ModelParity : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    torch::manual_seed(1);
    torch::set_num_threads(1);
    const Case& wanted = GetParam();
    config_ = SmallConfig(wanted.family, wanted.tied);
    config_.width = wanted.width;
    config_.heads = wanted.heads;
    config_.kv_heads = wanted.kv_heads;
    config_.head_dim = wanted.head_dim;
    config_.ffn_width = wanted.ffn;
    config_.layers = wanted.layers;
    // Signals keep their size from layer to layer: neither drowned nor chaotic.
    flat_ = LivelyWeights(config_, 5, 1.5 / std::sqrt(config_.width));
    for (int length : {130, 17, 1}) {
      tokens_.push_back(
          RandomTokens(static_cast<std::uint64_t>(length), length + 1, config_.vocab));
      pages_.push_back(PageTable(next_page_, 1, length));
      next_page_ += static_cast<int>(pages_.back().size());
      Append(tokens_.back(), 0, length, pages_.back(), rows_);
      targets_.insert(targets_.end(), tokens_.back().begin() + 1, tokens_.back().end());
    }
    for (std::int32_t n : RandomTokens(99, rows_.rows(), 1000)) weights_.push_back(n / 500.0f - 1);
    for (std::int32_t n : RandomTokens(98, rows_.rows(), 1000)) {
      entropy_weights_.push_back(n / 500.0f - 1);
    }
  }

  // Logits of all rows; the gradient of the weighted sum is in the oracle's leaves.
  Tensor Differentiate(const Oracle& oracle) const {
    std::vector<Tensor> logits;
    for (const auto& sequence : tokens_) {
      const std::vector<std::int64_t> ids(sequence.begin(), sequence.end() - 1);
      logits.push_back(oracle.Logits(torch::tensor(ids)));
    }
    const Tensor all = torch::cat(logits);
    const Tensor z = all / static_cast<double>(kTemperature);
    const std::vector<std::int64_t> ids(targets_.begin(), targets_.end());
    const Tensor log_p = torch::log_softmax(z, -1);
    const Tensor logprob = log_p.gather(1, torch::tensor(ids).unsqueeze(1)).squeeze(1);
    const Tensor entropy = -(log_p.exp() * log_p).sum(-1);
    const Tensor weights = torch::tensor(weights_).to(torch::kFloat64);
    const Tensor entropy_weights = torch::tensor(entropy_weights_).to(torch::kFloat64);
    (logprob * weights + entropy * entropy_weights).sum().backward();
    return all.detach();
  }

  Outcome Exact(bool noise) const {
    const Oracle oracle(config_, flat_, noise);
    Outcome outcome;
    outcome.logits = Differentiate(oracle);
    for (const auto& [name, leaf] : oracle.parameters()) outcome.gradient[name] = leaf.grad();
    return outcome;
  }

  Outcome Ours() const {
    std::vector<float> gradient;
    Outcome outcome;
    outcome.logits = Ours(flat_, gradient);
    for (const ParameterInfo& info : ParameterList(config_)) {
      outcome.gradient[info.name] = Part(gradient, info);
    }
    return outcome;
  }

  // Logits under these weights, and the gradient with regard to them.
  Tensor Ours(const std::vector<float>& flat, std::vector<float>& gradient) const {
    const auto model = PackedModel::Make(config_, flat, 0, true);
    const WorkspacePtr workspace = NewWorkspace();
    const TapePtr tape = NewTape();
    KvCache cache(config_, next_page_);
    std::vector<float> hidden(targets_.size() * static_cast<std::size_t>(config_.width));
    Forward(*model, rows_, cache, *workspace, hidden, tape.get());
    const std::vector<float> temperature(targets_.size(), kTemperature);
    const auto result = LogProb(*model, hidden, targets_, temperature, *workspace);
    std::vector<float> dhidden(hidden.size());
    gradient.assign(GradientSize(config_), 0.0f);
    LogProbBackward(*model, hidden, targets_, temperature, result, weights_, entropy_weights_,
                    *workspace, dhidden, gradient);
    Backward(*model, rows_, *tape, dhidden, *workspace, gradient);
    FoldTiedGradient(config_, gradient);
    return Doubles(Logits(*model, hidden), {rows_.rows(), config_.vocab});
  }

  static Tensor Part(const std::vector<float>& values, const ParameterInfo& info) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(info.offset);
    return Doubles({first, first + static_cast<std::ptrdiff_t>(info.count)}, info.shape);
  }

  static Tensor Doubles(const std::vector<float>& values, std::vector<std::int64_t> shape) {
    return torch::tensor(values).view(shape).to(torch::kFloat64);
  }

  static double Distance(const Tensor& a, const Tensor& b) {
    return (a - b).abs().max().item<double>();
  }

  ModelConfig config_;
  std::vector<float> flat_, weights_, entropy_weights_;
  std::vector<std::vector<std::int32_t>> tokens_, pages_;
  std::vector<std::int32_t> targets_;
  RowBatch rows_;
  int next_page_ = 0;
};

TEST_P(ModelParity, LogitsAndGradientsAreWithinFloat32RoundingOfFloat64) {
  const Outcome exact = Exact(false), ours = Ours();
  double logits_bound = 0;
  std::map<std::string, double> gradient_bound;
  for (int run = 0; run < kNoisyRuns; ++run) {
    const Outcome noisy = Exact(true);
    logits_bound = std::max(logits_bound, Distance(noisy.logits, exact.logits));
    for (const auto& [name, gradient] : noisy.gradient) {
      auto& bound = gradient_bound[name];
      bound = std::max(bound, Distance(gradient, exact.gradient.at(name)));
    }
  }
  const double size = exact.logits.abs().max().item<double>();
  ASSERT_GT(size, 1.0);
  // The bound itself must be sharp, or nothing is compared: far below a wrong term's effect.
  EXPECT_LT(kAllowance * logits_bound, 1e-4 * size);
  EXPECT_LE(Distance(ours.logits, exact.logits), kAllowance * logits_bound);
  for (const auto& [name, gradient] : exact.gradient) {
    const double largest = gradient.abs().max().item<double>();
    ASSERT_GT(largest, 1e-2) << name;
    EXPECT_LT(kAllowance * gradient_bound[name], 1e-3 * largest) << name;
    EXPECT_LE(Distance(ours.gradient.at(name), gradient), kAllowance * gradient_bound[name])
        << name;
  }
  std::printf("logits up to %.1f: error %.2g, bound %.2g\n", size,
              Distance(ours.logits, exact.logits), kAllowance * logits_bound);
}

// Adapters of which autograd knows W + s (B A), in float64. Their gradients are sums of those of
// the merged matrices, whose noise the test above derives; measured: up to 5e-6 of the largest
// element.
TEST_P(ModelParity, GradientsOfAdaptersAreThoseOfAutograd) {
  LoraConfig options;
  options.rank = 5;
  options.alpha = 8;
  options.targets = "all-linear";
  const Lora lora = Lora::Make(options, config_, {}).value();
  std::vector<float> adapters = lora.Initial(3), merged = flat_;
  const auto noise = RandomTokens(97, static_cast<int>(lora.count()), 1000);
  for (std::size_t i = 0; i < adapters.size(); ++i) adapters[i] += (noise[i] - 500) / 5e3f;
  const std::vector<float> base = lora.BaseOf(flat_);
  Oracle oracle(config_, flat_, false);
  std::vector<Tensor> leaves;
  for (const ParameterInfo& info : lora.parameters()) {
    leaves.push_back(Part(adapters, info).requires_grad_());
  }
  for (std::size_t i = 0; i < lora.targets().size(); ++i) {
    lora.Merge(i, base, adapters, merged);
    oracle.Set(lora.targets()[i].name, Part(flat_, lora.targets()[i]) +
                                           8.0 / 5.0 * leaves[2 * i + 1].matmul(leaves[2 * i]));
  }
  const Tensor exact = Differentiate(oracle);
  std::vector<float> gradient, ours(lora.count());
  EXPECT_LT(Distance(Ours(merged, gradient), exact), 1e-4 * exact.abs().max().item<double>());
  lora.Project(adapters, gradient, ours);
  double farthest = 0;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const Tensor wanted = leaves[i].grad();
    const double scale = wanted.abs().max().item<double>();
    const double apart = Distance(Part(ours, lora.parameters()[i]), wanted) / scale;
    EXPECT_LT(apart, 2e-5) << lora.parameters()[i].name;
    farthest = std::max(farthest, apart);
  }
  std::printf("gradients of adapters: error %.2g of the largest\n", farthest);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ModelParity, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace thresher::model
