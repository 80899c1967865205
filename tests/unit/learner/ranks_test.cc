#include "learner/ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace thresher::learner {
namespace {

using ::testing::HasSubstr;

Environment With(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> const char* {
    const auto found = values.find(name);
    return found == values.end() ? nullptr : found->second.c_str();
  };
}

TEST(RanksTest, AutoTakesNcclBetweenGpusMpiInAJobAndElseTheSingleRank) {
  const auto resolved = [](const char* device, int ranks, bool in_job) {
    return ResolveCommunicator("auto", device, ranks, in_job, true).value();
  };
  EXPECT_EQ(resolved("cpu", 1, false), CommunicatorKind::kSingle);
  EXPECT_EQ(resolved("cpu", 4, true), CommunicatorKind::kMpi);
  EXPECT_EQ(resolved("cpu", 4, false), CommunicatorKind::kSingle);
  EXPECT_EQ(resolved("cuda", 1, false), CommunicatorKind::kSingle);
  EXPECT_EQ(resolved("cuda", 4, false), CommunicatorKind::kNccl);
  EXPECT_EQ(resolved("cuda", 4, true), CommunicatorKind::kNccl);
}

TEST(RanksTest, WhatIsAskedForIsTaken) {
  EXPECT_EQ(ResolveCommunicator("local", "cuda", 1, true, true).value(), CommunicatorKind::kSingle);
  EXPECT_EQ(ResolveCommunicator("mpi", "cuda", 4, false, false).value(), CommunicatorKind::kMpi);
  EXPECT_EQ(ResolveCommunicator("nccl", "cpu", 1, false, true).value(), CommunicatorKind::kNccl);
}

TEST(RanksTest, NcclInABuildWithoutCudaIsAnErrorOfTheConfiguration) {
  for (const char* wanted : {"nccl", "auto"}) {
    const auto kind = ResolveCommunicator(wanted, "cuda", 4, false, false);
    EXPECT_EQ(kind.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(kind.status().message(),
                HasSubstr("learner.communicator: value " + std::string(wanted) +
                          " needs NCCL; this build"));
  }
}

TEST(RanksTest, MpirunAndSrunWithPmixAreMpiJobs) {
  EXPECT_FALSE(InMpiJob(With({{"SLURM_PROCID", "0"}})));
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    EXPECT_TRUE(InMpiJob(With({{name, "2"}}))) << name;
  }
}

TEST(RanksTest, EveryLauncherTellsThePlace) {
  const Place expected{LearnerRank(3), 4, 1, "77"};
  EXPECT_EQ(PlaceInJob(With({{"THRESHER_LEARNER_RANK", "3"},
                             {"THRESHER_LEARNER_LOCAL_RANK", "1"},
                             {"THRESHER_LEARNER_JOB", "77"},
                             {"SLURM_PROCID", "0"}}),
                       4)
                .value(),
            expected);
  EXPECT_EQ(PlaceInJob(With({{"OMPI_COMM_WORLD_RANK", "3"},
                             {"OMPI_COMM_WORLD_SIZE", "4"},
                             {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                             {"PMIX_NAMESPACE", "77"}}),
                       4)
                .value(),
            expected);
  EXPECT_EQ(PlaceInJob(With({{"SLURM_PROCID", "3"},
                             {"SLURM_NTASKS", "4"},
                             {"SLURM_LOCALID", "1"},
                             {"SLURM_JOB_ID", "77"},
                             {"SLURM_STEP_ID", "5"},
                             {"SLURM_RESTART_COUNT", "2"}}),
                       4)
                .value(),
            (Place{LearnerRank(3), 4, 1, "77.5.2"}));
}

TEST(RanksTest, TheLocalRankIsTheRankWhereNobodyTellsIt) {
  EXPECT_EQ(PlaceInJob(With({{"THRESHER_LEARNER_RANK", "3"}}), 4).value().local_rank, 3);
}

TEST(RanksTest, ASingleRankNeedsNoLauncherAndIgnoresAJobAroundIt) {
  EXPECT_EQ(PlaceInJob(With({}), 1).value(), Place{});
  EXPECT_EQ(PlaceInJob(With({{"SLURM_PROCID", "3"}, {"SLURM_NTASKS", "8"}}), 1).value(), Place{});
}

TEST(RanksTest, NumbersThatDoNotFitAreRefused) {
  const auto refusal = [](std::map<std::string, std::string> values) {
    return PlaceInJob(With(std::move(values)), 4).status();
  };
  EXPECT_THAT(refusal({}).message(), HasSubstr("nothing says which rank this is"));
  EXPECT_THAT(refusal({{"THRESHER_LEARNER_RANK", "4"}}).message(), HasSubstr("rank 4 of 4"));
  EXPECT_THAT(refusal({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "8"}}).message(),
              HasSubstr("learner.ranks is 4, this is rank 1 of 8 (SLURM_PROCID, SLURM_NTASKS)"));
  EXPECT_THAT(refusal({{"THRESHER_LEARNER_RANK", "one"}}).message(),
              HasSubstr("THRESHER_LEARNER_RANK is 'one'"));
  EXPECT_EQ(refusal({}).code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace thresher::learner
