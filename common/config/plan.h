#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/config/config.h"

namespace thresher {

enum class Phase : std::uint8_t { kSupervised = 0, kRl = 1 };
const char* PhaseName(Phase phase);

// One evaluation of a published version on the first `items` held-out items of its round.
struct EvalRound {
  std::uint32_t round = 0;  // ordinal in the run
  std::string label;        // "supervised", "final", "step 40"
  bool phase_end = false;
  PolicyVersion version;
  std::uint64_t first_item = 0;  // ordinals of stream eval: [first_item, first_item + items)
  std::uint32_t items = 0;
  std::uint32_t samples = 0;
};

// What the optimiser step numbered `step` (0-based, over both phases) trains on.
struct StepPlan {
  std::uint32_t step = 0;
  Phase phase = Phase::kSupervised;
  std::uint32_t phase_step = 0;  // 0-based within the phase
  Stream stream = Stream::kTrain;
  std::uint64_t first_item = 0;  // items [first_item, first_item + items) of `stream`
  std::uint32_t items = 0;       // supervised: sequences; rl: groups
  // With dynamic sampling: further rounds, each of the `items` items behind those of the round
  // before. A step that needs fewer leaves their ordinals unused.
  bool dynamic = false;
  std::uint32_t rounds = 1;    // at most
  std::uint32_t samples = 0;   // per item; supervised: 1
  bool publish_after = false;  // the version made by this step (step + 1) is published
  bool checkpoint_after = false;

  std::uint64_t FirstItem(std::uint32_t round) const {
    return first_item + std::uint64_t{round} * items;
  }
};

// The whole run as a pure function of its configuration. Broker, learner and audit each compute
// it; nothing about it travels. Version (0, v) is the state after v steps; version 0 is the
// initial one. Version v is published when some RL step or evaluation uses it.
class Plan {
 public:
  explicit Plan(const Config& config);

  std::uint32_t total_steps() const { return supervised_steps_ + rl_steps_; }
  std::uint32_t supervised_steps() const { return supervised_steps_; }
  std::uint32_t rl_steps() const { return rl_steps_; }
  StepPlan Step(std::uint32_t step) const;  // step < total_steps(), checked
  // Whose step `item` of a training stream is. Nothing: of none.
  std::optional<std::uint32_t> StepOfItem(Stream stream, std::uint64_t item) const;
  const std::vector<EvalRound>& evals() const { return evals_; }
  bool IsPublished(std::uint32_t version_step) const;
  // The version that must be published before any work can start, when the first step is RL or
  // an evaluation needs version 0.
  bool PublishesInitial() const { return IsPublished(0); }

 private:
  Config config_;
  std::uint32_t supervised_steps_;
  std::uint32_t rl_steps_;
  std::vector<EvalRound> evals_;
};

// Canonical cut of a batch of `items` groups into gradient leaves: leaf l holds the groups
// [items * l / leaves, items * (l + 1) / leaves).
struct LeafRange {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};
LeafRange GradientLeaf(std::uint32_t items, std::uint32_t leaves, std::uint32_t leaf);

}  // namespace thresher
