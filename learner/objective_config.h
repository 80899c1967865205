#pragma once

#include "common/config/config.h"
#include "learner/advantage.h"
#include "learner/objective.h"

namespace thresher::learner {

// What the section `objective` says of a step of the reinforcement phase, but for the counts of the
// batch. A value that the section does not allow ends the process.
ObjectiveSpec PolicyObjective(const Config& config);
Estimator EstimatorOf(const ObjectiveConfig& objective);
ObjectiveSpec::Kl KlEstimatorOf(const ObjectiveConfig& objective);
// Whether the penalty against the reference policy is one in the reward.
bool PenalisesReward(const ObjectiveConfig& objective);
// Whether tokens learn from the rewards of steps; and whether these are compared within groups,
// together with the outcomes.
bool LearnsFromSteps(const ObjectiveConfig& objective);
bool ComparesSteps(const ObjectiveConfig& objective);

}  // namespace thresher::learner
