#include "common/comm/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>

#include "common/data/files.h"
#include "tests/unit/comm/comm_testing.h"

namespace thresher::comm {
namespace {

using namespace std::chrono_literals;
using namespace testing;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

RankPlace At(std::uint64_t sequence, const char* what, bool over = false) {
  return {"job", 5, sequence, what, over};
}

TEST(RankPlaceTest, SurvivesItsFile) {
  const RankPlace place = At(12, "exchange 'gradient'", true);
  const auto parsed = ParsePlace(EncodePlace(place));
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(*parsed, place);
  for (const char* text : {"", "{", "[]", R"({"job": "x"})", R"({"job":1,"beat":1})"}) {
    EXPECT_EQ(ParsePlace(text).status().code(), StatusCode::kDataLoss) << text;
  }
}

TEST(RankPlaceTest, SaysWhoIsBehindAheadElsewhereOrSilent) {
  const std::vector<PeerPlace> peers = {{1, At(11, "barrier 'end'"), 10ms},
                                        {2, At(12, "broadcast 'weights'"), 10ms},
                                        {3, At(11, "barrier 'end'", true), 4200ms},
                                        {4, At(13, "barrier 'end'"), 10ms},
                                        {5, At(12, "exchange 'gradient'"), 10ms},
                                        {6, At(12, "exchange 'gradient'"), 2s},
                                        {7, std::nullopt, 2s},
                                        {8, At(0, "", false), 0ms}};
  EXPECT_THAT(
      WhoIsWhere(At(12, "exchange 'gradient'"), peers, 1s),
      ElementsAre("rank 1 is behind: in barrier 'end' #11",
                  "rank 2 is in broadcast 'weights' #12 instead",
                  "rank 3 is behind: done with barrier 'end' #11; nothing heard of its process for "
                  "4.2 s: it is stopped or dead",
                  "rank 4 is ahead: in barrier 'end' #13",
                  "rank 6: nothing heard of its process for 2.0 s: it is stopped or dead",
                  "rank 7 has told of no operation in this job; nothing heard of its process for "
                  "2.0 s: it is stopped or dead",
                  "rank 8 is behind: before its first operation"));
}

class WatchdogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = TemporaryName(std::filesystem::path(::testing::TempDir()) / "watchdog");
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Watchdog> Watch(Communicator& comm, std::chrono::milliseconds deadline,
                                  const std::string& job = "job") {
    WatchdogOptions options;
    options.folder = folder_ / "learner";
    options.rank = comm.rank();
    options.size = comm.size();
    options.job = job;
    options.deadline = deadline;
    auto made = Watchdog::Start(comm.recorder(), options);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    return std::move(made).value();
  }
  nlohmann::json Flight(std::uint32_t rank) {
    const auto text = ReadFile(folder_ / "learner" / ("flight_" + std::to_string(rank) + ".json"));
    return text.ok() ? nlohmann::json::parse(*text) : nlohmann::json();
  }

  std::filesystem::path folder_;
};

TEST_F(WatchdogTest, ARankThatDoesNotComeIsNamedWithWhatItDidLast) {
  Group group = MakeLocalGroup(2, 600ms);
  const auto first = Watch(*group[0], 600ms), second = Watch(*group[1], 600ms);
  OnAllRanks(group, [](Communicator& comm) { EXPECT_TRUE(comm.Barrier("start").ok()); });
  const Status status = group[0]->Barrier("step");
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("rank 0: barrier 'step' #2: rank 1 did not answer within 600 ms"),
                    HasSubstr("rank 1 is behind: done with barrier 'start' #1"),
                    Not(HasSubstr("stopped or dead"))));
  EXPECT_EQ(group[0]->Barrier("later").message(), status.message());
  const nlohmann::json flight = Flight(0);
  EXPECT_EQ(flight["error"], status.message());
  EXPECT_EQ(flight["operations"].size(), 2u);
  EXPECT_EQ(flight["operations"][1]["sequence"], 2);
  EXPECT_EQ(flight["operations"][1]["state"], "failed");
  EXPECT_GE(flight["operations"][1]["took_ms"], 600.0);
  EXPECT_EQ(flight["others"][0]["sequence"], 1);
  EXPECT_TRUE(flight["others"][0]["over"]);
}

TEST_F(WatchdogTest, ARankWhoseProcessIsSilentIsSaidToBeStoppedOrDead) {
  Group group = MakeLocalGroup(2, 600ms);
  const auto first = Watch(*group[0], 600ms);
  auto second = Watch(*group[1], 600ms);
  second.reset();  // its file stays, its beat does not
  const Status status = group[0]->Barrier("step");
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("rank 1 is behind: before its first operation; nothing heard"),
                    HasSubstr("it is stopped or dead")));
}

TEST_F(WatchdogTest, RanksInDifferentOperationsAreToldOf) {
  Group group = MakeLocalGroup(2, 600ms);
  const auto first = Watch(*group[0], 600ms), second = Watch(*group[1], 600ms);
  std::vector<float> buffer(2);
  Status status;
  {
    // A broadcast that nobody waits for is over at once on its root.
    EXPECT_TRUE(
        group[1]->Broadcast(LearnerRank(1), std::as_writable_bytes(std::span(buffer)), "w").ok());
    std::jthread other([&] { (void)group[1]->Barrier("end").ok(); });
    status = group[0]->Exchange(LearnerRank(1), buffer, buffer, "gradient");
  }
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 is in broadcast 'w'"));
}

TEST_F(WatchdogTest, AFileOfAnotherJobTellsNothing) {
  Group old = MakeLocalGroup(2, 600ms), group = MakeLocalGroup(2, 600ms);
  Watch(*old[1], 600ms, "the job before").reset();
  const auto first = Watch(*group[0], 600ms);
  EXPECT_THAT(group[0]->Barrier("step").message(),
              HasSubstr("rank 1 has told of no operation in this job"));
}

TEST_F(WatchdogTest, ALibraryThatNeverComesBackIsGivenUp) {
  const auto recorder = std::make_shared<FlightRecorder>();
  std::promise<std::string> stuck;
  WatchdogOptions options;
  options.folder = folder_;
  options.rank = LearnerRank(0);
  options.size = 2;
  options.deadline = 50ms;
  options.grace = 50ms;
  options.on_stuck = [&, told = std::make_shared<std::atomic<bool>>()](const std::string& why) {
    if (!told->exchange(true)) stuck.set_value(why);
  };
  auto made = Watchdog::Start(recorder, options);
  ASSERT_TRUE(made.ok());
  OperationRing::Entry entry;
  entry.sequence = 7;
  entry.what = "exchange 'gradient'";
  recorder->Post(entry);
  auto why = stuck.get_future();
  ASSERT_EQ(why.wait_for(20s), std::future_status::ready);
  EXPECT_THAT(why.get(), HasSubstr("exchange 'gradient' #7: the library has not come back"));
}

TEST_F(WatchdogTest, AFolderThatCannotBeMadeIsAnError) {
  Group group = MakeLocalGroup(2, 600ms);
  ASSERT_TRUE(WriteFileAtomic(folder_ / "learner", "a file").ok());
  WatchdogOptions options;
  options.folder = folder_ / "learner";
  options.size = 2;
  options.deadline = 1s;
  EXPECT_FALSE(Watchdog::Start(group[0]->recorder(), options).ok());
}

}  // namespace
}  // namespace thresher::comm
