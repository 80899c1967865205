#include "broker/work_source.h"

#include <algorithm>
#include <utility>

#include "broker/batcher.h"

namespace thresher::broker {
namespace {

constexpr std::uint32_t kUnknownCapacity = 64;  // of an actor that has not asked for work yet

bool Fits(const wire::ItemsIssued& issued, const ActorView& actor) {
  if (issued.stream == Stream::kSupervised) return true;
  return actor.has_weights && actor.weights == issued.version;
}

std::uint32_t FairShare(std::uint64_t pool, const ActorView& actor, const LiveActors& live) {
  const std::uint64_t own = std::max<std::uint64_t>(1, actor.capacity);
  const std::uint64_t total = std::max(live.capacity, own);
  return static_cast<std::uint32_t>((pool * own + total - 1) / total);
}

}  // namespace

LiveActors::LiveActors(const std::vector<ActorView>& actors) : count(actors.size()) {
  for (const ActorView& actor : actors) {
    capacity += actor.capacity > 0 ? actor.capacity : kUnknownCapacity;
    if (actor.has_weights) versions.insert(actor.weights);
  }
}

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
    if (state.IssuedUnit({false, s})) {
      if (auto round = NextRound(state, step)) units.push_back(*round);
      continue;
    }
    units.push_back(*state.Planned({false, s}));
  }
  for (const EvalRound& round : state.plan().evals()) {
    if (state.IssuedUnit({true, round.round})) continue;
    if (state.Published(round.version) == nullptr) continue;
    units.push_back(*state.Planned({true, round.round}));
  }
  return units;
}

std::optional<wire::ItemsIssued> WorkSource::NextRound(const RunState& state,
                                                       const StepPlan& step) const {
  if (!step.dynamic || state.Batch(step.step) != nullptr) return std::nullopt;
  if (StageOf(state.groups(), step) != StepStage::kNextRound) return std::nullopt;
  const std::uint32_t round = RoundsIssued(state.groups(), step.step);
  return state.Planned({false, step.step, round});
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
                             const LiveActors& live) {
  Refresh(state, leases);
  std::vector<UnitKey> own[2];  // training, evaluation
  std::vector<UnitKey> orphans;
  std::uint64_t pool[2] = {0, 0};
  for (const auto& [key, unit] : state.groups().units()) {
    if (unit.outstanding == 0) continue;
    if (Fits(unit.issued, actor)) {
      own[key.evaluation].push_back(key);
      pool[key.evaluation] += unit.outstanding;
    } else if (key.evaluation && !live.versions.contains(unit.issued.version)) {
      orphans.push_back(key);
    }
  }
  Selection selection;
  std::uint32_t room = max_samples;
  for (bool evaluation : {false, true}) {
    std::uint64_t held = leases.HeldBy(actor.actor, evaluation);
    std::uint64_t share = FairShare(pool[evaluation], actor, live);
    if (share <= held) continue;
    Take(state, leases, own[evaluation], share - held, &room, &selection.leases);
  }
  if (selection.leases.empty() && leases.HeldBy(actor.actor) == 0 && !orphans.empty()) {
    orphans.resize(1);
    std::uint64_t left = state.groups().FindUnit(orphans.front())->outstanding;
    Take(state, leases, orphans, FairShare(left, actor, live), &room, &selection.leases);
    selection.adopts_version = !selection.leases.empty();
  }
  return selection;
}

Selection WorkSource::SelectLost(const RunState& state, const LeaseTable& leases,
                                 const std::set<TrajectoryId>& lost, const ActorView& actor,
                                 std::uint32_t max_samples, const LiveActors& live) const {
  Selection selection;
  const bool idle = leases.HeldBy(actor.actor) == 0;
  std::optional<PolicyVersion> adopted;
  for (const TrajectoryId& id : lost) {
    if (selection.leases.size() >= max_samples) break;
    const auto number = state.plan().StepOfItem(id.stream, id.item);
    if (!number || leases.IsLeased(id)) continue;
    const wire::ItemsIssued issued = *state.Planned({false, *number});
    if (!Fits(issued, actor)) {
      const bool may_adopt =
          idle && selection.leases.empty() && !live.versions.contains(issued.version);
      if (!may_adopt && adopted != issued.version) continue;
      adopted = issued.version;
    } else if (adopted) {
      continue;  // it loads another version first
    }
    wire::Lease lease = LeaseOf(issued, id.item);
    lease.first_sample = id.sample;
    lease.samples = 1;
    selection.leases.push_back(lease);
  }
  selection.adopts_version = adopted.has_value();
  return selection;
}

void WorkSource::Refresh(const RunState& state, const LeaseTable& leases) {
  if (std::exchange(freed_, leases.freed()) != leases.freed()) first_free_.clear();
  std::erase_if(first_free_,
                [&](const auto& unit) { return state.groups().FindUnit(unit.first) == nullptr; });
}

void WorkSource::Take(const RunState& state, const LeaseTable& leases,
                      const std::vector<UnitKey>& units, std::uint64_t share, std::uint32_t* room,
                      std::vector<wire::Lease>* taken) {
  std::uint64_t count = 0;
  for (const UnitKey& key : units) {
    const Unit& unit = *state.groups().FindUnit(key);
    const wire::ItemsIssued& issued = unit.issued;
    std::uint64_t& first_free = first_free_[key];
    for (std::uint64_t i = first_free; i < issued.items; ++i) {
      std::uint64_t item = issued.first_item + i;
      const Slot* slots = unit.slots.data() + i * issued.samples;
      auto free = [&](std::uint32_t s) {
        return slots[s].state == Slot::State::kIssued &&
               !leases.IsLeased({issued.stream, issued.island, item, s});
      };
      bool any = false;
      for (std::uint32_t s = 0; s < issued.samples; ++s) {
        if (count >= share || *room == 0) return;
        if (!free(s)) continue;
        any = true;
        wire::Lease lease = LeaseOf(issued, item);
        lease.first_sample = s;
        while (s<issued.samples&& * room> 0 && free(s)) ++s, ++count, --*room;
        lease.samples = s - lease.first_sample;
        taken->push_back(lease);
      }
      if (i == first_free && !any) ++first_free;
    }
  }
}

}  // namespace thresher::broker
