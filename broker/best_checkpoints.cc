#include "broker/best_checkpoints.h"

#include <algorithm>
#include <utility>

namespace thresher::broker {

std::vector<std::uint32_t> BestCheckpoints(const Plan& plan, std::uint32_t steps,
                                           const std::map<std::uint32_t, EvalSummary>& evals,
                                           int best) {
  std::vector<std::uint32_t> kept;
  if (best <= 0) return kept;
  std::vector<std::pair<double, std::uint32_t>> evaluated;
  for (const EvalRound& round : plan.evals()) {
    const std::uint32_t step = round.version.step;
    if (step == 0 || step > steps || !plan.Step(step - 1).checkpoint_after) continue;
    const auto found = evals.find(round.round);
    if (found == evals.end()) {
      kept.push_back(step);
    } else {
      evaluated.emplace_back(found->second.pass_at_1().value, step);
    }
  }
  std::sort(evaluated.rbegin(), evaluated.rend());
  evaluated.resize(std::min(evaluated.size(), static_cast<std::size_t>(best)));
  for (const auto& [pass, step] : evaluated) kept.push_back(step);
  std::sort(kept.begin(), kept.end());
  return kept;
}

}  // namespace thresher::broker
