#include "broker/evaluation.h"

#include <algorithm>
#include <cmath>

namespace thresher::broker {
namespace {

constexpr double kZ = 1.959963984540054;  // 97.5 % quantile of the standard normal

Estimate Wilson(double share, double n) {
  double z2 = kZ * kZ;
  double centre = (share + z2 / (2 * n)) / (1 + z2 / n);
  double half = kZ * std::sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n);
  return {share, std::min(share, centre - half), std::max(share, centre + half)};
}

}  // namespace

double PassAtKOfItem(std::uint32_t n, std::uint32_t c, std::uint32_t k) {
  THRESHER_CHECK(k >= 1 && k <= n && c <= n, "pass@k needs 1 <= k <= n and c <= n");
  if (n - c < k) return 1;
  double none = 1;  // product form of C(n - c, k) / C(n, k)
  for (std::uint32_t i = n - c + 1; i <= n; ++i) none *= 1.0 - static_cast<double>(k) / i;
  return 1 - none;
}

Estimate PassAtK(const EvalResult& result, std::uint32_t k) {
  double n = static_cast<double>(result.solved.size());
  if (n == 0) return {0, 0, 1};
  double sum = 0;
  double squares = 0;
  for (std::uint32_t c : result.solved) {
    double p = PassAtKOfItem(result.round.samples, c, k);
    sum += p;
    squares += p * p;
  }
  double mean = sum / n;
  double variance = n > 1 ? std::max(0.0, (squares - n * mean * mean) / (n - 1)) : 0;
  if (variance < 1e-12) return Wilson(std::clamp(mean, 0.0, 1.0), n);
  double half = kZ * std::sqrt(variance / n);
  return {mean, std::max(0.0, mean - half), std::min(1.0, mean + half)};
}

std::vector<std::uint32_t> ReportedKs(std::uint32_t samples) {
  std::vector<std::uint32_t> ks;
  for (std::uint32_t k = 1; k < samples; k *= 2) ks.push_back(k);
  if (samples > 0) ks.push_back(samples);
  return ks;
}

EvalSummary Summarise(const EvalResult& result) {
  EvalSummary summary{result.round, {}, result.mean_reward, result.arrived, result.digest};
  for (std::uint32_t k : ReportedKs(result.round.samples)) {
    summary.pass_at.push_back(PassAtK(result, k));
  }
  return summary;
}

}  // namespace thresher::broker
