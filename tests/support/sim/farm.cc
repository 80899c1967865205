#include "tests/support/sim/farm.h"

#include <algorithm>

#include "broker/recovery.h"
#include "common/config/broker_memory.h"
#include "common/data/folder.h"
#include "common/sync/worker_pool.h"
#include "launch/estimate.h"
#include "learner/rank_loop.h"
#include "tests/support/sim/frames.h"

namespace thresher::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kExitDone = 0, kExitFailure = 3, kExitStopped = 75;
constexpr seconds kLimitAfterCalm{3000};
constexpr seconds kFinishGrace{
    10};  // as launch/supervisor.h: then whoever is left is asked to stop
constexpr seconds kKillGrace{40};
constexpr seconds kCollectiveDeadline{60};
constexpr int kMachines = 5;

// Sets a pointer while it lives.
template <typename T>
class Showing {
 public:
  Showing(T*& where, T* what) : where_(where) { where_ = what; }
  ~Showing() { where_ = nullptr; }
  Showing(const Showing&) = delete;
  Showing& operator=(const Showing&) = delete;

 private:
  T*& where_;
};

// Whether a start that ended so may be tried again: the disk was full or failed.
bool MayHeal(const Status& status) {
  return status.code() == StatusCode::kResourceExhausted ||
         status.code() == StatusCode::kUnavailable;
}

// What a learner rank may end with when others died, and nothing is wrong.
bool IsEverydayEnd(const Status& status) {
  if (status.message().find("different weights") != std::string::npos) return false;
  if (status.message().find("was refused") != std::string::npos) return false;
  switch (status.code()) {
    case StatusCode::kUnavailable:
    case StatusCode::kResourceExhausted:
    case StatusCode::kDeadlineExceeded:
    case StatusCode::kCancelled:
    case StatusCode::kAborted:
    case StatusCode::kPermissionDenied:
      return true;
    default:
      return false;
  }
}

// What the journal says is not done yet, one unit a line.
std::string OpenWork(const Config& config) {
  auto recovered = broker::Recover(Farm::kRun, Plan(config));
  if (!recovered.ok()) return "journal: " + recovered.status().ToString() + "\n";
  const broker::RunState& state = recovered->state;
  const auto newest = state.NewestPublished();
  std::string text = "journal: " + std::to_string(state.committed_steps()) +
                     " steps committed, newest version " + (newest ? newest->ToString() : "none") +
                     "\n";
  for (const auto& [key, unit] : state.groups().units()) {
    text += key.ToString() + ": " + std::to_string(unit.outstanding) + " of " +
            std::to_string(unit.issued.items) + " x " + std::to_string(unit.issued.samples) +
            " outstanding, for version " + unit.issued.version.ToString() + "\n";
  }
  return text;
}

}  // namespace

Farm::Farm(const History& history, Trace& trace)
    : history_(history),
      trace_(trace),
      random_(history.seed * 31 + 7),
      scheduler_(random_.Next(), trace),
      disk_(scheduler_, random_.Next()),
      network_(scheduler_, random_.Next()),
      entropy_(random_.Next()),
      leases_(history.config),
      substitutions_({scheduler_, entropy_, *this, disk_, network_}),
      power_back_(kMachines) {
  disk_.faults = history.disturbances.disk;
  network_.faults = history.disturbances.network;
  disk_.hook = [this](const char* point, const std::filesystem::path&) { OnDiskUse(point); };
  network_.kept = Carries<wire::Upload>;
  network_.on_send = [this](const Process& sender, const Network::Peer& peer,
                            const std::string& bytes) { OnSend(sender, peer, bytes); };
  network_.on_receive = [this](const Process& receiver, const Network::Peer& peer,
                               const std::string& bytes) { OnReceive(receiver, peer, bytes); };
}

// Processes go while everything that they use is there.
Farm::~Farm() { scheduler_.EndAll(); }

void Farm::OnSend(const Process& sender, const Network::Peer& peer, const std::string& bytes) {
  if (peer.name.empty()) {
    promises_.OnSent(sender, bytes);
    if (auto checkpoint = Read<wire::CheckpointDone>(bytes)) LookAtCheckpoint(*checkpoint);
    return;
  }
  leases_.OnSent(peer.name, bytes, scheduler_.Now());
  if (auto grant = Read<wire::LeaseGrant>(bytes); grant && !grant->prefixes.empty()) {
    trace_.Count("prefix granted");
  }
  if (broker_ != nullptr) credits_.OnSent(peer.name, bytes, broker_->context());
  if (promises_.OnPromised(peer.pid, bytes)) LookAtDisk();
}

// A broker that died just now, in durable mode with its machine, would have to keep what it
// promised just now. That takes long to see: above all after trouble with a disk, when records have
// waited.
void Farm::LookAtDisk() {
  constexpr int kLooks = 5, kSeldom = 20;
  if (disk_troubles_ != disk_.troubles()) looks_ = kLooks;
  disk_troubles_ = disk_.troubles();
  if (++promised_ % kSeldom != 0 && looks_ == 0) return;
  looks_ = std::max(0, looks_ - 1);
  scheduler_.At(scheduler_.Now(), [this] {
    std::optional<Disk::OnlySynced> after_power_cut;
    if (run_->config.journal.mode == "durable") after_power_cut.emplace(disk_);
    const std::string missing = promises_.Missing(kRun, run_->config);
    if (!missing.empty()) Problem("when an answer has left:\n" + missing);
  });
}

// Whoever reports a checkpoint will never need what was before it.
void Farm::LookAtCheckpoint(const wire::CheckpointDone& done) {
  scheduler_.At(scheduler_.Now(), [this, done] {
    const Disk::OnlySynced after_power_cut(disk_);
    const auto folder = VerifyFolder(kRun / done.folder);
    if (!folder.ok()) {
      Problem("a checkpoint is reported and not on the disk: " + folder.status().ToString());
    } else if (folder->hash != done.manifest_hash) {
      Problem(done.folder + " holds another checkpoint than is reported");
    }
  });
}

void Farm::OnReceive(const Process& receiver, const Network::Peer& peer, const std::string& bytes) {
  const int kind = bytes.size() > 6 ? static_cast<unsigned char>(bytes[6]) : -1;
  trace_.Note(scheduler_.Now(), receiver.name(), "gets a frame", std::to_string(kind),
              bytes.size());
  if (!peer.name.empty()) {
    leases_.OnReceived(peer.name, bytes, scheduler_.Now());
    if (broker_ != nullptr) {
      credits_.OnReceived(peer.name, bytes, broker_->context(), network_.kept_bytes());
    }
    return;
  }
  if (!late_reporter_) return;
  if (auto grant = Read<wire::LeaseGrant>(bytes)) late_reporter_->OnGrant(receiver, *grant);
}

void Farm::Problem(const std::string& text) {
  problems_ +=
      std::to_string(std::chrono::duration<double>(scheduler_.Now().time_since_epoch()).count()) +
      " s: " + text + "\n";
}

// The run directory, as `thresher run` makes it.
Status Farm::Prepare() {
  Config config = history_.config;
  config.net.listen = history_.tcp ? "tcp://10.0.0.1:0" : "ipc";
  // What is written has to be in range; what is used may be smaller, so that little suffices to
  // fill a segment.
  config.journal.segment_bytes =
      std::max(config.journal.segment_bytes, config.broker.max_message_bytes);
  config.weights.chunk_bytes = std::max(config.weights.chunk_bytes, 4096);
  if (config.broker.memory_bytes > 0) {
    config.broker.memory_bytes = std::max(config.broker.memory_bytes, LeastBrokerMemory(config));
  }
  auto environment = launch::EnvironmentOf(config);
  auto run = model::CreateRun(kRun, config, environment->alphabet());
  if (!run.ok()) return run.status();
  run_.emplace(std::move(run).value());
  run_->config.journal.segment_bytes = history_.config.journal.segment_bytes;
  run_->config.weights.chunk_bytes = history_.config.weights.chunk_bytes;
  run_->config.broker.memory_bytes = history_.config.broker.memory_bytes;
  run_->identity.build = "simulated";  // a seed's history is the same for every commit
  broker_options_.run = kRun;
  broker_options_.http = "none";
  disk_.SyncAll();
  return Status::Ok();
}

std::string Farm::Run() {
  Status prepared = Prepare();
  if (!prepared.ok()) return "the run directory: " + prepared.ToString() + "\n";
  StartBroker();
  StartJob();
  actors_.resize(static_cast<std::size_t>(history_.config.actors.count));
  for (std::uint32_t i = 0; i < actors_.size(); ++i) StartActor(i);
  if (history_.late_reports > 0) {
    late_reporter_.emplace(*run_, static_cast<std::uint32_t>(actors_.size()),
                           history_.late_reports);
    StartLateReporter();
  }
  Disturb();
  const TimePoint limit = TimePoint{} + history_.disturbances.until + kLimitAfterCalm;
  const Scheduler::End end = scheduler_.Run([this] { return Over() || !problems_.empty(); }, limit);
  if (end != Scheduler::End::kDone) {
    const char* const texts[] = {"", "nothing will happen any more", "it takes too long",
                                 "time stands still"};
    Problem(std::string("the run does not finish: ") + texts[static_cast<int>(end)] + "\n" +
            scheduler_.Report() + OpenWork(run_->config));
  }
  if (problems_.empty())
    problems_ += promises_.Missing(kRun, run_->config) + leases_.problems() + credits_.problems();
  if (late_reporter_) {
    for (std::uint64_t i = 0; i < late_reporter_->reports(); ++i) trace_.Count("late report");
  }
  return problems_;
}

bool Farm::Over() const {
  if (!finished_) return false;
  return std::none_of(scheduler_.processes().begin(), scheduler_.processes().end(),
                      [](const auto& process) { return process->alive(); });
}

// --- What the processes do: what their main.cc does, without the command line.

int Farm::RunBroker() {
  auto loop = broker::BrokerLoop::Start(broker_options_, run_->config, SystemClock());
  if (!loop.ok()) {
    if (!MayHeal(loop.status())) Problem("the broker cannot start: " + loop.status().ToString());
    trace_.Count("broker start refused by the disk");
    return kExitFailure;
  }
  Showing<broker::BrokerLoop> showing(broker_, loop->get());
  credits_.OnBrokerStarts();
  const int code = (*loop)->Run();
  credits_.OnBrokerEnds((*loop)->context());
  if (code == kExitFailure) Problem("the broker ends the run: " + (*loop)->failure());
  return code;
}

int Farm::RunActor(ActorSeat& seat, std::uint32_t index) {
  auto faults = FaultPlan::FromEnvironment(seat.name);
  WorkerPool pool(1);
  auto engine =
      actor::MakeEngine(run_->model, actor::EngineOptionsOf(run_->config), Device{}, &pool);
  actor::ActorOptions options;
  options.index = index;
  actor::Actor actor(*run_, options, std::move(faults).value(), std::move(engine).value());
  Showing<actor::Actor> showing(seat.actor, &actor);
  const Status status = actor.Run();
  if (status.ok()) return kExitDone;
  if (status.code() == StatusCode::kCancelled) return kExitStopped;
  if (!IsEverydayEnd(status)) Problem(seat.name + " fails: " + status.ToString());
  return kExitFailure;
}

int Farm::RunRank(std::uint32_t rank, comm::Communicator& communicator) {
  const std::string name = "learner-" + std::to_string(rank);
  learner::Session session(
      learner::SessionOptionsOf(*run_, LearnerRank(rank), communicator.size(), ""));
  const Status status = learner::RunRank(
      *run_, session, [&](learner::Session&) { return Result<comm::Communicator*>(&communicator); },
      FaultPlan::FromEnvironment(name).value(), {});
  trace_.Note(scheduler_.Now(), name, "ends", status.ToString());
  if (status.ok()) return kExitDone;
  if (status.code() == StatusCode::kCancelled) return kExitStopped;
  if (!IsEverydayEnd(status)) Problem(name + " fails: " + status.ToString());
  return kExitFailure;
}

// --- The supervisor.

void Farm::Again(int machine, std::function<void()> start) {
  const Duration wait = random_.Between(Duration(milliseconds(10)), Duration(seconds(2)));
  const TimePoint power = power_back_[static_cast<std::size_t>(machine)];
  scheduler_.At(std::max(scheduler_.Now() + wait, power), std::move(start));
}

void Farm::StartBroker() {
  const std::string missing = promises_.Missing(kRun, run_->config);
  if (!missing.empty()) {
    Problem("when the broker starts:\n" + missing);
    return;
  }
  leases_.OnBrokerStarts();
  broker_process_ = &scheduler_.Start(
      "broker", BrokerMachine(), [this] { return RunBroker(); },
      [this](const Exit& exit) { OnBrokerExit(exit); });
  broker_process_->turn = history_.broker_turn;
}

void Farm::OnBrokerExit(const Exit& exit) {
  broker_process_ = nullptr;
  if (!exit.error.empty()) Problem("the broker: " + exit.error);
  if (!exit.killed && exit.code == kExitDone) {
    finished_ = true;
    scheduler_.After(kFinishGrace, [this] { SendEverybodyHome(); });
    return;
  }
  Again(BrokerMachine(), [this] { StartBroker(); });
}

void Farm::SendEverybodyHome() {
  for (ActorSeat& seat : actors_) {
    if (seat.actor != nullptr) seat.actor->RequestStop();
  }
  scheduler_.After(kKillGrace, [this] {
    for (const auto& process : scheduler_.processes()) scheduler_.Kill(*process);
  });
}

void Farm::StartActor(std::uint32_t index) {
  if (finished_) return;
  ActorSeat& seat = actors_[index];
  seat.name = "actor-" + std::to_string(index);
  seat.process = &scheduler_.Start(
      seat.name, ActorMachine(index), [this, &seat, index] { return RunActor(seat, index); },
      [this, index](const Exit& exit) { OnActorExit(index, exit); });
  // Some machines are slower than others.
  seat.process->turn = history_.actor_turn / 2 + random_.Exponential(history_.actor_turn / 2);
}

void Farm::OnActorExit(std::uint32_t index, const Exit& exit) {
  actors_[index].process = nullptr;
  if (!exit.error.empty()) Problem(actors_[index].name + ": " + exit.error);
  if (!exit.killed && exit.code == kExitFailure) trace_.Count("actor gives up");
  Again(ActorMachine(index), [this, index] { StartActor(index); });
}

void Farm::StartLateReporter() {
  if (finished_) return;
  late_reporter_->process = &scheduler_.Start(
      "late-reporter", ActorMachine(0), [this] { return late_reporter_->Run(); },
      [this](const Exit&) { Again(ActorMachine(0), [this] { StartLateReporter(); }); });
}

void Farm::StartJob() {
  if (finished_) return;
  const auto size = static_cast<std::uint32_t>(history_.config.learner.ranks);
  auto group = comm::MakeLocalGroup(size, kCollectiveDeadline);
  ranks_.assign(size, {});
  for (std::uint32_t rank = 0; rank < size; ++rank) {
    // The communicator goes with its rank: so the others find out.
    auto shared = std::make_shared<std::unique_ptr<comm::Communicator>>(std::move(group[rank]));
    ranks_[rank].process = &scheduler_.Start(
        "learner-" + std::to_string(rank), LearnerMachine(),
        [this, rank, shared] {
          const std::unique_ptr<comm::Communicator> communicator = std::move(*shared);
          return RunRank(rank, *communicator);
        },
        [this, rank](const Exit& exit) { OnRankExit(rank, exit); });
    ranks_[rank].process->turn = history_.learner_turn;
  }
}

void Farm::OnRankExit(std::uint32_t rank, const Exit& exit) {
  ranks_[rank].process = nullptr;
  ranks_[rank].ended = true;
  if (!exit.error.empty()) Problem("learner-" + std::to_string(rank) + ": " + exit.error);
  const bool lost = exit.killed || exit.code == kExitFailure;
  if (lost && history_.job_dies_at_once) {
    for (Rank& other : ranks_) {
      if (other.process != nullptr) scheduler_.Kill(*other.process);
    }
  }
  const bool all = std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.ended; });
  if (all) Again(LearnerMachine(), [this] { StartJob(); });
}

}  // namespace thresher::sim
