#include "launch/supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace thresher::launch {
namespace {

constexpr int kExitConfig = 2, kExitFailure = 3, kExitStopped = 75;

std::filesystem::path OwnFolder() {
  std::error_code error;
  auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path(".") : self.parent_path();
}

std::string FindOnPath(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    std::size_t colon = std::min(rest.find(':'), rest.size());
    std::string candidate = rest.substr(0, colon) + "/" + name;
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
    rest = colon < rest.size() ? rest.substr(colon + 1) : "";
  }
  return "";
}

}  // namespace

Result<ProgramPaths> FindPrograms() {
  // <build>/launch/thresher-cli beside <build>/actor/thresher-actor; the same below libexec.
  std::filesystem::path root = OwnFolder().parent_path();
  ProgramPaths paths;
  paths.actor = (root / "actor" / "thresher-actor").string();
  paths.broker = (root / "broker" / "thresher-broker").string();
  paths.learner = (root / "learner" / "thresher-learner").string();
  for (const auto& program : {paths.actor, paths.broker, paths.learner}) {
    if (access(program.c_str(), X_OK) != 0) return NotFound("program " + program + " is missing");
  }
  paths.mpirun = FindOnPath("mpirun");
  return paths;
}

Supervisor::Supervisor(std::filesystem::path run, const Config& config, ProgramPaths programs,
                       const Timing& timing)
    : run_(std::move(run)), config_(config), programs_(std::move(programs)), timing_(timing) {}

// mpirun ends its ranks when it is asked to, not when it is killed: it gets a moment for that. What
// then still runs is killed as the handles go.
Supervisor::~Supervisor() {
  bool waits = false;
  for (Managed& process : processes_) {
    bool job = process.child && process.IsJob();
    if (job) process.child->Signal(SIGTERM);
    waits |= job;
  }
  TimePoint until = SystemClock().Now() + timing_.job_grace;
  while (waits && SystemClock().Now() < until) {
    waits = false;
    for (Managed& process : processes_) {
      bool job = process.child && process.IsJob();
      waits |= job && !process.child->Poll();
    }
    usleep(10000);
  }
}

void Supervisor::Add(const std::string& name, std::vector<std::string> argv, int max_restarts) {
  Managed process;
  process.name = name;
  process.options.argv = std::move(argv);
  process.options.log_file = (run_ / "logs" / (name + ".log")).string();
  process.max_restarts = max_restarts;
  processes_.push_back(std::move(process));
}

std::vector<std::string> Supervisor::LearnerCommand() const {
  std::vector<std::string> learner = {programs_.learner, "--run", run_.string()};
  if (config_.learner.ranks == 1) return learner;
  std::vector<std::string> command = {
      programs_.mpirun,  "-n",        std::to_string(config_.learner.ranks),
      "--oversubscribe", "--bind-to", "none"};
  command.insert(command.end(), learner.begin(), learner.end());
  return command;
}

Status Supervisor::Start() {
  if (config_.learner.ranks > 1 && programs_.mpirun.empty()) {
    return NotFound("learner.ranks is " + std::to_string(config_.learner.ranks) +
                    ", which needs mpirun on the PATH");
  }
  std::error_code error;
  std::filesystem::create_directories(run_ / "logs", error);
  if (error) return Unavailable((run_ / "logs").string() + ": " + error.message());
  Add("broker", {programs_.broker, "--run", run_.string()}, config_.learner.max_restarts);
  Add("learner", LearnerCommand(), config_.learner.max_restarts);
  if (config_.learner.ranks > 1) {
    // mpirun ends its ranks when it is asked to, not when it is killed.
    processes_.back().options.death_signal = SIGTERM;
    processes_.back().options.environment["OMPI_ALLOW_RUN_AS_ROOT"] = "1";
    processes_.back().options.environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1";
  }
  for (int i = 0; i < config_.actors.count; ++i) {
    Add("actor-" + std::to_string(i),
        {programs_.actor, "--run", run_.string(), "--index", std::to_string(i)},
        config_.actors.max_restarts);
  }
  for (Managed& process : processes_) THRESHER_RETURN_IF_ERROR(Launch(process));
  return Status::Ok();
}

Status Supervisor::Launch(Managed& process) {
  process.options.environment["THRESHER_ATTEMPT"] = std::to_string(process.starts++);
  process.restart_at.reset();
  auto child = ChildProcess::Start(process.options);
  if (!child.ok()) return child.status().WithContext(process.name);
  process.started = process.seen = SystemClock().Now();
  process.ran = false;
  process.child.emplace(std::move(child).value());
  return Status::Ok();
}

// mpirun (Open MPI 4.1) stays for ever when a rank dies while it shakes hands with it: its ranks
// are gone, and nobody would start them again.
void Supervisor::EndJobWithoutRanks(Managed& process, TimePoint now) {
  constexpr std::chrono::milliseconds kLook{500};
  if (!process.IsJob() || now < process.next_look) return;
  process.next_look = now + std::min<Duration>(kLook, timing_.job_alone);
  if (process.child->HasRunningChildren()) {
    process.ran = true;
    process.seen = now;
    return;
  }
  if (now - process.seen < (process.ran ? timing_.job_alone : timing_.job_start)) return;
  faults_.push_back(process.name + ": its launcher runs without ranks, killed");
  process.child->Signal(SIGKILL);
  process.next_look = now + timing_.term_grace;
}

void Supervisor::Fail(const Managed& process, const std::string& why) {
  if (state_ == State::kFailed) return;
  failure_ = process.name + ": " + why + "\n" + TailOfFile(process.options.log_file, 12) +
             "    log: " + process.options.log_file;
  stopping_ = true;
  state_ = State::kFailed;
}

void Supervisor::OnExit(Managed& process, const ChildExit& how) {
  process.child.reset();
  bool is_broker = &process == &processes_.front();
  // Stopped by request: of a person, for whoever is not the broker, so it is started again.
  bool clean = how.signal == 0 && (how.code == 0 || (is_broker && how.code == kExitStopped));
  if (is_broker) broker_exit_ = how;
  if (clean || stopping_) {
    // Nobody tells the others any more, if it had the time to.
    if (is_broker && stopping_) {
      stop_deadline_ = std::min(stop_deadline_, SystemClock().Now() + timing_.finish_grace);
    }
    process.done = true;
    return;
  }
  faults_.push_back(process.name + ": " + how.ToString());
  if (how.signal == 0 && (how.code == kExitConfig || (is_broker && how.code == kExitFailure))) {
    Fail(process, how.ToString());
    return;
  }
  if (SystemClock().Now() - process.started > timing_.stable_after) process.restarts = 0;
  if (process.restarts >= process.max_restarts) {
    Fail(process, how.ToString() + " after " + std::to_string(process.restarts) + " restarts");
    return;
  }
  Duration backoff = timing_.first_backoff * (1 << std::min(process.restarts, 5));
  ++process.restarts;
  process.restart_at = SystemClock().Now() + std::min(backoff, timing_.longest_backoff);
  if (is_broker) broker_exit_.reset();
  faults_.back() += ", restarted (" + std::to_string(process.restarts) + ")";
}

void Supervisor::RequestStop(Duration grace) {
  if (stopping_) return;
  stopping_ = true;
  stop_level_ = 0;
  stop_deadline_ = SystemClock().Now() + grace;
  if (processes_.front().child) processes_.front().child->Signal(SIGTERM);
}

// The ladder of an ending: the broker asks everyone; then SIGTERM to all; then SIGKILL to all.
void Supervisor::EnforceStop(TimePoint now) {
  if (now < stop_deadline_) return;
  int signal = stop_level_ == 0 ? SIGTERM : SIGKILL;
  for (Managed& process : processes_) {
    if (process.child) process.child->Signal(signal);
  }
  ++stop_level_;
  stop_deadline_ = now + timing_.term_grace;
}

Supervisor::State Supervisor::Poll() {
  TimePoint now = SystemClock().Now();
  bool any_alive = false;
  for (Managed& process : processes_) {
    if (process.child) {
      if (auto how = process.child->Poll()) OnExit(process, *how);
    }
    if (process.child) EndJobWithoutRanks(process, now);
    if (!stopping_ && process.restart_at && now >= *process.restart_at) {
      Status status = Launch(process);
      if (!status.ok()) Fail(process, status.ToString());
    }
    any_alive |= process.child.has_value();
  }
  if (broker_exit_ && !stopping_) {  // finished by itself: the others were told
    stopping_ = true;
    stop_level_ = 0;
    stop_deadline_ = now + timing_.finish_grace;
  }
  if (state_ == State::kFailed && stop_deadline_ == TimePoint{}) stop_deadline_ = now;
  if (!stopping_) return State::kRunning;
  if (any_alive) {
    EnforceStop(now);
    return State::kRunning;
  }
  if (state_ == State::kFailed) return state_;
  bool finished = broker_exit_ && broker_exit_->signal == 0 && broker_exit_->code == 0;
  state_ = finished ? State::kFinished : State::kStopped;
  return state_;
}

std::vector<std::pair<std::string, pid_t>> Supervisor::Processes() const {
  std::vector<std::pair<std::string, pid_t>> out;
  for (const Managed& process : processes_) {
    if (process.child) out.emplace_back(process.name, process.child->pid());
  }
  return out;
}

}  // namespace thresher::launch
