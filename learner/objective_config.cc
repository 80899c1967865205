#include "learner/objective_config.h"

#include <map>
#include <string>

#include "common/base/check.h"

namespace thresher::learner {
namespace {

template <typename T>
T Choice(const std::string& name, const std::map<std::string, T>& choices) {
  const auto found = choices.find(name);
  THRESHER_CHECK(found != choices.end(), "objective: no choice is called '" + name + "'");
  return found->second;
}

}  // namespace

ObjectiveSpec PolicyObjective(const Config& config) {
  using Spec = ObjectiveSpec;
  const ObjectiveConfig& c = config.objective;
  Spec spec;
  spec.kind = Spec::Kind::kPolicyGradient;
  spec.aggregate =
      Choice<Spec::Aggregate>(c.aggregate, {{"token_mean", Spec::Aggregate::kTokenMean},
                                            {"sequence_mean", Spec::Aggregate::kSequenceMean},
                                            {"constant", Spec::Aggregate::kConstant}});
  spec.ratio = Choice<Spec::Ratio>(c.ratio, {{"token", Spec::Ratio::kToken},
                                             {"sequence", Spec::Ratio::kSequence},
                                             {"none", Spec::Ratio::kNone}});
  spec.surrogate = Choice<Spec::Surrogate>(c.surrogate, {{"clip", Spec::Surrogate::kClip},
                                                         {"cispo", Spec::Surrogate::kCispo},
                                                         {"plain", Spec::Surrogate::kPlain}});
  spec.old = Choice<Spec::Old>(
      c.old, {{"behaviour", Spec::Old::kBehaviour}, {"recomputed", Spec::Old::kRecomputed}});
  spec.correction =
      Choice<Spec::Correction>(c.correction, {{"none", Spec::Correction::kNone},
                                              {"truncated", Spec::Correction::kTruncated},
                                              {"masked", Spec::Correction::kMasked}});
  spec.correction_level =
      Choice<Spec::Level>(c.correction_level, {{"token", Spec::Level::kToken},
                                               {"sequence", Spec::Level::kSequence},
                                               {"geometric", Spec::Level::kGeometric}});
  spec.kl_estimator = KlEstimatorOf(c);
  spec.distribution = Choice<Spec::Distribution>(
      c.ratio_distribution,
      {{"full", Spec::Distribution::kFull}, {"sampled", Spec::Distribution::kSampled}});
  spec.clip_low = c.clip_low;
  spec.clip_high = c.clip_high;
  spec.dual_clip = c.dual_clip;
  spec.correction_low = c.correction_low;
  spec.correction_high = c.correction_high;
  spec.kl = PenalisesReward(c) ? 0 : c.kl;
  spec.entropy = c.entropy;
  spec.longest = static_cast<std::uint64_t>(config.sampling.max_new_tokens);
  return spec;
}

ObjectiveSpec::Kl KlEstimatorOf(const ObjectiveConfig& objective) {
  using Kl = ObjectiveSpec::Kl;
  return Choice<Kl>(objective.kl_estimator, {{"k1", Kl::kK1}, {"k2", Kl::kK2}, {"k3", Kl::kK3}});
}

bool PenalisesReward(const ObjectiveConfig& objective) {
  return objective.kl > 0 && objective.kl_in == "reward";
}

bool LearnsFromSteps(const ObjectiveConfig& objective) {
  return Choice<bool>(objective.step_rewards, {{"none", false}, {"process", true}});
}

bool ComparesSteps(const ObjectiveConfig& objective) {
  return LearnsFromSteps(objective) && objective.critic == "none";
}

Estimator EstimatorOf(const ObjectiveConfig& objective) {
  return Choice<Estimator>(objective.advantage, {{"group", Estimator::kGroup},
                                                 {"group_mean", Estimator::kGroupMean},
                                                 {"leave_one_out", Estimator::kLeaveOneOut},
                                                 {"batch", Estimator::kBatch},
                                                 {"batch_baseline", Estimator::kBatchBaseline},
                                                 {"accepted", Estimator::kAccepted},
                                                 {"gae", Estimator::kGae},
                                                 {"vtrace", Estimator::kVTrace}});
}

}  // namespace thresher::learner
