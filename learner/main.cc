// thresher-learner: one learner rank; started alone or as an MPI job.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>

#include "common/backend/backend.h"
#include "common/base/fault.h"
#include "common/comm/communicator.h"
#include "common/config/config.h"
#include "common/log/log.h"
#include "common/model/kernel_choice.h"
#include "common/model/run_context.h"
#include "learner/leaf.h"
#include "learner/session.h"
#include "learner/trainer.h"

namespace thresher::learner {
namespace {

constexpr int kExitFailure = 3, kExitConfig = 2, kExitStopped = 75;
constexpr std::chrono::minutes kCollectiveDeadline{10};

int Fail(const Status& status, int code) {
  std::cerr << "thresher-learner: " << status.ToString() << "\n";
  return code;
}

// MPI when mpirun (or srun with PMIx) started us, else the only rank.
Result<std::unique_ptr<comm::Communicator>> MakeCommunicator() {
  bool in_job = std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr ||
                std::getenv("PMIX_RANK") != nullptr || std::getenv("PMI_RANK") != nullptr;
  if (!in_job) return comm::MakeSingle();
#ifdef THRESHER_WITH_MPI
  return comm::MakeMpi(kCollectiveDeadline);
#else
  return FailedPrecondition(
      "started as a rank of an MPI job, but built without MPI, where learner.ranks is 1; for more, "
      "install libopenmpi-dev and openmpi-bin, and build again with -DTHRESHER_MPI=ON");
#endif
}

Session::Options SessionOptions(const model::RunContext& run, const comm::Communicator& comm,
                                const std::string& endpoint) {
  Session::Options options;
  options.link.run_folder = run.folder;
  options.link.endpoint = endpoint;
  options.link.role = wire::PeerRole::kLearner;
  options.link.run_id = run.run_id;
  options.link.incarnation = NewIncarnation();
  options.link.max_message_bytes = static_cast<std::size_t>(run.config.broker.max_message_bytes);
  options.hello.role = wire::PeerRole::kLearner;
  options.hello.index = comm.rank().value;
  options.hello.world = comm.size();
  options.hello.name = "learner-" + std::to_string(comm.rank().value);
  options.hello.pid = static_cast<std::uint32_t>(getpid());
  options.hello.identity = run.identity;
  return options;
}

Status Train(const model::RunContext& run, comm::Communicator& comm, Session& session,
             FaultPlan faults, std::unique_ptr<model::TrainingPass> device) {
  auto welcome = session.Join();
  if (!welcome.ok()) return welcome.status();
  Trainer trainer(run, comm, session, std::move(faults), std::move(device));
  THRESHER_RETURN_IF_ERROR(trainer.Start(welcome->durable_steps));
  Status status = trainer.Run();
  if (status.code() == StatusCode::kCancelled) {
    session.Leave("stopped after a checkpoint");
    return status;
  }
  THRESHER_RETURN_IF_ERROR(status);
  auto stop = session.AwaitShutdown();
  if (!stop.ok()) return stop.status();
  session.Leave("finished");
  return Status::Ok();
}

// What computes this rank's leaves; null: the CPU.
Result<std::unique_ptr<model::TrainingPass>> OpenDevice(const model::RunContext& run, int rank) {
  THRESHER_ASSIGN_OR_RETURN(const auto choice,
                            ParseDevices(run.config.learner.device, "learner.device"));
  if (choice.kind == DeviceKind::kCpu) return std::unique_ptr<model::TrainingPass>();
  THRESHER_ASSIGN_OR_RETURN(const Device device, backend::DeviceOf(choice, rank));
  return backend::MakeTrainingPass(device, run.model);
}

int Main(const std::string& run_folder, const std::string& endpoint) {
  auto comm = MakeCommunicator();
  if (!comm.ok()) {
    bool cannot = comm.status().code() == StatusCode::kFailedPrecondition;  // trying again is no use
    return Fail(comm.status(), cannot ? kExitConfig : kExitFailure);
  }
  auto run = model::OpenRun(run_folder);
  if (!run.ok()) return Fail(run.status(), kExitConfig);
  Status chosen = model::ChooseCpuVariant(run->config.engine.kernels, "engine.kernels");
  if (!chosen.ok()) return Fail(chosen, kExitConfig);
  if ((*comm)->size() != static_cast<std::uint32_t>(run->config.learner.ranks)) {
    return Fail(InvalidArgument("learner.ranks is " + std::to_string(run->config.learner.ranks) +
                                ", the job has " + std::to_string((*comm)->size()) + " ranks"),
                kExitConfig);
  }
  auto faults = FaultPlan::FromEnvironment("learner-" + std::to_string((*comm)->rank().value));
  if (!faults.ok()) return Fail(faults.status(), kExitConfig);
  InitialiseTorch();
  auto device = OpenDevice(*run, static_cast<int>((*comm)->rank().value));
  if (!device.ok()) return Fail(device.status().WithContext("learner.device"), kExitFailure);
  Session session(SessionOptions(*run, **comm, endpoint));
  Status status =
      Train(*run, **comm, session, std::move(faults).value(), std::move(device).value());
  if (status.ok()) return 0;
  if (status.code() == StatusCode::kCancelled) return kExitStopped;
  return Fail(status, kExitFailure);
}

}  // namespace
}  // namespace thresher::learner

int main(int argc, char** argv) {
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
