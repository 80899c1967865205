#include "broker/step_figures.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace thresher::broker {
namespace {

// In one pass, in the order of samples. Source: Welford 1962, Technometrics 4(3).
class SpreadSum {
 public:
  void Add(double value) {
    if (spread_.count == 0) spread_.min = spread_.max = value;
    ++spread_.count;
    const double before = value - spread_.mean;
    spread_.mean += before / static_cast<double>(spread_.count);
    squares_ += before * (value - spread_.mean);
    spread_.min = std::min(spread_.min, value);
    spread_.max = std::max(spread_.max, value);
  }
  Spread Take() const {
    Spread spread = spread_;
    if (spread.count > 0) {
      spread.deviation = std::sqrt(squares_ / static_cast<double>(spread.count));
    }
    return spread;
  }

 private:
  Spread spread_;
  double squares_ = 0;
};

class SampleSum {
 public:
  void Add(const Slot& slot) {
    reward_.Add(slot.reward);
    length_.Add(slot.loss_tokens);
    staleness_.Add(slot.staleness);
    truncated_ += slot.truncated;
    solved_ += Solved(slot);
  }
  SampleFigures Take() const {
    const Spread reward = reward_.Take();
    const double count = static_cast<double>(std::max<std::uint64_t>(1, reward.count));
    return {reward, length_.Take(), staleness_.Take(), static_cast<double>(truncated_) / count,
            static_cast<double>(solved_) / count};
  }

 private:
  SpreadSum reward_, length_, staleness_;
  std::uint64_t truncated_ = 0, solved_ = 0;
};

void AddGroup(std::span<const Slot> slots, GroupFigures& figures) {
  SpreadSum rewards;
  std::size_t solved = 0;
  for (const Slot& slot : slots) {
    if (slot.arrived) rewards.Add(slot.reward);
    solved += Solved(slot);
  }
  ++figures.groups;
  figures.solved_all += solved == slots.size();
  figures.solved_none += solved == 0;
  const Spread spread = rewards.Take();
  if (spread.count < slots.size()) return;
  ++figures.complete;
  figures.equal_rewards += spread.min == spread.max;
  figures.deviation += spread.deviation;  // a sum until all are here
}

}  // namespace

StepFigures FiguresOf(const GroupAssembler& groups, const StepPlan& step) {
  SampleSum arrived, trained;
  StepFigures figures;
  for (std::uint32_t round = 0; round < step.rounds; ++round) {
    const Unit* unit = groups.FindUnit({false, step.step, round});
    if (unit == nullptr) break;
    for (const Slot& slot : unit->slots) {
      if (slot.arrived) arrived.Add(slot);
      if (slot.state == Slot::State::kBatched) trained.Add(slot);
    }
    const std::span<const Slot> slots(unit->slots);
    for (std::size_t item = 0; item < unit->issued.items; ++item) {
      AddGroup(slots.subspan(item * unit->issued.samples, unit->issued.samples), figures.groups);
    }
  }
  figures.arrived = arrived.Take();
  figures.trained = trained.Take();
  if (figures.groups.complete > 0) {
    figures.groups.deviation /= static_cast<double>(figures.groups.complete);
  }
  return figures;
}

}  // namespace thresher::broker
