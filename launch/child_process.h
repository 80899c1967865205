#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace thresher::launch {

// How a child ended: by its own exit code or by a signal.
struct ChildExit {
  int code = 0;  // exit code; meaningless when signal != 0
  int signal = 0;
  std::string ToString() const;  // "exit 3", "SIGKILL"
};

// One child process in a process group of its own: a terminal's Ctrl-C reaches only the supervisor,
// a kill of the supervisor ends the child (PR_SET_PDEATHSIG). Standard output and error are
// appended to a log file. Move-only; a child still running when the handle dies is killed and
// reaped.
class ChildProcess {
 public:
  struct Options {
    std::vector<std::string> argv;                   // argv[0]: path of the program
    std::map<std::string, std::string> environment;  // added to ours
    bool keep_mpi_environment = false;               // else what marks us as a rank is removed:
                                        // OMPI_* but settings (OMPI_MCA_*), PMIX_*, PMI_*
    std::string log_file;  // made when missing
    int death_signal = 9;  // sent to the child when we die
  };
  // Errors: kNotFound (no such program), kUnavailable (fork, log file).
  static Result<ChildProcess> Start(const Options& options);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  // How it ended, once it has; never blocks. Reaps.
  std::optional<ChildExit> Poll();
  // To the whole process group.
  void Signal(int signal);
  // Whether a process runs that it has started itself; one that only waits to be reaped does not.
  // Looks through /proc: a millisecond or so.
  bool HasRunningChildren() const;

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_ = -1;
  std::optional<ChildExit> exit_;
};

// The last `lines` lines of a text file, for error messages; empty when it cannot be read.
std::string TailOfFile(const std::string& file, int lines);

}  // namespace thresher::launch
