// What is done to a farm on purpose.
#include <algorithm>

#include "tests/support/sim/farm.h"

namespace thresher::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

}  // namespace

void Farm::Every(Duration mean, std::function<void()> event) {
  if (mean == Duration::zero()) return;
  scheduler_.After(random_.Exponential(mean), [this, mean, event = std::move(event)] {
    if (calm_) return;
    event();
    Every(mean, event);
  });
}

void Farm::Disturb() {
  const Disturbances& d = history_.disturbances;
  scheduler_.After(d.until, [this] { Calm(); });
  Every(d.kill_broker, [this] { KillOne(broker_process_, "broker killed"); });
  Every(d.kill_actor, [this] { KillOne(AnyActor(), "actor killed"); });
  Every(d.kill_learner, [this] { KillOne(AnyRank(), "learner rank killed"); });
  Every(d.stall_broker, [this] { StallOne(broker_process_); });
  Every(d.stall_actor, [this] { StallOne(AnyActor()); });
  Every(d.stall_learner, [this] { StallOne(AnyRank()); });
  Every(d.power_cut, [this] { CutPower(); });
  Every(d.disk_full, [this] { FillDisk(); });
  Every(d.reconnects, [this] { network_.CutOne(random_.Chance(0.5)); });
  Every(d.partition, [this] {
    trace_.Count("partition");
    network_.StallAll(random_.Exponential(history_.disturbances.stall_time));
  });
  Every(d.stop_broker, [this] {
    if (broker_ == nullptr) return;
    trace_.Count("broker asked to stop");
    broker_->RequestStop();
  });
  Every(d.stop_actor, [this] {
    ActorSeat& seat = actors_[random_.Below(actors_.size())];
    if (seat.actor == nullptr) return;
    trace_.Count("actor asked to stop");
    seat.actor->RequestStop();
  });
}

// From here on the farm must come to its end.
void Farm::Calm() {
  calm_ = true;
  disk_.faults.full.clear();
  disk_.faults.slow_sync = disk_.faults.write_error = disk_.faults.sync_error = 0;
  network_.faults.cut = network_.faults.stall = network_.faults.duplicate = 0;
  trace_.Note(scheduler_.Now(), "farm", "is left in peace");
}

void Farm::KillOne(Process* process, const char* what) {
  if (process == nullptr || !process->alive()) return;
  trace_.Count(what);
  scheduler_.Kill(*process);
}

void Farm::StallOne(Process* process) {
  if (process == nullptr || !process->alive()) return;
  trace_.Count("process stalled");
  const Duration time = random_.Exponential(history_.disturbances.stall_time);
  trace_.Note(scheduler_.Now(), process->name(), "stalls", "ms",
              static_cast<std::uint64_t>(time / milliseconds(1)));
  scheduler_.Stall(*process, time);
}

void Farm::CutPower() {
  const int machines = history_.one_machine ? 1 : 5;
  CutPowerOf(static_cast<int>(random_.Below(static_cast<std::uint64_t>(machines))));
}

void Farm::CutPowerOf(int machine) {
  trace_.Note(scheduler_.Now(), "machine " + std::to_string(machine), "loses power");
  for (const auto& process : scheduler_.processes()) {
    if (process->machine() == machine) scheduler_.Kill(*process);
  }
  disk_.CutPower(machine);
  power_back_[static_cast<std::size_t>(machine)] =
      scheduler_.Now() + random_.Between(Duration(milliseconds(100)), Duration(seconds(5)));
}

// No room on the disk of broker and learner, or of one of them.
void Farm::FillDisk() {
  const std::uint64_t who = random_.Below(3);
  for (int machine : {BrokerMachine(), LearnerMachine()}) {
    if (history_.one_machine || who == 2 || static_cast<int>(who) == machine) {
      disk_.faults.full.insert(machine);
    }
  }
  trace_.Count("disk fills");
  trace_.Note(scheduler_.Now(), "disk", "is full");
  scheduler_.After(random_.Exponential(history_.disturbances.disk_full_time), [this] {
    disk_.faults.full.clear();
    trace_.Note(scheduler_.Now(), "disk", "has room");
  });
}

Process* Farm::AnyActor() { return actors_[random_.Below(actors_.size())].process; }
Process* Farm::AnyRank() { return ranks_[random_.Below(ranks_.size())].process; }

void Farm::OnReached(std::string_view, std::string_view point) {
  if (scheduler_.current() == nullptr || scheduler_.Dead()) return;
  if (point == "step") {
    scheduler_.Sleep(random_.Exponential(scheduler_.current()->turn), "computes");
  }
  Pass(point);
}

void Farm::OnDiskUse(const char* point) {
  Process& process = *scheduler_.current();
  const std::uint64_t cut_at = history_.disturbances.power_cut_at_use;
  if (&process == broker_process_ && ++broker_disk_uses_ == cut_at) {
    scheduler_.At(scheduler_.Now(), [this] { CutPowerOf(BrokerMachine()); });
    scheduler_.Kill(process);
    return;
  }
  Pass(point);
}

void Farm::Pass(std::string_view point) {
  const Disturbances& d = history_.disturbances;
  trace_.Count("point " + std::string(point));
  const double chance = point == d.deadly_point ? d.kill_at_deadly_point : d.kill_at_point;
  if (calm_ || !random_.Chance(chance)) return;
  Process& process = *scheduler_.current();
  trace_.Count("death at " + std::string(point));
  trace_.Note(scheduler_.Now(), process.name(), "dies at", point);
  scheduler_.Kill(process);
}

}  // namespace thresher::sim
