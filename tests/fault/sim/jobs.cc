#include "tests/fault/sim/jobs.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/base/check.h"
#include "common/log/log.h"
#include "learner/leaf.h"

namespace thresher::sim {
namespace {

using nlohmann::json;

std::string ToLine(const HistoryOutcome& outcome) {
  const json text = {{"seed", outcome.seed},
                     {"problems", outcome.problems},
                     {"hash", outcome.hash},
                     {"events", outcome.events},
                     {"virtual_seconds", outcome.virtual_seconds},
                     {"cpu_seconds", outcome.cpu_seconds},
                     {"counts", outcome.counts}};
  return text.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

HistoryOutcome FromLine(const std::string& line) {
  const json text = json::parse(line);
  HistoryOutcome outcome;
  text.at("seed").get_to(outcome.seed);
  text.at("problems").get_to(outcome.problems);
  text.at("hash").get_to(outcome.hash);
  text.at("events").get_to(outcome.events);
  text.at("virtual_seconds").get_to(outcome.virtual_seconds);
  text.at("cpu_seconds").get_to(outcome.cpu_seconds);
  text.at("counts").get_to(outcome.counts);
  return outcome;
}

// A child process and the seeds that are left for it.
struct Job {
  pid_t pid = 0;
  int results = -1;  // lines, one for each history
  std::vector<std::uint64_t> seeds;
  std::size_t done = 0;
  std::string unread;
};

void Work(const Job& job, int results) {
  for (std::size_t i = job.done; i < job.seeds.size(); ++i) {
    static Sweep sweep;
    const std::string line = ToLine(sweep.Run(job.seeds[i]));
    for (std::size_t sent = 0; sent < line.size();) {
      const ssize_t count = ::write(results, line.data() + sent, line.size() - sent);
      if (count < 0 && errno != EINTR) _exit(1);  // nobody reads any more
      if (count > 0) sent += static_cast<std::size_t>(count);
    }
  }
  _exit(0);
}

void Start(Job& job) {
  int ends[2];
  THRESHER_CHECK(::pipe(ends) == 0, std::strerror(errno));
  const pid_t parent = ::getpid();
  job.pid = ::fork();
  THRESHER_CHECK(job.pid >= 0, std::strerror(errno));
  if (job.pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) _exit(1);
    ::close(ends[0]);
    SetUpProcess();
    Work(job, ends[1]);
  }
  ::close(ends[1]);
  job.results = ends[0];
}

// The job's process has ended: with its seeds, or in the middle of one.
HistoryOutcome CrashOf(Job& job, int status) {
  HistoryOutcome outcome;
  outcome.seed = job.seeds[job.done];
  outcome.problems = WIFSIGNALED(status)
                         ? std::string("crashed: ") + ::strsignal(WTERMSIG(status)) + "\n"
                         : "ended with exit code " + std::to_string(WEXITSTATUS(status)) + "\n";
  return outcome;
}

// Reads what is there. False: the child has closed its end.
bool ReadSome(Job& job, std::vector<HistoryOutcome>* outcomes) {
  char bytes[65536];
  const ssize_t count = ::read(job.results, bytes, sizeof bytes);
  if (count < 0 && errno == EINTR) return true;
  if (count <= 0) return false;
  job.unread.append(bytes, static_cast<std::size_t>(count));
  for (std::size_t end; (end = job.unread.find('\n')) != std::string::npos;) {
    outcomes->push_back(FromLine(job.unread.substr(0, end)));
    job.unread.erase(0, end + 1);
    ++job.done;
  }
  return true;
}

// Takes what the child has to say; starts another one for what a crash left. False: all is done.
bool Attend(Job& job, std::vector<HistoryOutcome>* outcomes) {
  if (ReadSome(job, outcomes)) return true;
  int status = 0;
  ::waitpid(job.pid, &status, 0);
  ::close(job.results);
  job.unread.clear();
  if (job.done < job.seeds.size()) {
    outcomes->push_back(CrashOf(job, status));
    ++job.done;
  }
  job.results = -1;
  if (job.done >= job.seeds.size()) return false;
  Start(job);
  return true;
}

}  // namespace

void SetUpProcess() {
  LogOptions log;
  log.process = "simulation";
  log.stderr_level = LogLevel::kError;
  (void)InitLog(log);
}

void RunInJobs(const std::vector<std::uint64_t>& seeds, int jobs,
               const std::function<bool(const HistoryOutcome&)>& report) {
  std::vector<Job> running(std::min(seeds.size(), static_cast<std::size_t>(jobs)));
  for (std::size_t i = 0; i < seeds.size(); ++i)
    running[i % running.size()].seeds.push_back(seeds[i]);
  for (Job& job : running) Start(job);
  std::size_t left = running.size();
  for (bool wanted = true; left > 0 && wanted;) {
    std::vector<pollfd> polled;
    for (const Job& job : running) polled.push_back({job.results, POLLIN, 0});
    ::poll(polled.data(), polled.size(), -1);
    std::vector<HistoryOutcome> outcomes;
    for (std::size_t i = 0; i < running.size(); ++i) {
      if ((polled[i].revents & (POLLIN | POLLHUP)) != 0) left -= !Attend(running[i], &outcomes);
    }
    for (const HistoryOutcome& outcome : outcomes) wanted = wanted && report(outcome);
  }
  for (Job& job : running) {
    if (job.results < 0) continue;
    ::kill(job.pid, SIGKILL);
    ::waitpid(job.pid, nullptr, 0);
    ::close(job.results);
  }
}

}  // namespace thresher::sim
