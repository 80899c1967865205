#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/config/plan.h"
#include "learner/gradient_sync.h"
#include "learner/leaf.h"

namespace thresher::learner {

// What a step has come to, over all of its optimiser steps.
struct StepOutcome {
  LeafStats stats;           // of all optimiser steps
  int parts = 0;             // of these
  double gradient_norm = 0;  // mean of theirs, as the losses are
  double critic_gradient_norm = 0;
  double learning_rate = 0;
  double fetch_ms = 0, compute_ms = 0, reduce_ms = 0;
  GradientSync::Figures sync;  // of the policy's gradient
};

// What docs/metrics.md calls learner.*, as far as the outcome tells it: names without the prefix.
std::vector<std::pair<std::string, double>> MetricsOf(const StepOutcome& outcome, Phase phase,
                                                      bool critic);

}  // namespace thresher::learner
