#include "learner/rank_loop.h"

#include <utility>

#include "common/base/process.h"
#include "learner/trainer.h"

namespace thresher::learner {

Session::Options SessionOptionsOf(const model::RunContext& run, LearnerRank rank,
                                  std::uint32_t world, const std::string& endpoint) {
  Session::Options options;
  options.link.run_folder = run.folder;
  options.link.endpoint = endpoint;
  options.link.role = wire::PeerRole::kLearner;
  options.link.run_id = run.run_id;
  options.link.incarnation = NewIncarnation();
  options.link.max_message_bytes = static_cast<std::size_t>(run.config.broker.max_message_bytes);
  options.hello.role = wire::PeerRole::kLearner;
  options.hello.index = rank.value;
  options.hello.world = world;
  options.hello.name = "learner-" + std::to_string(rank.value);
  options.hello.pid = ThisProcess().pid;
  options.hello.identity = run.identity;
  return options;
}

Status RunRank(const model::RunContext& run, Session& session, const ConnectRanks& connect,
               FaultPlan faults, Compute compute) {
  const auto welcome = session.Join();
  if (!welcome.ok()) return welcome.status();
  THRESHER_ASSIGN_OR_RETURN(comm::Communicator * communicator, connect(session));
  Trainer trainer(run, *communicator, session, std::move(faults), std::move(compute.device),
                  std::move(compute.turn));
  THRESHER_RETURN_IF_ERROR(trainer.Start(welcome->durable_steps));
  const Status status = trainer.Run();
  if (status.code() == StatusCode::kCancelled) {
    session.Leave("stopped after a checkpoint");
    return status;
  }
  THRESHER_RETURN_IF_ERROR(status);
  const auto stop = session.AwaitShutdown();
  if (!stop.ok()) return stop.status();
  THRESHER_RETURN_IF_ERROR(trainer.End(stop->keep));
  session.Leave("finished");
  return Status::Ok();
}

}  // namespace thresher::learner
