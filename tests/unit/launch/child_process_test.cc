#include "launch/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/unit/launch/temporary_folder.h"

namespace thresher::launch {
namespace {

class ChildProcessTest : public ::testing::Test {
 protected:
  ChildProcess::Options Shell(const std::string& script) {
    ChildProcess::Options options;
    options.argv = {"/bin/sh", "-c", script};
    options.log_file = (folder_.path() / "log").string();
    return options;
  }
  ChildExit Wait(ChildProcess& child) {
    std::optional<ChildExit> how;
    EXPECT_TRUE(WaitUntil([&] { return (how = child.Poll()).has_value(); }));
    return how.value_or(ChildExit{});
  }
  std::string Log() {
    std::ifstream in(folder_.path() / "log");
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  TemporaryFolder folder_;
};

TEST_F(ChildProcessTest, TellsExitCodesFromSignals) {
  auto exits = ChildProcess::Start(Shell("exit 3"));
  ASSERT_TRUE(exits.ok());
  EXPECT_EQ(Wait(*exits).ToString(), "exit 3");
  auto dies = ChildProcess::Start(Shell("kill -9 $$"));
  ASSERT_TRUE(dies.ok());
  EXPECT_EQ(Wait(*dies).ToString(), "SIGKILL");
}

TEST_F(ChildProcessTest, AppendsBothStreamsToTheLog) {
  auto child = ChildProcess::Start(Shell("echo out; echo err >&2"));
  ASSERT_TRUE(child.ok());
  Wait(*child);
  auto again = ChildProcess::Start(Shell("echo more"));
  ASSERT_TRUE(again.ok());
  Wait(*again);
  EXPECT_EQ(Log(), "out\nerr\nmore\n");
}

TEST_F(ChildProcessTest, NamesAProgramThatIsMissing) {
  ChildProcess::Options options = Shell("");
  options.argv[0] = "/no/such/program";
  auto child = ChildProcess::Start(options);
  EXPECT_EQ(child.status().code(), StatusCode::kNotFound);
  EXPECT_NE(child.status().message().find("/no/such/program"), std::string::npos);
}

TEST_F(ChildProcessTest, IsNoRankOfAnMpiJob) {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_UNIVERSE_SIZE", "PMIX_RANK", "PMI_FD",
                           "OMPI_MCA_ess_base_jobid", "OMPI_MCA_btl"}) {
    setenv(name, "1", 1);
  }
  ChildProcess::Options options = Shell("env");
  options.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"}, {"HOME", "/other"}};
  auto child = ChildProcess::Start(options);
  ASSERT_TRUE(child.ok());
  Wait(*child);
  std::string log = "\n" + Log();
  for (const char* gone :
       {"\nOMPI_COMM_", "\nOMPI_UNIVERSE_SIZE", "\nPMIX_", "\nPMI_", "\nOMPI_MCA_ess"}) {
    EXPECT_EQ(log.find(gone), std::string::npos) << gone;
  }
  EXPECT_NE(log.find("\nOMPI_MCA_btl=1\n"), std::string::npos);  // a person's setting
  EXPECT_NE(log.find("\nOMPI_ALLOW_RUN_AS_ROOT=1\n"), std::string::npos);
  EXPECT_NE(log.find("\nHOME=/other\n"), std::string::npos);
}

TEST_F(ChildProcessTest, EndsWithItsHandle) {
  auto child = ChildProcess::Start(Shell("sleep 1000"));
  ASSERT_TRUE(child.ok());
  pid_t pid = child->pid();
  { ChildProcess gone = std::move(child).value(); }
  EXPECT_FALSE(IsAlive(pid));
}

TEST_F(ChildProcessTest, ASignalReachesGrandchildren) {
  auto child = ChildProcess::Start(Shell("sleep 1000 & echo $!; wait"));
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(WaitUntil([&] { return Log().find('\n') != std::string::npos; }));
  pid_t grandchild = static_cast<pid_t>(std::stol(Log()));
  child->Signal(SIGKILL);
  EXPECT_EQ(Wait(*child).signal, SIGKILL);
  EXPECT_TRUE(WaitUntil([&] { return !IsAlive(grandchild); }));
}

TEST_F(ChildProcessTest, DiesWithASupervisorThatIsKilled) {
  pid_t supervisor = fork();
  if (supervisor == 0) {
    auto child = ChildProcess::Start(Shell("echo $$; exec sleep 1000"));
    pause();
    _exit(child.ok() ? 0 : 1);
  }
  ASSERT_TRUE(WaitUntil([&] { return Log().find('\n') != std::string::npos; }));
  pid_t child = static_cast<pid_t>(std::stol(Log()));
  ASSERT_TRUE(IsAlive(child));
  kill(supervisor, SIGKILL);
  Reap(supervisor);
  EXPECT_TRUE(WaitUntil([&] { return !IsAlive(child); }));
}

TEST(TailOfFileTest, KeepsTheLastLines) {
  TemporaryFolder folder;
  std::ofstream(folder.path() / "log") << "one\ntwo\nthree\n";
  EXPECT_EQ(TailOfFile((folder.path() / "log").string(), 2), "    two\n    three\n");
  EXPECT_EQ(TailOfFile((folder.path() / "none").string(), 2), "");
}

}  // namespace
}  // namespace thresher::launch
