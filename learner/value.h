#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thresher::learner {

// What a critic's values say of the tokens of one sequence: its loss tokens alone, in order, in
// double. v[t] is the value of the state in which token t is drawn, r[t] the reward that it brings.
// The state after the last token is worth 0, also where an answer was cut off: no more reward
// comes.

struct TokenGains {
  std::vector<double> advantage;
  std::vector<double> target;  // what v is to become
};

// delta[t] = r[t] + gamma v[t+1] - v[t];  A[t] = delta[t] + gamma lambda A[t+1];  target = A + v.
// Generalised advantage estimation: Schulman et al. 2015, arXiv:1506.02438, eq. 16.
TokenGains GeneralisedAdvantages(std::span<const double> reward, std::span<const double> value,
                                 double gamma, double lambda);

// With rho[t] = min(rho_bar, q[t]) and c[t] = min(c_bar, q[t]), q = exp(log_ratio) the importance
// weight of the token under the policy that is trained against the one that drew it:
//   target[t] = v[t] + rho[t] (r[t] + gamma v[t+1] - v[t]) + gamma c[t] (target[t+1] - v[t+1])
//   A[t] = rho[t] (r[t] + gamma target[t+1] - v[t])
// V-trace: Espeholt et al. 2018, arXiv:1802.01561, eq. 1 (remark 1) and section 4.2. A has the
// weight in it: the objective takes no ratio of its own.
struct VTraceOptions {
  double gamma = 1;
  double rho_bar = 1;
  double c_bar = 1;
};
TokenGains VTrace(std::span<const double> reward, std::span<const double> value,
                  std::span<const double> log_ratio, const VTraceOptions& options);

// A token's part of the critic's loss and its derivative with regard to v:
//   (v - target)^2 / 2, or with clip > 0 the larger of it and the same with v held within `clip` of
// `first`, the value before the batch's first step (PPO as OpenAI's baselines have it, `ppo2`).
struct ValueLoss {
  double loss = 0;
  double slope = 0;
  bool clipped = false;  // the bound cut the gradient off
};
ValueLoss ValueLossOf(double value, double first, double target, double clip);

// Of a batch's tokens. Means come first, squares after them: the sums of each are taken sequence by
// sequence, in canonical order, so that they are the same on any number of ranks.
struct GainSums {
  std::uint64_t tokens = 0;
  double advantage = 0, target = 0, value = 0;
  double least = 1e300, greatest = -1e300;  // advantage

  void Add(const GainSums& other);
  double Mean(double sum) const { return tokens > 0 ? sum / static_cast<double>(tokens) : 0; }
};
// Of the distances from those means; error: of target - v.
struct GainSquares {
  double advantage = 0, target = 0, error = 0;

  void Add(const GainSquares& other);
};
GainSums SumsOf(const TokenGains& gains, std::span<const double> value);
GainSquares SquaresOf(const TokenGains& gains, std::span<const double> value,
                      const GainSums& batch);

// (A - mean) / sqrt(variance with N - 1 + 1e-8), as the batch estimators of advantage.h; equal
// advantages give exact zeros.
double Whitened(double advantage, const GainSums& batch, const GainSquares& squares);
// 1 - Var(target - v) / Var(target): 1, the critic foresees all; 0, no more than a constant would.
// NaN where the targets do not differ.
double ExplainedVariance(const GainSquares& squares);

}  // namespace thresher::learner
