#include "common/comm/nccl_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/unit/comm/fake_group.h"

namespace thresher::comm {
namespace {

using namespace testing;
using ::testing::HasSubstr;

class NcclLibraryTest : public ::testing::Test {
 protected:
  void SetUp() override { ResetControls(); }
  void TearDown() override { ResetControls(); }
};

TEST_F(NcclLibraryTest, TheFirstCandidateThatIsThereIsTaken) {
  NcclSearch search = FakeSearch();
  search.candidates.insert(search.candidates.begin(), "/nowhere/libnccl.so.2");
  const auto library = OpenNccl(search);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  EXPECT_EQ(library->version, 23203);
  EXPECT_EQ(library->path, std::filesystem::canonical(THRESHER_FAKE_NCCL));
  nccl::ForEachFunction(
      [&](auto member, const char* name) { EXPECT_NE(library->api.*member, nullptr) << name; });
}

TEST_F(NcclLibraryTest, TheOneOfTheProcessComesBeforeAllOthers) {
  ASSERT_TRUE(FakeNccl().ok());  // in the process by now
  NcclSearch search;
  search.loaded = THRESHER_FAKE_NCCL;
  search.candidates = {"/nowhere/libnccl.so.2"};
  const auto library = OpenNccl(search);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  EXPECT_EQ(library->path, std::filesystem::canonical(THRESHER_FAKE_NCCL));
}

TEST_F(NcclLibraryTest, AnOldOneIsRefusedWithWhatIsNeeded) {
  Controls().version = 21403;
  const Status status = OpenNccl(FakeSearch()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("is version 2.14.3; needed: 2.18.0 or newer; install"));
  Controls().version = 2708;  // counted otherwise then
  EXPECT_THAT(OpenNccl(FakeSearch()).status().message(), HasSubstr("is version 2.7.8"));
}

TEST_F(NcclLibraryTest, AnotherLibraryIsRefused) {
  NcclSearch search;
  search.loaded.clear();
  search.candidates = {"libm.so.6"};
  const Status status = OpenNccl(search).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("(no ncclGetVersion)"));
}

TEST_F(NcclLibraryTest, NoneAtAllSaysWhereWasLookedAndTheRemedy) {
  NcclSearch search;
  search.loaded = "libnccl-of-nobody.so.2";
  search.candidates = {"/nowhere/libnccl.so.2", "libnccl-of-nobody.so.2"};
  const Status status = OpenNccl(search).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_THAT(
      status.message(),
      ::testing::AllOf(HasSubstr("/nowhere/libnccl.so.2"), HasSubstr("libnccl-of-nobody.so.2"),
                       HasSubstr("nvidia-nccl-cu13"), HasSubstr("THRESHER_NCCL_LIBRARY")));
}

TEST_F(NcclLibraryTest, TheVariableNamesTheOnlyCandidate) {
  ::setenv("THRESHER_NCCL_LIBRARY", "/nowhere/mine.so", 1);
  const NcclSearch named = DefaultNcclSearch();
  ::setenv("THRESHER_NCCL_LIBRARY", "", 1);
  const NcclSearch unnamed = DefaultNcclSearch();
  ::unsetenv("THRESHER_NCCL_LIBRARY");
  EXPECT_EQ(named.candidates, (std::vector<std::string>{"/nowhere/mine.so"}));
  EXPECT_THAT(OpenNccl(named).status().message(),
              HasSubstr("THRESHER_NCCL_LIBRARY cannot be loaded: /nowhere/mine.so"));
  EXPECT_EQ(unnamed.candidates.back(), "libnccl.so.2");
  EXPECT_EQ(unnamed.loaded, "libnccl.so.2");
}

}  // namespace
}  // namespace thresher::comm
