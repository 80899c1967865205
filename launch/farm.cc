#include "launch/farm.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <stop_token>
#include <utility>

#include "common/data/files.h"
#include "common/model/run_context.h"
#include "common/net/http.h"
#include "common/net/socket.h"
#include "common/sync/named_thread.h"
#include "launch/checkpoints.h"
#include "launch/estimate.h"
#include "launch/examples.h"
#include "launch/progress.h"
#include "launch/supervisor.h"

namespace thresher::launch {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr std::chrono::seconds kStopGrace{30};
constexpr milliseconds kPoll{100};
constexpr milliseconds kStatusEvery{1000};
constexpr int kStatusTimeoutMs = 500;

Result<json> ParseJson(const std::string& text, const std::string& origin) {
  json parsed = json::parse(text, nullptr, false);
  if (parsed.is_discarded()) return DataLoss(origin + ": not JSON");
  return parsed;
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// The lines in which two key lists of the same keys differ.
std::string DifferentKeys(const std::string& before, const std::string& now) {
  auto a = Lines(before), b = Lines(now);
  std::string out;
  for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    std::string left = i < a.size() ? a[i] : "nothing", right = i < b.size() ? b[i] : "nothing";
    if (left != right) out += "\n  it has: " + left + "   asked for: " + right;
  }
  return out;
}

// A folder without a manifest must hold nothing but the lock: what else is there is not ours, or
// was left by a start that was killed.
Status CheckEmpty(const std::filesystem::path& run) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(run, error)) {
    std::string name = entry.path().filename().string();
    if (name == "lock") continue;
    return FailedPrecondition(run.string() + " holds '" + name +
                              "' but no manifest.json: not a run directory, or one that was only "
                              "half written; remove it or use another --dir");
  }
  return Status::Ok();
}

Status CheckExisting(const std::filesystem::path& run, const Config& asked,
                     const std::vector<DataHash>& data) {
  auto existing = model::OpenRun(run);
  if (!existing.ok()) return existing.status();
  const Config config = model::WithKernelSetOf(existing->config, asked);
  std::string before = ResultKeysText(existing->config), now = ResultKeysText(config);
  if (before != now) {
    return FailedPrecondition(
        run.string() +
        " was made with another configuration; use another --dir:" + DifferentKeys(before, now));
  }
  THRESHER_RETURN_IF_ERROR(
      examples::RequireSameData(existing->data, data).WithContext(run.string()));
  return WriteFileAtomic(run / "config.yaml", ResolvedYaml(config));
}

// Next signal of those that BlockSignals blocked; 0 when none comes within `wait`.
int WaitForSignal(milliseconds wait) {
  sigset_t set;
  sigemptyset(&set);
  for (int number : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&set, number);
  timespec timeout{wait.count() / 1000, (wait.count() % 1000) * 1000000};
  int number = sigtimedwait(&set, nullptr, &timeout);
  return number > 0 ? number : 0;
}

// Asks the broker for its status every second on a thread of its own: a broker that does not answer
// must not keep the supervisor from seeing deaths and signals (pending signals of one kind merge).
class StatusFeed {
 public:
  explicit StatusFeed(std::filesystem::path run)
      : thread_("status", [this, run = std::move(run)](std::stop_token stop) {
          std::unique_lock lock(mutex_);
          while (!stop.stop_requested()) {
            lock.unlock();
            auto status = FetchStatus(run, kStatusTimeoutMs);
            lock.lock();
            if (status.ok()) newest_ = std::move(*status);
            wake_.wait_for(lock, stop, kStatusEvery, [] { return false; });
          }
        }) {}

  // The status that came since the last call, if one did.
  std::optional<json> Take() {
    std::lock_guard lock(mutex_);
    return std::exchange(newest_, std::nullopt);
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::optional<json> newest_;
  NamedThread thread_;  // last: ends before what it uses
};

// Shows status and faults while the supervisor works.
class Watcher {
 public:
  Watcher(const std::filesystem::path& run, const Supervisor& supervisor)
      : supervisor_(supervisor), feed_(run) {}

  void Tick() {
    for (; faults_shown_ < supervisor_.faults().size(); ++faults_shown_) {
      display_.Print(supervisor_.faults()[faults_shown_]);
    }
    auto status = feed_.Take();
    if (!status) return;
    ShowEvaluations(*status);
    display_.Update(ProgressLine(*status));
  }
  ProgressDisplay& display() { return display_; }

 private:
  void ShowEvaluations(const json& status) {
    const json evals = status.value("evals", json::array());
    for (; evals_shown_ < evals.size(); ++evals_shown_) {
      const json& eval = evals[evals_shown_];
      if (!eval.value("phase_end", false)) continue;
      display_.Print("evaluated '" + eval.value("label", "") + "'  held-out pass@1 " +
                     EstimateText(eval["pass_at"].value("1", json())) + " over " +
                     std::to_string(eval.value("items", 0)) + " items");
    }
  }

  const Supervisor& supervisor_;
  StatusFeed feed_;
  ProgressDisplay display_;
  std::size_t faults_shown_ = 0, evals_shown_ = 0;
};

FarmOutcome OutcomeOf(Supervisor::State state, const Supervisor& supervisor,
                      const std::filesystem::path& run) {
  if (state == Supervisor::State::kFinished) return {FarmEnd::kFinished, ""};
  if (state == Supervisor::State::kFailed) return {FarmEnd::kFailed, supervisor.failure()};
  auto checkpoints = ListCheckpoints(run);
  if (checkpoints.empty()) {
    return {FarmEnd::kStopped, "no checkpoint yet; what was accepted is in the journal"};
  }
  return {FarmEnd::kStopped,
          "saved: checkpoints/" + checkpoints.back().filename().string() + " and the journal"};
}

FarmOutcome Supervise(const std::filesystem::path& run, Supervisor& supervisor) {
  Watcher watcher(run, supervisor);
  Supervisor::State state = Supervisor::State::kRunning;
  int signals = 0;
  while (state == Supervisor::State::kRunning) {
    if (WaitForSignal(kPoll) != 0) {
      if (++signals > 1) break;  // at once: the supervisor's end kills what is left
      watcher.display().Print("stopping in order; once more ends at once");
      supervisor.RequestStop(kStopGrace);
    }
    state = supervisor.Poll();
    watcher.Tick();
  }
  if (state == Supervisor::State::kRunning) state = Supervisor::State::kStopped;
  return OutcomeOf(state, supervisor, run);
}

}  // namespace

Result<int> PrepareRunDirectory(const std::filesystem::path& run, const Config& asked) {
  const Config config = WithAbsolutePaths(asked);
  const auto environment = EnvironmentOf(config);
  std::vector<DataHash> data;
  if (const auto source = OpenExamples(config, *environment)) data = source->hashes();
  THRESHER_RETURN_IF_ERROR(CreateDirectories(run));
  int lock = open((run / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock < 0) return Unavailable((run / "lock").string() + ": " + strerror(errno));
  Status status;
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    status = FailedPrecondition(run.string() + " is being run by another process");
  } else if (std::filesystem::exists(run / "manifest.json")) {
    status = CheckExisting(run, config, data);
  } else {
    status = CheckEmpty(run);
    if (status.ok()) status = model::CreateRun(run, config, environment->alphabet(), data).status();
  }
  if (!status.ok()) {
    close(lock);
    return status;
  }
  return lock;
}

void BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int number : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&set, number);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Result<FarmOutcome> RunFarm(const std::filesystem::path& run, const Config& config) {
  THRESHER_ASSIGN_OR_RETURN(ProgramPaths programs, FindPrograms());
  std::error_code error;
  std::filesystem::remove(run / "rendezvous.json", error);  // of a broker that is gone
  std::optional<Supervisor> supervisor(std::in_place, run, config, programs);
  THRESHER_RETURN_IF_ERROR(supervisor->Start());
  FarmOutcome outcome = Supervise(run, *supervisor);
  supervisor.reset();  // ends whatever is left
  std::filesystem::remove(run / "rendezvous.json", error);
  net::RemoveSocketFolder(run);
  return outcome;
}

Result<json> FetchStatus(const std::filesystem::path& run, int timeout_ms) {
  THRESHER_ASSIGN_OR_RETURN(net::Rendezvous rendezvous, net::ReadRendezvous(run));
  THRESHER_ASSIGN_OR_RETURN(std::string token, net::LoadOrCreateToken(run.string()));
  THRESHER_ASSIGN_OR_RETURN(std::string text,
                            net::HttpGet(rendezvous.http, "/status.json", token, timeout_ms));
  return ParseJson(text, "status.json");
}

Result<json> ReadSummary(const std::filesystem::path& run) {
  THRESHER_ASSIGN_OR_RETURN(std::string text, ReadFile(run / "summary.json"));
  return ParseJson(text, (run / "summary.json").string());
}

}  // namespace thresher::launch
