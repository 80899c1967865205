#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actor/actor.h"
#include "broker/broker_loop.h"
#include "common/base/fault.h"
#include "common/comm/communicator.h"
#include "common/model/run_context.h"
#include "tests/support/sim/credit_watch.h"
#include "tests/support/sim/disk.h"
#include "tests/support/sim/history.h"
#include "tests/support/sim/late_reporter.h"
#include "tests/support/sim/lease_watch.h"
#include "tests/support/sim/network.h"
#include "tests/support/sim/promises.h"
#include "tests/support/sim/scheduler.h"
#include "tests/support/sim/substitutions.h"

namespace thresher::sim {

// A whole run in simulation: the production loops of broker, actors and learner ranks as simulated
// processes, a supervisor that starts again whoever ends too early, and a history's disturbances.
class Farm : public FaultObserver {
 public:
  static inline const std::filesystem::path kRun = "/simulated/run";

  Farm(const History& history, Trace& trace);
  ~Farm() override;

  // To the end of the run. What went wrong on the way, one a line; empty: nothing did.
  std::string Run();

  Disk& disk() { return disk_; }
  Network& network() { return network_; }
  Scheduler& scheduler() { return scheduler_; }
  const Promises& promises() const { return promises_; }
  std::uint64_t broker_disk_uses() const { return broker_disk_uses_; }  // over its lives

  // FaultObserver: counts, spends the time of computing, and may kill.
  void OnReached(std::string_view process, std::string_view point) override;

 private:
  struct ActorSeat {
    Process* process = nullptr;
    actor::Actor* actor = nullptr;  // while it runs
    std::string name;
  };
  struct Rank {
    Process* process = nullptr;
    bool ended = false;
  };

  Status Prepare();
  int RunBroker();
  int RunActor(ActorSeat& seat, std::uint32_t index);
  int RunRank(std::uint32_t rank, comm::Communicator& communicator);

  void StartBroker();
  void StartActor(std::uint32_t index);
  void StartLateReporter();
  void StartJob();
  void OnBrokerExit(const Exit& exit);
  void OnActorExit(std::uint32_t index, const Exit& exit);
  void OnRankExit(std::uint32_t rank, const Exit& exit);
  // Starts somebody again after a while, when its machine has power.
  void Again(int machine, std::function<void()> start);
  void SendEverybodyHome();

  void Disturb();
  // `event` again and again until the disturbances end, on average once in `mean`; never for zero.
  void Every(Duration mean, std::function<void()> event);
  void Calm();
  void CutPower();
  void CutPowerOf(int machine);
  void OnDiskUse(const char* point);
  void FillDisk();
  void StallOne(Process* process);
  void KillOne(Process* process, const char* what);
  void Pass(std::string_view point);
  void OnSend(const Process& sender, const Network::Peer& peer, const std::string& bytes);
  void OnReceive(const Process& receiver, const Network::Peer& peer, const std::string& bytes);
  void LookAtDisk();
  void LookAtCheckpoint(const wire::CheckpointDone& done);
  Process* AnyActor();
  Process* AnyRank();

  int BrokerMachine() const { return 0; }
  int LearnerMachine() const { return history_.one_machine ? 0 : 1; }
  int ActorMachine(std::uint32_t index) const {
    return history_.one_machine ? 0 : 2 + static_cast<int>(index % 3);
  }
  bool Over() const;
  void Problem(const std::string& text);

  const History history_;
  Trace& trace_;
  Random random_;
  Scheduler scheduler_;
  Disk disk_;
  Network network_;
  SeededEntropy entropy_;
  Promises promises_{history_.config};
  LeaseWatch leases_;
  CreditWatch credits_;
  Substitutions substitutions_;
  std::optional<model::RunContext> run_;
  broker::BrokerOptions broker_options_;

  Process* broker_process_ = nullptr;
  broker::BrokerLoop* broker_ = nullptr;  // while it runs
  std::vector<ActorSeat> actors_;
  std::vector<Rank> ranks_;
  std::optional<LateReporter> late_reporter_;
  std::vector<TimePoint> power_back_;  // by machine
  std::uint64_t broker_disk_uses_ = 0;
  std::uint64_t disk_troubles_ = 0;  // when LookAtDisk was asked for last
  int looks_ = 0;                    // still to come
  std::uint64_t promised_ = 0;       // answers
  bool finished_ = false;            // the broker said so
  bool calm_ = false;
  std::string problems_;
};

}  // namespace thresher::sim
