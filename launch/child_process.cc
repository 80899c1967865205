#include "launch/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <deque>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

namespace thresher::launch {
namespace {

// What marks a process as part of an MPI job. Settings of Open MPI that a person made stay.
bool IsJobVariable(const std::string& entry) {
  for (const char* prefix : {"PMIX_", "PMI_", "OMPI_MCA_ess", "OMPI_MCA_orte", "OMPI_MCA_pmix",
                             "OMPI_MCA_shmem_RUNTIME"}) {
    if (entry.starts_with(prefix)) return true;
  }
  return entry.starts_with("OMPI_") && !entry.starts_with("OMPI_MCA_");
}

std::vector<std::string> ChildEnvironment(const ChildProcess::Options& options) {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string text = *entry;
    std::string name = text.substr(0, text.find('='));
    if (options.environment.contains(name)) continue;
    if (!options.keep_mpi_environment && IsJobVariable(text)) continue;
    out.push_back(std::move(text));
  }
  for (const auto& [name, value] : options.environment) out.push_back(name + "=" + value);
  return out;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (auto& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// Between fork and exec: only async-signal-safe calls.
[[noreturn]] void ExecChild(char* const* argv, char* const* environment, int log, int death_signal,
                            pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, death_signal);
  if (getppid() != parent) _exit(127);  // the parent died before the line above
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number : {SIGINT, SIGTERM, SIGPIPE, SIGUSR1, SIGCHLD}) signal(number, SIG_DFL);
  int null = open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execve(argv[0], argv, environment);
  _exit(127);
}

}  // namespace

std::string ChildExit::ToString() const {
  if (signal == 0) return "exit " + std::to_string(code);
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? "signal " + std::to_string(signal) : std::string("SIG") + name;
}

Result<ChildProcess> ChildProcess::Start(const Options& options) {
  THRESHER_CHECK(!options.argv.empty(), "a child without a program");
  if (access(options.argv[0].c_str(), X_OK) != 0) {
    return NotFound("program " + options.argv[0] + ": " + strerror(errno));
  }
  int log = open(options.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) return Unavailable("log file " + options.log_file + ": " + strerror(errno));
  std::vector<std::string> argv = options.argv;
  std::vector<std::string> environment = ChildEnvironment(options);
  std::vector<char*> argv_pointers = Pointers(argv);
  std::vector<char*> environment_pointers = Pointers(environment);
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid == 0) {
    ExecChild(argv_pointers.data(), environment_pointers.data(), log, options.death_signal, parent);
  }
  int error = errno;
  close(log);
  if (pid < 0) return Unavailable(std::string("fork: ") + strerror(error));
  setpgid(pid, pid);  // in the parent as well: a signal may come before the child runs
  return ChildProcess(pid);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), exit_(other.exit_) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(exit_, other.exit_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ < 0 || exit_) return;
  Signal(SIGKILL);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
}

std::optional<ChildExit> ChildProcess::Poll() {
  if (exit_ || pid_ < 0) return exit_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  ChildExit how;
  if (WIFSIGNALED(status)) how.signal = WTERMSIG(status);
  if (WIFEXITED(status)) how.code = WEXITSTATUS(status);
  exit_ = how;
  kill(-pid_, SIGKILL);  // what it may have left in its group
  return exit_;
}

void ChildProcess::Signal(int number) {
  if (pid_ < 0 || exit_) return;
  if (kill(-pid_, number) != 0) kill(pid_, number);
}

bool ChildProcess::HasRunningChildren() const {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    if (!std::isdigit(static_cast<unsigned char>(entry.path().filename().string()[0]))) continue;
    std::ifstream in(entry.path() / "stat");
    std::string stat;
    std::getline(in, stat);
    // PID (NAME) STATE PARENT ...; the name may hold anything.
    const std::size_t behind = stat.rfind(") ");
    if (behind == std::string::npos) continue;  // gone meanwhile
    std::istringstream rest(stat.substr(behind + 2));
    char state = 0;
    pid_t parent = 0;
    rest >> state >> parent;
    if (parent == pid_ && state != 'Z' && state != 'X') return true;
  }
  return false;
}

std::string TailOfFile(const std::string& file, int lines) {
  std::ifstream in(file);
  std::deque<std::string> tail;
  for (std::string line; std::getline(in, line);) {
    tail.push_back(line);
    if (tail.size() > static_cast<std::size_t>(lines)) tail.pop_front();
  }
  std::string out;
  for (const auto& line : tail) out += "    " + line + "\n";
  return out;
}

}  // namespace thresher::launch
