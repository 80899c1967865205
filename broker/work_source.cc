#include "broker/work_source.h"

#include <algorithm>

namespace thresher::broker {
namespace {

constexpr std::uint32_t kUnknownCapacity = 64;  // of an actor that has not asked for work yet

bool Fits(const Unit& unit, const ActorView& actor) {
  if (unit.issued.stream == Stream::kSupervised) return true;
  return actor.has_weights && actor.weights == unit.issued.version;
}

bool HeldBySomeone(PolicyVersion version, const std::vector<ActorView>& live) {
  return std::any_of(live.begin(), live.end(),
                     [&](const ActorView& a) { return a.has_weights && a.weights == version; });
}

std::uint32_t FairShare(std::uint64_t pool, const ActorView& actor,
                        const std::vector<ActorView>& live) {
  std::uint64_t total = 0;
  for (const ActorView& other : live) {
    total += other.capacity > 0 ? other.capacity : kUnknownCapacity;
  }
  std::uint64_t own = std::max<std::uint64_t>(1, actor.capacity);
  total = std::max(total, own);
  return static_cast<std::uint32_t>((pool * own + total - 1) / total);
}

}  // namespace

bool WorkSource::MayIssue(const RunState& state, const StepPlan& step) const {
  if (step.phase == Phase::kSupervised) {
    return step.step <= state.committed_steps() +
                            static_cast<std::uint32_t>(std::max(0, config_.broker.lookahead_steps));
  }
  return step.step == state.committed_steps() &&
         state.Published({state.lineage(), step.step}) != nullptr;
}

std::vector<wire::ItemsIssued> WorkSource::Issuable(const RunState& state) const {
  std::vector<wire::ItemsIssued> units;
  for (std::uint32_t s = state.committed_steps(); s < state.plan().total_steps(); ++s) {
    StepPlan step = state.plan().Step(s);
    if (!MayIssue(state, step)) break;
    if (state.IssuedUnit({false, s})) continue;
    PolicyVersion version = step.phase == Phase::kRl ? PolicyVersion{state.lineage(), s}
                                                     : PolicyVersion{state.lineage(), 0};
    units.push_back({step.stream, 0, step.first_item, step.items, step.samples, s, 0, version});
  }
  for (const EvalRound& round : state.plan().evals()) {
    if (state.IssuedUnit({true, round.round})) continue;
    if (state.Published(round.version) == nullptr) continue;
    units.push_back({Stream::kEval, 0, round.first_item, round.items, round.samples,
                     round.version.step, round.round, round.version});
  }
  return units;
}

wire::Lease WorkSource::LeaseOf(const wire::ItemsIssued& issued, std::uint64_t item) const {
  wire::Lease lease;
  lease.stream = issued.stream;
  lease.island = issued.island;
  lease.item = item;
  lease.group_size = issued.samples;
  lease.pinned = issued.stream != Stream::kSupervised;
  lease.version = issued.version;
  lease.max_new_tokens = static_cast<std::uint32_t>(config_.sampling.max_new_tokens);
  bool evaluation = issued.stream == Stream::kEval;
  lease.temperature =
      static_cast<float>(evaluation ? config_.eval.temperature : config_.sampling.temperature);
  lease.purpose = evaluation                             ? wire::Purpose::kEvaluate
                  : issued.stream == Stream::kSupervised ? wire::Purpose::kSupervised
                                                         : wire::Purpose::kTrain;
  return lease;
}

Selection WorkSource::Select(const RunState& state, const LeaseTable& leases,
                             const ActorView& actor, std::uint32_t max_samples,
                             const std::vector<ActorView>& live) const {
  std::vector<UnitKey> own;
  std::vector<UnitKey> orphans;
  std::uint64_t pool = 0;
  for (const auto& [key, unit] : state.groups().units()) {
    if (unit.outstanding == 0) continue;
    if (Fits(unit, actor)) {
      own.push_back(key);
      pool += unit.outstanding;
    } else if (key.evaluation && !HeldBySomeone(unit.issued.version, live)) {
      orphans.push_back(key);
    }
  }
  std::uint64_t held = leases.HeldBy(actor.actor);
  std::uint64_t share = FairShare(pool, actor, live);
  Selection selection;
  if (share > held) {
    selection.leases =
        Take(state, leases, own, static_cast<std::uint32_t>(share - held), max_samples);
  }
  if (selection.leases.empty() && held == 0 && !orphans.empty()) {
    orphans.resize(1);
    std::uint64_t left = state.groups().FindUnit(orphans.front())->outstanding;
    selection.leases = Take(state, leases, orphans, FairShare(left, actor, live), max_samples);
    selection.adopts_version = !selection.leases.empty();
  }
  return selection;
}

std::vector<wire::Lease> WorkSource::Take(const RunState& state, const LeaseTable& leases,
                                          const std::vector<UnitKey>& units, std::uint32_t share,
                                          std::uint32_t max_samples) const {
  std::vector<wire::Lease> taken;
  std::uint32_t count = 0;
  auto full = [&] { return count >= share || count >= max_samples; };
  for (const UnitKey& key : units) {
    const wire::ItemsIssued& issued = state.groups().FindUnit(key)->issued;
    for (std::uint64_t i = 0; i < issued.items && !full(); ++i) {
      std::uint64_t item = issued.first_item + i;
      const Group* group = state.groups().FindGroup({issued.stream, issued.island, item});
      auto free = [&](std::uint32_t s) {
        return group->slots[s].state == Slot::State::kIssued &&
               !leases.IsLeased({issued.stream, issued.island, item, s});
      };
      for (std::uint32_t s = 0; s < issued.samples && !full(); ++s) {
        if (!free(s)) continue;
        wire::Lease lease = LeaseOf(issued, item);
        lease.first_sample = s;
        while (s < issued.samples && count < max_samples && free(s)) ++s, ++count;
        lease.samples = s - lease.first_sample;
        taken.push_back(lease);
      }
    }
  }
  return taken;
}

}  // namespace thresher::broker
