#pragma once

#include <functional>
#include <string>

#include "common/base/ids.h"
#include "common/base/status.h"

namespace thresher::learner {

// How the ranks of a learner job talk to each other, and which of them this process is. Pure: the
// environment is passed in.

enum class CommunicatorKind { kSingle, kMpi, kNccl };

// The value of an environment variable, or null.
using Environment = std::function<const char*(const char* name)>;

// Whether mpirun, or srun with PMIx, started this process.
bool InMpiJob(const Environment& environment);

// What learner.communicator (auto, local, mpi, nccl) means for a rank on `device` (cpu, cuda) of a
// job of `ranks`. auto: nccl between GPUs; else mpi inside an MPI job; else the single rank.
// with_nccl: whether this build can. Error: kInvalidArgument, naming key and remedy.
Result<CommunicatorKind> ResolveCommunicator(const std::string& wanted, const std::string& device,
                                             int ranks, bool in_mpi_job, bool with_nccl);

// A rank's place in its job.
struct Place {
  LearnerRank rank;
  std::uint32_t size = 1;
  int local_rank = 0;  // among the ranks of its machine; the rank where that is not told
  std::string job;     // equal on all ranks; another one when the job is started again
  friend bool operator==(const Place&, const Place&) = default;
};
// As the launcher tells it, of a job of `ranks`: THRESHER_LEARNER_RANK, _LOCAL_RANK, _JOB (any
// launcher); those of Open MPI; those of a Slurm step. Error: kFailedPrecondition (more than one
// rank, and none of these; numbers that do not fit).
Result<Place> PlaceInJob(const Environment& environment, int ranks);

}  // namespace thresher::learner
