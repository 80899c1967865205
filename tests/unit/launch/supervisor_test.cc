#include "launch/supervisor.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/unit/launch/temporary_folder.h"

namespace thresher::launch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using State = Supervisor::State;

constexpr const char* kForever = "while :; do sleep 0.01; done";

// A farm whose programs are shell scripts. Each start appends "NAME ATTEMPT" to RUN/starts.
class SupervisorTest : public ::testing::Test {
 protected:
  SupervisorTest() {
    config_ = ParseConfig("", "test", {"actors.count=2", "actors.max_restarts=3"});
    timing_.first_backoff = milliseconds(1);
    timing_.longest_backoff = milliseconds(5);
    timing_.finish_grace = milliseconds(50);
    timing_.term_grace = milliseconds(100);
    Script("broker", kForever);
    Script("learner", kForever);
    Script("actor", kForever);
  }

  std::string Path(const std::string& name) { return (folder_.path() / name).string(); }
  void Script(const std::string& name, const std::string& body) {
    std::ofstream(Path(name)) << "#!/bin/sh\necho " << name << " $THRESHER_ATTEMPT $4 >> "
                              << Path("starts") << "\n"
                              << body << "\n";
    std::filesystem::permissions(Path(name), std::filesystem::perms::owner_all);
  }
  Supervisor Make() {
    return Supervisor(folder_.path(), config_, {Path("actor"), Path("broker"), Path("learner"), ""},
                      timing_);
  }
  // Polls until the supervisor is done, or `condition` holds.
  State PollUntil(Supervisor& supervisor, const std::function<bool()>& condition) {
    State state = State::kRunning;
    EXPECT_TRUE(WaitUntil([&] {
      state = supervisor.Poll();
      return state != State::kRunning || condition();
    }));
    return state;
  }
  State PollToEnd(Supervisor& supervisor) {
    return PollUntil(supervisor, [] { return false; });
  }
  std::string Starts() {
    std::ifstream in(Path("starts"));
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  int CountStarts(const std::string& line) {
    std::istringstream in(Starts());
    int count = 0;
    for (std::string text; std::getline(in, text);) count += text.rfind(line, 0) == 0;
    return count;
  }

  TemporaryFolder folder_;
  Config config_;
  Supervisor::Timing timing_;
};

TEST_F(SupervisorTest, StartsBrokerLearnerAndActors) {
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  EXPECT_EQ(PollUntil(supervisor, [&] { return CountStarts("") == 4; }), State::kRunning);
  EXPECT_EQ(CountStarts("broker 0"), 1);
  EXPECT_EQ(CountStarts("learner 0"), 1);
  EXPECT_EQ(CountStarts("actor 0 0"), 1);
  EXPECT_EQ(CountStarts("actor 0 1"), 1);
}

TEST_F(SupervisorTest, RestartsAKilledActorAndTellsItsAttempt) {
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  PollUntil(supervisor, [&] { return CountStarts("") == 4; });
  for (const auto& [name, pid] : supervisor.Processes()) {
    if (name == "actor-1") kill(pid, SIGKILL);
  }
  EXPECT_EQ(PollUntil(supervisor, [&] { return CountStarts("actor 1 1") == 1; }), State::kRunning);
  ASSERT_EQ(supervisor.faults().size(), 1u);
  EXPECT_EQ(supervisor.faults()[0], "actor-1: SIGKILL, restarted (1)");
}

TEST_F(SupervisorTest, RestartsAnActorThatSomebodyElseStopped) {
  Script("actor", "[ $THRESHER_ATTEMPT = 0 ] && exit 75; " + std::string(kForever));
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  EXPECT_EQ(PollUntil(supervisor, [&] { return CountStarts("actor 1") == 2; }), State::kRunning);
}

TEST_F(SupervisorTest, RestartsAKilledBroker) {
  Script("broker", "[ $THRESHER_ATTEMPT = 0 ] && kill -9 $$; " + std::string(kForever));
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  EXPECT_EQ(PollUntil(supervisor, [&] { return CountStarts("broker 1") == 1; }), State::kRunning);
}

TEST_F(SupervisorTest, WaitsLongerBeforeEachRestart) {
  timing_.first_backoff = milliseconds(40);
  timing_.longest_backoff = seconds(10);
  Script("actor", "exit 3");
  Supervisor supervisor = Make();
  auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(supervisor.Start().ok());
  EXPECT_EQ(PollToEnd(supervisor), State::kFailed);
  // 40 + 80 + 160 ms before the third restart, whose end exceeds the budget.
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(280));
}

TEST_F(SupervisorTest, FailsWhenARestartBudgetIsSpentAndQuotesTheLog) {
  Script("actor", "echo the reason >&2; exit 3");
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  EXPECT_EQ(PollToEnd(supervisor), State::kFailed);
  EXPECT_NE(supervisor.failure().find("exit 3 after 3 restarts"), std::string::npos)
      << supervisor.failure();
  EXPECT_NE(supervisor.failure().find("the reason"), std::string::npos);
  EXPECT_TRUE(supervisor.Processes().empty());
}

TEST_F(SupervisorTest, ABrokerThatCannotStartIsFinal) {
  Script("broker", "echo address in use >&2; exit 3");
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  EXPECT_EQ(PollToEnd(supervisor), State::kFailed);
  EXPECT_EQ(CountStarts("broker"), 1);
  EXPECT_NE(supervisor.failure().find("address in use"), std::string::npos);
}

TEST_F(SupervisorTest, ABadConfigurationIsFinal) {
  Script("actor", "exit 2");
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  EXPECT_EQ(PollToEnd(supervisor), State::kFailed);
  EXPECT_LE(CountStarts("actor"), 2);
}

TEST_F(SupervisorTest, FinishesWithTheBroker) {
  Script("broker", "exit 0");
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  EXPECT_EQ(PollToEnd(supervisor), State::kFinished);
  EXPECT_TRUE(supervisor.Processes().empty());
}

TEST_F(SupervisorTest, AsksOnlyTheBrokerFirst) {
  Script("broker", "trap 'exit 75' TERM; " + std::string(kForever));
  Script("learner", "trap 'echo asked > " + Path("learner-asked") + "; exit 75' TERM; " + kForever);
  timing_.finish_grace = seconds(30);
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  PollUntil(supervisor, [&] { return CountStarts("") == 4; });
  std::this_thread::sleep_for(milliseconds(50));  // for the traps to be set; nothing tells
  supervisor.RequestStop(seconds(30));
  PollUntil(supervisor, [&] { return supervisor.Processes().front().first != "broker"; });
  EXPECT_FALSE(std::filesystem::exists(Path("learner-asked")));
}

TEST_F(SupervisorTest, KillsWhoDoesNotListen) {
  for (const char* name : {"broker", "learner", "actor"}) {
    Script(name, "trap '' TERM; " + std::string(kForever));
  }
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  PollUntil(supervisor, [&] { return CountStarts("") == 4; });
  auto processes = supervisor.Processes();
  supervisor.RequestStop(milliseconds(50));
  EXPECT_EQ(PollToEnd(supervisor), State::kStopped);
  for (const auto& [name, pid] : processes) EXPECT_FALSE(IsAlive(pid)) << name;
}

TEST_F(SupervisorTest, RestartsNobodyWhileStopping) {
  Script("actor", "trap 'exit 3' TERM; " + std::string(kForever));
  Supervisor supervisor = Make();
  ASSERT_TRUE(supervisor.Start().ok());
  PollUntil(supervisor, [&] { return CountStarts("") == 4; });
  supervisor.RequestStop(milliseconds(20));
  EXPECT_EQ(PollToEnd(supervisor), State::kStopped);
  EXPECT_EQ(CountStarts("actor"), 2);
}

TEST_F(SupervisorTest, LeavesNothingBehindWhenItGoes) {
  std::vector<std::pair<std::string, pid_t>> processes;
  {
    Supervisor supervisor = Make();
    ASSERT_TRUE(supervisor.Start().ok());
    processes = supervisor.Processes();
  }
  ASSERT_EQ(processes.size(), 4u);
  for (const auto& [name, pid] : processes) EXPECT_FALSE(IsAlive(pid)) << name;
}

TEST_F(SupervisorTest, LeavesNothingBehindWhenItIsKilled) {
  pid_t child = fork();
  if (child == 0) {
    Supervisor supervisor = Make();
    bool started = supervisor.Start().ok();
    std::ofstream pids(Path("pids.tmp"));
    for (const auto& [name, pid] : supervisor.Processes()) pids << pid << "\n";
    pids.close();
    std::filesystem::rename(Path("pids.tmp"), Path("pids"));
    while (started) pause();
    _exit(1);
  }
  ASSERT_TRUE(WaitUntil([&] { return std::filesystem::exists(Path("pids")); }));
  std::vector<pid_t> pids;
  std::ifstream in(Path("pids"));
  for (pid_t pid = 0; in >> pid;) pids.push_back(pid);
  ASSERT_EQ(pids.size(), 4u);
  kill(child, SIGKILL);
  Reap(child);
  for (pid_t pid : pids) EXPECT_TRUE(WaitUntil([&] { return !IsAlive(pid); })) << pid;
}

// As Open MPI's does when a rank dies while it shakes hands with it.
TEST_F(SupervisorTest, AJobWhoseLauncherStaysBehindItsRanksIsStartedAgain) {
  config_ = ParseConfig("", "test", {"learner.ranks=2", "actors.count=1"});
  timing_.job_alone = milliseconds(200);
  Script("mpirun",
         "if [ $THRESHER_ATTEMPT = 0 ]; then sleep 0.3 & else sleep 100 & fi\n"
         "exec sleep 1000");
  Supervisor supervisor(folder_.path(), config_,
                        {Path("actor"), Path("broker"), Path("learner"), Path("mpirun")}, timing_);
  ASSERT_TRUE(supervisor.Start().ok());
  EXPECT_EQ(PollUntil(supervisor, [&] { return CountStarts("mpirun 1") == 1; }), State::kRunning);
  ASSERT_EQ(supervisor.faults().size(), 2u);
  EXPECT_EQ(supervisor.faults()[0], "learner: its launcher runs without ranks, killed");
  EXPECT_EQ(supervisor.faults()[1], "learner: SIGKILL, restarted (1)");
  const TimePoint until = SystemClock().Now() + milliseconds(600);
  PollUntil(supervisor, [&] { return SystemClock().Now() > until; });
  EXPECT_EQ(CountStarts("mpirun 2"), 0) << "its ranks run";
}

TEST_F(SupervisorTest, SeveralRanksNeedMpirun) {
  config_ = ParseConfig("", "test", {"learner.ranks=2"});
  Supervisor supervisor = Make();
  Status status = supervisor.Start();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("mpirun"), std::string::npos);
}

}  // namespace
}  // namespace thresher::launch
