#pragma once

#include <signal.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/config/config.h"
#include "launch/child_process.h"

namespace thresher::launch {

// Where the programs of this build lie, found from the running executable.
struct ProgramPaths {
  std::string actor, broker, learner;
  std::string mpirun;  // empty when none is on the PATH
};
// Error: kNotFound naming the program that is missing.
Result<ProgramPaths> FindPrograms();

// Keeps the processes of one run on this machine alive: the broker, the learner job and the actors.
// A process that dies is started again with back-off until its restart budget is spent; a broker
// that ends by itself ends the run. Every process ends with the supervisor. One owner thread; Poll
// never blocks.
class Supervisor {
 public:
  enum class State { kRunning, kFinished, kStopped, kFailed };
  struct Timing {
    Duration first_backoff = std::chrono::milliseconds(200);  // doubles with every restart
    Duration longest_backoff = std::chrono::seconds(5);
    Duration stable_after = std::chrono::seconds(60);  // who ran this long has its budget back
    Duration finish_grace = std::chrono::seconds(10);  // for the others after the broker is done
    Duration term_grace = std::chrono::seconds(5);     // between SIGTERM and SIGKILL
    Duration job_grace = std::chrono::seconds(3);      // for mpirun to end its ranks, at the end
    Duration job_start = std::chrono::seconds(60);     // for mpirun to start its ranks
    Duration job_alone = std::chrono::seconds(5);      // for mpirun to end when its ranks have
  };

  Supervisor(std::filesystem::path run, const Config& config, ProgramPaths programs,
             const Timing& timing);
  Supervisor(std::filesystem::path run, const Config& config, ProgramPaths programs)
      : Supervisor(std::move(run), config, std::move(programs), Timing()) {}
  ~Supervisor();  // kills and reaps whatever is left

  // Starts everything. Error: the first process that could not be started.
  Status Start();
  // Reaps, restarts, and says how the run stands.
  State Poll();
  // Asks for an orderly end: the broker drains and has a checkpoint written. After `grace` the
  // rest is killed. Poll until it is not kRunning.
  void RequestStop(Duration grace);
  // Why the run failed, with the end of the log concerned.
  const std::string& failure() const { return failure_; }
  // Deaths seen and restarts made so far, a line each: "actor-1: SIGKILL, restarted (1)".
  const std::vector<std::string>& faults() const { return faults_; }
  // Process ids by name, for tests and status.
  std::vector<std::pair<std::string, pid_t>> Processes() const;

 private:
  struct Managed {
    std::string name;
    ChildProcess::Options options;
    int max_restarts = 0;
    int restarts = 0;   // of the present budget
    int starts = 0;     // ever: THRESHER_ATTEMPT of the next one
    bool done = false;  // ended for good, as it should
    TimePoint started{};
    std::optional<TimePoint> restart_at;
    std::optional<ChildProcess> child;
    bool ran = false;  // of a job: its ranks were seen
    TimePoint seen{};  // ... for the last time, or when it was started
    TimePoint next_look{};
    bool IsJob() const { return options.death_signal == SIGTERM; }  // mpirun
  };

  void Add(const std::string& name, std::vector<std::string> argv, int max_restarts);
  std::vector<std::string> LearnerCommand() const;
  Status Launch(Managed& process);
  void OnExit(Managed& process, const ChildExit& how);
  void EndJobWithoutRanks(Managed& process, TimePoint now);
  void Fail(const Managed& process, const std::string& why);
  void EnforceStop(TimePoint now);

  std::filesystem::path run_;
  Config config_;
  ProgramPaths programs_;
  Timing timing_;
  std::vector<Managed> processes_;  // broker first
  State state_ = State::kRunning;
  bool stopping_ = false;
  int stop_level_ = 0;  // 0 asked, 1 SIGTERM to all, 2 SIGKILL to all
  TimePoint stop_deadline_{};
  std::optional<ChildExit> broker_exit_;
  std::string failure_;
  std::vector<std::string> faults_;
};

}  // namespace thresher::launch
