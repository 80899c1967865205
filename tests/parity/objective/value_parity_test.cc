// A critic's estimators and loss against an oracle written from the papers and from what published
// implementations compute: padded batches at once, float64, gradients by autograd.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <random>

#include "learner/value.h"

namespace thresher::learner {
namespace {

using torch::Tensor;

struct Batch {
  std::vector<std::vector<double>> reward, value, log_ratio, first;
  long longest = 0;
};

Batch RandomBatch(unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> unit(-1, 1);
  Batch batch;
  for (int sequence = 0; sequence < 6; ++sequence) {
    const std::size_t rows = 1 + random() % 14;
    batch.longest = std::max(batch.longest, static_cast<long>(rows));
    for (auto [column, size] : {std::pair{&batch.reward, 2.0},
                                {&batch.value, 3.0},
                                {&batch.log_ratio, 0.8},
                                {&batch.first, 3.0}}) {
      auto& values = column->emplace_back();
      for (std::size_t i = 0; i < rows; ++i) values.push_back(size * unit(random));
    }
  }
  return batch;
}

// [sequences, longest]; zeros behind a sequence's end, where nothing more is rewarded.
Tensor Padded(const std::vector<std::vector<double>>& rows, long longest) {
  Tensor out = torch::zeros({static_cast<long>(rows.size()), longest}, torch::kFloat64);
  for (std::size_t s = 0; s < rows.size(); ++s) {
    out[static_cast<long>(s)].slice(0, 0, static_cast<long>(rows[s].size())) =
        torch::tensor(rows[s], torch::kFloat64);
  }
  return out;
}

Tensor Mask(const Batch& batch) {
  std::vector<std::vector<double>> ones;
  for (const auto& row : batch.reward) ones.emplace_back(row.size(), 1.0);
  return Padded(ones, batch.longest);
}

Tensor Next(const Tensor& x) {
  return torch::cat({x.slice(1, 1), torch::zeros({x.size(0), 1}, torch::kFloat64)}, 1);
}

void ExpectRows(const Tensor& want, std::size_t s, const std::vector<double>& got) {
  for (std::size_t t = 0; t < got.size(); ++t) {
    const double value = want[static_cast<long>(s)][static_cast<long>(t)].item<double>();
    ASSERT_NEAR(got[t], value, 1e-12 * (1 + std::abs(value))) << s << " " << t;
  }
}

// (A - mean) / sqrt(var + 1e-8) over the mask, the variance with N - 1 (TRL's masked_whiten).
Tensor MaskedWhitened(const Tensor& x, const Tensor& mask) {
  const Tensor mean = (x * mask).sum() / mask.sum();
  const Tensor variance = ((x - mean).square() * mask).sum() / (mask.sum() - 1);
  return (x - mean) * torch::rsqrt(variance + 1e-8);
}

TEST(ValueParity, GeneralisedAdvantagesAsMatricesOfDiscounts) {
  for (unsigned seed = 0; seed < 5; ++seed) {
    const Batch batch = RandomBatch(seed);
    for (auto [gamma, lambda] : {std::pair{1.0, 0.95}, {0.9, 0.7}, {0.99, 1.0}, {1.0, 0.0}}) {
      const Tensor v = Padded(batch.value, batch.longest), mask = Mask(batch);
      const Tensor delta = Padded(batch.reward, batch.longest) + gamma * Next(v) - v;
      // discount[k, t] = (gamma lambda)^(k - t) for k >= t: the sum of the paper's eq. 16.
      const Tensor index = torch::arange(batch.longest, torch::kFloat64);
      const Tensor distance = index.unsqueeze(1) - index.unsqueeze(0);
      const Tensor discount =
          torch::where(distance >= 0, torch::pow(gamma * lambda, distance.clamp_min(0)),
                       torch::zeros_like(distance));
      const Tensor advantage = torch::matmul(delta * mask, discount);
      GainSums sums;
      GainSquares squares;
      std::vector<TokenGains> gains;
      for (std::size_t s = 0; s < batch.value.size(); ++s) {
        gains.push_back(GeneralisedAdvantages(batch.reward[s], batch.value[s], gamma, lambda));
        ExpectRows(advantage, s, gains[s].advantage);
        ExpectRows(advantage + v, s, gains[s].target);
        sums.Add(SumsOf(gains[s], batch.value[s]));
      }
      for (std::size_t s = 0; s < gains.size(); ++s) {
        squares.Add(SquaresOf(gains[s], batch.value[s], sums));
      }
      const Tensor white = MaskedWhitened(advantage, mask);
      for (std::size_t s = 0; s < gains.size(); ++s) {
        for (double& a : gains[s].advantage) a = Whitened(a, sums, squares);
        ExpectRows(white, s, gains[s].advantage);
      }
      const Tensor inside = mask > 0;
      const Tensor truth = (advantage + v).masked_select(inside);
      const Tensor error = truth - v.masked_select(inside);
      ASSERT_NEAR(ExplainedVariance(squares), (1 - error.var() / truth.var()).item<double>(),
                  1e-12 * (1 + std::abs(ExplainedVariance(squares))));
    }
  }
}

// As DeepMind's vtrace.py has it: vs - v by a scan backwards, over the whole batch at once.
TEST(ValueParity, VTraceAsItsAuthorsScanIt) {
  for (unsigned seed = 0; seed < 5; ++seed) {
    const Batch batch = RandomBatch(seed);
    for (const VTraceOptions o :
         {VTraceOptions{1, 1, 1}, {0.95, 1.3, 0.9}, {0.9, 50, 1}, {1, 0.7, 0.6}}) {
      const Tensor v = Padded(batch.value, batch.longest), mask = Mask(batch);
      const Tensor r = Padded(batch.reward, batch.longest);
      const Tensor q = torch::exp(Padded(batch.log_ratio, batch.longest));
      const Tensor rho = torch::clamp_max(q, o.rho_bar) * mask;
      const Tensor c = torch::clamp_max(q, o.c_bar) * mask;
      const Tensor delta = rho * (r + o.gamma * Next(v) - v);
      Tensor distance = torch::zeros({v.size(0)}, torch::kFloat64);
      Tensor target = v.clone();
      for (long t = batch.longest; t-- > 0;) {
        distance = delta.select(1, t) + o.gamma * c.select(1, t) * distance;
        target.select(1, t) += distance;
      }
      const Tensor advantage = rho * (r + o.gamma * Next(target) - v);
      for (std::size_t s = 0; s < batch.value.size(); ++s) {
        const TokenGains got = VTrace(batch.reward[s], batch.value[s], batch.log_ratio[s], o);
        ExpectRows(target, s, got.target);
        ExpectRows(advantage, s, got.advantage);
      }
    }
  }
}

// 0.5 max((v - R)^2, (clip(v, first - e, first + e) - R)^2), as baselines' ppo2 and TRL write it.
TEST(ValueParity, TheClippedLossAndItsGradientAreAutograds) {
  int cut = 0;
  for (unsigned seed = 0; seed < 5; ++seed) {
    const Batch batch = RandomBatch(seed);
    const Tensor mask = Mask(batch);
    const Tensor first = Padded(batch.first, batch.longest);
    const Tensor target = Padded(batch.reward, batch.longest);
    for (double clip : {0.0, 0.2, 1.0}) {
      Tensor v = Padded(batch.value, batch.longest).requires_grad_();
      Tensor loss = (v - target).square();
      if (clip > 0) {
        const Tensor held = torch::max(torch::min(v, first + clip), first - clip);
        loss = torch::max(loss, (held - target).square());
      }
      const Tensor whole = 0.5 * (loss * mask).sum() / mask.sum();
      whole.backward();
      const double tokens = mask.sum().item<double>();
      double sum = 0;
      for (std::size_t s = 0; s < batch.value.size(); ++s) {
        std::vector<double> slope;
        for (std::size_t t = 0; t < batch.value[s].size(); ++t) {
          const ValueLoss got =
              ValueLossOf(batch.value[s][t], batch.first[s][t], batch.reward[s][t], clip);
          sum += got.loss / tokens;
          slope.push_back(got.slope / tokens);
          cut += got.clipped;
        }
        ExpectRows(v.grad(), s, slope);
      }
      ASSERT_NEAR(sum, whole.item<double>(), 1e-12 * (1 + sum));
    }
  }
  EXPECT_GT(cut, 50);
}

}  // namespace
}  // namespace thresher::learner
