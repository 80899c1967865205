#include "learner/ranks.h"

#include <charconv>
#include <optional>
#include <string_view>

namespace thresher::learner {
namespace {

std::string Text(const Environment& environment, const char* name) {
  const char* value = environment(name);
  return value == nullptr ? "" : value;
}

// Of one launcher: the variables that tell the rank, the number of ranks ("": not told), the local
// rank, and those that together name the job.
struct Launcher {
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* job[3];
};
constexpr Launcher kLaunchers[] = {
    {"THRESHER_LEARNER_RANK", "", "THRESHER_LEARNER_LOCAL_RANK", {"THRESHER_LEARNER_JOB", "", ""}},
    {"OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK",
     {"PMIX_NAMESPACE", "", ""}},
    {"SLURM_PROCID",
     "SLURM_NTASKS",
     "SLURM_LOCALID",
     {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"}},
};

// Nothing where the variable is not set. Error: it is no number.
Result<std::optional<int>> Number(const Environment& environment, const char* name) {
  const std::string text = Text(environment, name);
  if (text.empty()) return std::optional<int>();
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    return FailedPrecondition(std::string(name) + " is '" + text + "', which is no rank");
  }
  return std::optional<int>(value);
}

}  // namespace

bool InMpiJob(const Environment& environment) {
  return environment("OMPI_COMM_WORLD_SIZE") != nullptr || environment("PMIX_RANK") != nullptr ||
         environment("PMI_RANK") != nullptr;
}

Result<CommunicatorKind> ResolveCommunicator(const std::string& wanted, const std::string& device,
                                             int ranks, bool in_mpi_job, bool with_nccl) {
  if (wanted == "local") return CommunicatorKind::kSingle;
  if (wanted == "mpi") return CommunicatorKind::kMpi;
  const bool between_gpus = device == "cuda" && ranks > 1;
  if (wanted == "nccl" || between_gpus) {
    if (with_nccl) return CommunicatorKind::kNccl;
    return InvalidArgument("learner.communicator: value " + wanted +
                           " needs NCCL; this build has no CUDA (nvcc was not found when it was "
                           "made, or THRESHER_CUDA was OFF); allowed: local, mpi");
  }
  return in_mpi_job ? CommunicatorKind::kMpi : CommunicatorKind::kSingle;
}

Result<Place> PlaceInJob(const Environment& environment, int ranks) {
  Place place;
  place.size = static_cast<std::uint32_t>(ranks);
  for (const Launcher& launcher : kLaunchers) {
    THRESHER_ASSIGN_OR_RETURN(const auto rank, Number(environment, launcher.rank));
    if (!rank) continue;
    THRESHER_ASSIGN_OR_RETURN(const auto size, Number(environment, launcher.size));
    THRESHER_ASSIGN_OR_RETURN(const auto local, Number(environment, launcher.local_rank));
    // A single rank inside somebody else's job: its numbers are not ours.
    if (ranks == 1 && size.value_or(1) != 1) continue;
    if (*rank >= size.value_or(ranks) || size.value_or(ranks) != ranks) {
      return FailedPrecondition("learner.ranks is " + std::to_string(ranks) + ", this is rank " +
                                std::to_string(*rank) + " of " +
                                std::to_string(size.value_or(ranks)) + " (" + launcher.rank +
                                (size ? std::string(", ") + launcher.size : "") + ")");
    }
    place.rank = LearnerRank(static_cast<std::uint32_t>(*rank));
    place.local_rank = local.value_or(*rank);
    for (const char* name : launcher.job) {
      const std::string part = Text(environment, name);
      if (!part.empty()) place.job += (place.job.empty() ? "" : ".") + part;
    }
    return place;
  }
  if (ranks == 1) return place;
  return FailedPrecondition(
      "learner.ranks is " + std::to_string(ranks) +
      ", but nothing says which rank this is: start them with mpirun or srun, or set "
      "THRESHER_LEARNER_RANK and THRESHER_LEARNER_JOB for each");
}

}  // namespace thresher::learner
