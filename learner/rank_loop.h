#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/base/fault.h"
#include "common/base/status.h"
#include "common/comm/communicator.h"
#include "common/model/resident_parameters.h"
#include "common/model/run_context.h"
#include "common/sync/device_turn.h"
#include "learner/session.h"

namespace thresher::learner {

// How rank `rank` of `world` introduces itself, with an incarnation of its own. endpoint: of the
// broker; empty: the run's rendezvous.
Session::Options SessionOptionsOf(const model::RunContext& run, LearnerRank rank,
                                  std::uint32_t world, const std::string& endpoint);

// The communicator of the training, once the broker is there; borrowed, outlives the loop.
using ConnectRanks = std::function<Result<comm::Communicator*>(Session& session)>;

// What computes a rank's steps: the CPU, or a device; and the turns on one that it shares.
struct Compute {
  model::TrainingDevice device;
  std::unique_ptr<DeviceTurn> turn;
};

// The life of one learner rank: joins the broker, meets the other ranks, restores, trains to the
// plan's end and waits to be dismissed. Errors: kCancelled (the broker asked to stop; a checkpoint
// was written), those of Session and Trainer.
Status RunRank(const model::RunContext& run, Session& session, const ConnectRanks& connect,
               FaultPlan faults, Compute compute);

}  // namespace thresher::learner
