// thresher-learner: one learner rank; started alone, as an MPI job, or by any launcher (NCCL).
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>

#include "common/backend/backend.h"
#include "common/base/fault.h"
#include "common/comm/communicator.h"
#include "common/comm/nccl_hello.h"
#include "common/comm/watchdog.h"
#include "common/config/config.h"
#include "common/log/log.h"
#include "common/model/kernel_choice.h"
#include "common/model/run_context.h"
#include "common/sync/device_turn.h"
#include "learner/leaf.h"
#include "learner/rank_loop.h"
#include "learner/ranks.h"

#ifdef THRESHER_LEARNER_CUDA
#include "common/comm/cuda_port.h"
#include "common/comm/nccl.h"
#include "common/gpu/device.h"
#endif

namespace thresher::learner {
namespace {

constexpr int kExitFailure = 3, kExitConfig = 2, kExitStopped = 75;

int Fail(const Status& status, int code) {
  std::cerr << "thresher-learner: " << status.ToString() << "\n";
  return code;
}

#ifdef THRESHER_WITH_MPI
constexpr bool kWithMpi = true;
#else
constexpr bool kWithMpi = false;
#endif

std::chrono::milliseconds DeadlineOf(const Config& config) {
  return std::chrono::seconds(config.learner.collective_timeout_seconds);
}

// The ranks of the MPI job that started us.
Result<std::unique_ptr<comm::Communicator>> JoinMpiJob(
    [[maybe_unused]] std::chrono::milliseconds deadline) {
#ifdef THRESHER_WITH_MPI
  return comm::MakeMpi(deadline);
#else
  return FailedPrecondition(
      "started as a rank of an MPI job, but built without MPI, where learner.ranks is 1 or "
      "learner.communicator is nccl; for more, install libopenmpi-dev and openmpi-bin, and build "
      "again with -DTHRESHER_MPI=ON");
#endif
}

const char* Variable(const char* name) { return std::getenv(name); }

#ifdef THRESHER_LEARNER_CUDA
constexpr bool kWithNccl = true;

// The device of the rank's leaves; of ranks on CPUs any, for what passes through it.
Result<std::unique_ptr<comm::DevicePort>> OpenPort(const Config& config, int local_rank) {
  const bool cpu = config.learner.device == "cpu";
  THRESHER_ASSIGN_OR_RETURN(const auto choice,
                            ParseDevices(cpu ? "cuda" : config.learner.device, "learner.device"));
  THRESHER_ASSIGN_OR_RETURN(const Device device, backend::DeviceOf(choice, local_rank));
  THRESHER_RETURN_IF_ERROR(gpu::OpenDevice(device.index).status());
  return comm::MakeCudaPort();
}

Result<std::unique_ptr<comm::Communicator>> MakeNccl(const Config& config, const Place& place,
                                                     const comm::GatherStrings& gather) {
  comm::NcclOptions options;
  options.rank = place.rank;
  options.size = place.size;
  options.deadline = DeadlineOf(config);
  THRESHER_ASSIGN_OR_RETURN(
      auto made, comm::NcclCommunicator::Make(
                     options, [&] { return OpenPort(config, place.local_rank); }, gather));
  return std::unique_ptr<comm::Communicator>(std::move(made));
}
#else
constexpr bool kWithNccl = false;

Result<std::unique_ptr<comm::Communicator>> MakeNccl(const Config&, const Place&,
                                                     const comm::GatherStrings&) {
  return FailedPrecondition("this build has no CUDA");
}
#endif

// This process among the ranks of its job.
struct Ranks {
  CommunicatorKind kind = CommunicatorKind::kSingle;
  Place place;
  std::unique_ptr<comm::Communicator> start;  // what is there before the broker is; may be null
  std::unique_ptr<comm::Communicator> comm;   // over NCCL; else `start` is used
  std::unique_ptr<comm::Watchdog> watchdog;   // of the training's; a single rank has none
};

Result<Ranks> FindRanks(const Config& config) {
  Ranks ranks;
  const bool in_mpi_job = InMpiJob(Variable);
  const std::string device = config.learner.device == "cpu" ? "cpu" : "cuda";
  THRESHER_ASSIGN_OR_RETURN(
      ranks.kind, ResolveCommunicator(config.learner.communicator, device, config.learner.ranks,
                                      in_mpi_job, kWithNccl));
  const bool over_mpi = ranks.kind == CommunicatorKind::kMpi ||
                        (ranks.kind == CommunicatorKind::kNccl && in_mpi_job && kWithMpi);
  if (ranks.kind == CommunicatorKind::kSingle) ranks.start = comm::MakeSingle();
  if (over_mpi) {
    THRESHER_ASSIGN_OR_RETURN(ranks.start, JoinMpiJob(DeadlineOf(config)));
  }
  const auto told = PlaceInJob(Variable, config.learner.ranks);
  if (told.ok()) ranks.place = *told;
  if (ranks.start) {  // knows better
    ranks.place.rank = ranks.start->rank();
    ranks.place.size = ranks.start->size();
    if (!told.ok()) ranks.place.local_rank = static_cast<int>(ranks.place.rank.value);
  } else if (!told.ok()) {
    return told.status();
  }
  if (ranks.place.size != static_cast<std::uint32_t>(config.learner.ranks)) {
    return InvalidArgument("learner.ranks is " + std::to_string(config.learner.ranks) +
                           ", the job has " + std::to_string(ranks.place.size) + " ranks");
  }
  return ranks;
}

// The communicator of the training, once the broker is there.
Result<comm::Communicator*> Meet(const Config& config, Ranks& ranks, Session& session) {
  if (ranks.kind != CommunicatorKind::kNccl) return ranks.start.get();
  const comm::GatherStrings through_broker = [&](const std::string& mine) {
    return session.Meet(ranks.place.job, mine, DeadlineOf(config));
  };
  THRESHER_ASSIGN_OR_RETURN(
      ranks.comm,
      MakeNccl(config, ranks.place, ranks.start ? comm::GatherOver(*ranks.start) : through_broker));
  return ranks.comm.get();
}

// The same, watched.
Result<comm::Communicator*> Connect(const model::RunContext& run, Ranks& ranks, Session& session) {
  THRESHER_ASSIGN_OR_RETURN(comm::Communicator * made, Meet(run.config, ranks, session));
  if (made->size() == 1) return made;
  comm::WatchdogOptions options;
  options.folder = run.folder / "learner";
  options.rank = made->rank();
  options.size = made->size();
  options.job = ranks.place.job;
  options.deadline = DeadlineOf(run.config);
  THRESHER_ASSIGN_OR_RETURN(ranks.watchdog,
                            comm::Watchdog::Start(made->recorder(), std::move(options)));
  return made;
}

// What computes this rank's steps.
Result<Compute> OpenDevice(const model::RunContext& run, int local_rank) {
  const bool shared = run.config.engine.colocated;
  Compute compute;
  THRESHER_ASSIGN_OR_RETURN(const auto choice,
                            ParseDevices(run.config.learner.device, "learner.device"));
  if (choice.kind == DeviceKind::kCpu) return compute;
  THRESHER_ASSIGN_OR_RETURN(const Device device, backend::DeviceOf(choice, local_rank));
  backend::TrainingOptions options;
  options.colocated = shared;
  options.resident = !run.config.learner.offload_optimizer;
  options.valid_vocab = run.tokenizer->vocab();
  options.critic = run.config.objective.critic != "none" && run.config.rl.steps > 0;
  THRESHER_ASSIGN_OR_RETURN(compute.device,
                            backend::MakeTrainingDevice(device, run.model, options));
  if (shared) {
    THRESHER_ASSIGN_OR_RETURN(compute.turn,
                              backend::OpenTurn(device, run.folder, TurnSide::kLearners));
  }
  return compute;
}

int Main(const std::string& run_folder, const std::string& endpoint) {
  auto run = model::OpenRun(run_folder);
  if (!run.ok()) return Fail(run.status(), kExitConfig);
  Status chosen = model::ChooseCpuVariant(run->config.engine.kernels, "engine.kernels");
  if (!chosen.ok()) return Fail(chosen, kExitConfig);
  auto ranks = FindRanks(run->config);
  if (!ranks.ok()) {
    const StatusCode code = ranks.status().code();
    const bool config =
        code == StatusCode::kInvalidArgument || code == StatusCode::kFailedPrecondition;
    return Fail(ranks.status(), config ? kExitConfig : kExitFailure);
  }
  auto faults = FaultPlan::FromEnvironment("learner-" + std::to_string(ranks->place.rank.value));
  if (!faults.ok()) return Fail(faults.status(), kExitConfig);
  auto device = OpenDevice(*run, ranks->place.local_rank);
  if (!device.ok()) return Fail(device.status().WithContext("learner.device"), kExitFailure);
  Session session(SessionOptionsOf(*run, ranks->place.rank, ranks->place.size, endpoint));
  Status status = RunRank(
      *run, session, [&](Session& joined) { return Connect(*run, *ranks, joined); },
      std::move(faults).value(), std::move(device).value());
  if (status.ok()) return 0;
  if (status.code() == StatusCode::kCancelled) return kExitStopped;
  return Fail(status, kExitFailure);
}

}  // namespace
}  // namespace thresher::learner

int main(int argc, char** argv) {
  // What is freed goes back at once, as check counts on: left alone, glibc comes to keep blocks of
  // up to 32 MiB, and of models of that size a rank then has a fifth more than it uses.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  CLI::App app{"One learner rank of a run; start R of them with mpirun.", "thresher-learner"};
  std::string run, endpoint;
  app.add_option("--run", run, "Run directory, shared by all ranks")->required();
  app.add_option("--broker", endpoint,
                 "tcp://host:port of the broker; default: the run directory's rendezvous.json");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    thresher::LogOptions log;
    log.process = "learner";
    (void)thresher::InitLog(log);
    return thresher::learner::Main(run, endpoint);
  } catch (const thresher::ConfigError& error) {
    std::cerr << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "thresher-learner: " << error.what() << "\n";
    return 3;
  }
}
