#include "learner/step_metrics.h"

#include <algorithm>

namespace thresher::learner {

std::vector<std::pair<std::string, double>> MetricsOf(const StepOutcome& outcome, Phase phase,
                                                      bool critic) {
  const LeafStats& stats = outcome.stats;
  const double tokens = std::max<double>(1.0, static_cast<double>(stats.loss_tokens));
  const auto per_token = [&](double sum) { return sum / tokens; };
  std::vector<std::pair<std::string, double>> metrics = {
      {"loss", stats.loss},
      {"loss_tokens", static_cast<double>(stats.loss_tokens)},
      {"learning_rate", outcome.learning_rate},
      {"gradient_norm", outcome.gradient_norm},
      {"entropy", stats.entropy / tokens},
      {"logprob", stats.logprob / tokens},
      {"rows", static_cast<double>(stats.rows)},
      {"fetch_ms", outcome.fetch_ms},
      {"compute_ms", outcome.compute_ms},
      {"reduce_ms", outcome.reduce_ms}};
  const GradientSync::Figures& sync = outcome.sync;
  const double waited = sync.reduce_ms > 0 ? sync.wait_ms / sync.reduce_ms : 1.0;
  metrics.insert(metrics.end(), {{"comm_reduce_ms", sync.reduce_ms},
                                 {"comm_wait_ms", sync.wait_ms},
                                 {"comm_hidden_share", std::max(0.0, 1.0 - waited)}});
  if (phase == Phase::kRl && stats.loss_tokens > 0) {
    metrics.insert(metrics.end(),
                   {{"kl_k1_behaviour", per_token(stats.k1)},
                    {"kl_k2_behaviour", per_token(stats.k2)},
                    {"kl_k3_behaviour", per_token(stats.k3)},
                    {"kl_k3_reference", per_token(stats.reference_kl)},
                    {"clip_fraction", per_token(stats.clipped_low + stats.clipped_high)},
                    {"clip_fraction_low", per_token(stats.clipped_low)},
                    {"clip_fraction_high", per_token(stats.clipped_high)},
                    {"ratio_mean", per_token(stats.ratio)},
                    {"ratio_min", stats.ratio_min},
                    {"ratio_max", stats.ratio_max},
                    {"ess", stats.weight * stats.weight / (tokens * stats.weight_square)},
                    {"correction_mean", per_token(stats.correction)},
                    {"corrected_share", per_token(stats.corrected)},
                    {"kept_mass", per_token(stats.kept_mass)},
                    {"outside_support_share", per_token(stats.outside_support)}});
  }
  if (stats.example_tokens > 0) {
    const double examples = static_cast<double>(stats.example_tokens);
    metrics.insert(metrics.end(), {{"supervised_loss", -stats.example_logprob / examples},
                                   {"supervised_tokens", examples}});
  }
  if (critic && stats.loss_tokens > 0) {
    metrics.insert(metrics.end(), {{"value_loss", stats.value_loss},
                                   {"value_clip_fraction", per_token(stats.value_clipped)},
                                   {"critic_gradient_norm", outcome.critic_gradient_norm}});
  }
  return metrics;
}

}  // namespace thresher::learner
