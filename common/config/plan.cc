#include "common/config/plan.h"

#include "common/base/check.h"

namespace thresher {
namespace {

// Appends rounds in the order of their versions; the next round begins where the last one ended.
class RoundList {
 public:
  explicit RoundList(const Config& config) : config_(config) {}

  void Add(const std::string& label, bool phase_end, std::uint32_t version_step) {
    int items = phase_end ? config_.eval.items : config_.eval.every_items;
    if (items == 0) return;
    EvalRound round;
    round.round = static_cast<std::uint32_t>(rounds_.size());
    round.label = label;
    round.phase_end = phase_end;
    round.version = PolicyVersion{0, version_step};
    round.first_item = next_item_;
    round.items = static_cast<std::uint32_t>(items);
    round.samples = static_cast<std::uint32_t>(config_.eval.samples);
    next_item_ += round.items;
    rounds_.push_back(round);
  }
  std::vector<EvalRound> Take() { return std::move(rounds_); }

 private:
  const Config& config_;
  std::vector<EvalRound> rounds_;
  std::uint64_t next_item_ = 0;
};

std::vector<EvalRound> MakeRounds(const Config& config, std::uint32_t supervised,
                                  std::uint32_t rl) {
  RoundList rounds(config);
  rounds.Add(supervised > 0 ? "supervised" : "start", /*phase_end=*/true, supervised);
  if (rl == 0) return rounds.Take();
  std::uint64_t every = static_cast<std::uint64_t>(config.eval.every);
  for (std::uint64_t k = every; every > 0 && k < rl; k += every) {
    rounds.Add("step " + std::to_string(k), /*phase_end=*/false,
               supervised + static_cast<std::uint32_t>(k));
  }
  rounds.Add("final", /*phase_end=*/true, supervised + rl);
  return rounds.Take();
}

}  // namespace

const char* PhaseName(Phase phase) { return phase == Phase::kSupervised ? "supervised" : "rl"; }

Plan::Plan(const Config& config)
    : config_(config),
      supervised_steps_(static_cast<std::uint32_t>(config.supervised.steps)),
      rl_steps_(static_cast<std::uint32_t>(config.rl.steps)),
      evals_(MakeRounds(config_, supervised_steps_, rl_steps_)) {}

StepPlan Plan::Step(std::uint32_t step) const {
  THRESHER_CHECK(step < total_steps(), "step " + std::to_string(step));
  StepPlan plan;
  plan.step = step;
  if (step < supervised_steps_) {
    plan.phase = Phase::kSupervised;
    plan.phase_step = step;
    plan.stream = Stream::kSupervised;
    plan.items = static_cast<std::uint32_t>(config_.supervised.batch);
    plan.samples = 1;
  } else {
    plan.phase = Phase::kRl;
    plan.phase_step = step - supervised_steps_;
    plan.stream = Stream::kTrain;
    plan.items = static_cast<std::uint32_t>(config_.rl.groups);
    plan.samples = static_cast<std::uint32_t>(config_.rl.group_size);
    plan.dynamic = config_.rl.dynamic_sampling;
    if (plan.dynamic) plan.rounds = static_cast<std::uint32_t>(config_.rl.max_rounds);
  }
  plan.first_item = std::uint64_t{plan.phase_step} * plan.rounds * plan.items;
  plan.publish_after = IsPublished(step + 1);
  bool phase_end = step + 1 == supervised_steps_ || step + 1 == total_steps();
  plan.checkpoint_after =
      phase_end || (step + 1) % static_cast<std::uint32_t>(config_.checkpoint.every) == 0;
  return plan;
}

std::optional<std::uint32_t> Plan::StepOfItem(Stream stream, std::uint64_t item) const {
  const bool supervised = stream == Stream::kSupervised;
  const std::uint32_t begin = supervised ? 0 : supervised_steps_;
  const std::uint32_t steps = supervised ? supervised_steps_ : rl_steps_;
  if ((!supervised && stream != Stream::kTrain) || steps == 0) return std::nullopt;
  const StepPlan first = Step(begin);
  const std::uint64_t ordinal = item / (std::uint64_t{first.rounds} * first.items);
  if (ordinal >= steps) return std::nullopt;
  return begin + static_cast<std::uint32_t>(ordinal);
}

// RL step k uses version supervised + k; every evaluation and the last version lie in that range
// or at its end.
bool Plan::IsPublished(std::uint32_t version_step) const {
  return version_step >= supervised_steps_ && version_step <= total_steps();
}

LeafRange GradientLeaf(std::uint32_t items, std::uint32_t leaves, std::uint32_t leaf) {
  THRESHER_CHECK(leaves > 0 && leaf < leaves,
                 "leaf " + std::to_string(leaf) + " of " + std::to_string(leaves));
  return {static_cast<std::uint32_t>(std::uint64_t{items} * leaf / leaves),
          static_cast<std::uint32_t>(std::uint64_t{items} * (leaf + 1) / leaves)};
}

}  // namespace thresher
