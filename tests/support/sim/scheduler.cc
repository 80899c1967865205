#include "tests/support/sim/scheduler.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstring>
#include <exception>

#include "common/base/check.h"
#include "tests/support/fiber/fiber.h"

namespace thresher::sim {
namespace {

using test_support::Fiber;

constexpr std::size_t kStackBytes = 1u << 20;
constexpr std::uint64_t kTurnsWithoutTime = 1'000'000;
constexpr std::chrono::seconds kEpoch{1'700'000'000};  // of the wall clock
constexpr std::uint32_t kFirstPid = 1000;

// What the C++ runtime keeps for each thread: the exceptions that are being handled. Each task has
// its own, for it may wait inside a handler.
struct ExceptionState {
  void* caught = nullptr;
  unsigned int uncaught = 0;

  void Swap() {
    static_assert(sizeof(ExceptionState) == 2 * sizeof(void*));
    auto* globals = reinterpret_cast<char*>(abi::__cxa_get_globals());
    char mine[sizeof(ExceptionState)];
    std::memcpy(mine, globals, sizeof mine);
    std::memcpy(globals, this, sizeof mine);
    std::memcpy(static_cast<void*>(this), mine, sizeof mine);
  }
};

// Stacks are warm when they are used again, also by the next simulation of this thread.
thread_local std::vector<std::unique_ptr<Fiber>> idle_fibers;

std::unique_ptr<Fiber> TakeFiber() {
  if (idle_fibers.empty()) return std::make_unique<Fiber>(kStackBytes);
  std::unique_ptr<Fiber> fiber = std::move(idle_fibers.back());
  idle_fibers.pop_back();
  return fiber;
}

}  // namespace

struct Task {
  enum class State { kReady, kWaiting, kEnded };

  std::uint64_t number = 0;
  Process* process = nullptr;
  std::string name;
  std::function<void()> body;
  std::unique_ptr<Fiber> fiber;  // from its first turn on
  State state = State::kReady;
  bool unwinding = false;  // TaskKilled was thrown
  std::uint64_t wait = 0;  // grows with each wait
  const void* key = nullptr;
  bool woken = false;  // the last wait ended before its deadline
  const char* what = "starts";
  std::optional<TimePoint> until;
  ExceptionState exceptions;
};

Scheduler::Scheduler(std::uint64_t seed, Trace& trace) : trace_(trace), random_(seed) {}

Scheduler::~Scheduler() { EndAll(); }

void Scheduler::EndAll() {
  for (const auto& process : processes_) {
    process->on_exit_ = nullptr;
    Kill(*process);
  }
  ReapKilled();
}

std::chrono::nanoseconds Scheduler::WallTime() const { return kEpoch + now_.time_since_epoch(); }

Process& Scheduler::Start(std::string name, int machine, std::function<int()> main,
                          std::function<void(const Exit&)> on_exit) {
  processes_.push_back(std::make_unique<Process>());
  Process& process = *processes_.back();
  process.shown_ = {kFirstPid + static_cast<std::uint32_t>(processes_.size()),
                    "node" + std::to_string(machine)};
  process.name_ = std::move(name);
  process.machine_ = machine;
  process.main_ = std::move(main);
  process.on_exit_ = std::move(on_exit);
  trace_.Note(now_, process.name_, "starts", process.shown_.host, process.shown_.pid);
  NewTask(process, "main", [this, &process] { RunMain(process); });
  return process;
}

void Scheduler::RunMain(Process& process) {
  process.exit_.code = process.main_();
  process.exit_.killed = false;
}

Task& Scheduler::NewTask(Process& process, std::string name, std::function<void()> body) {
  tasks_.push_back(std::make_unique<Task>());
  Task& task = *tasks_.back();
  task.number = tasks_.size() - 1;
  task.process = &process;
  task.name = std::move(name);
  task.body = std::move(body);
  process.tasks_.push_back(&task);
  ready_.push_back(&task);
  return task;
}

void Scheduler::Kill(Process& process) {
  if (!process.alive_) return;
  trace_.Note(now_, process.name_, "killed");
  process.alive_ = false;
  process.exit_ = {.killed = true, .code = 137, .error = {}};
  killed_.push_back(&process);
  if (current_ != nullptr && current_->process == &process) {
    Leave("is killed", std::nullopt);
    (void)Unwinds();
  }
}

void Scheduler::Stall(Process& process, Duration time) {
  process.stalled_until_ = std::max(process.stalled_until_, now_ + time);
}

void Scheduler::At(TimePoint time, std::function<void()> event) {
  timers_.push({std::max(time, now_), next_timer_, nullptr, 0});
  events_.emplace(next_timer_++, std::move(event));
}

Process* Scheduler::current() const { return current_ == nullptr ? nullptr : current_->process; }

bool Scheduler::Dead() const { return current_ != nullptr && !current_->process->alive_; }

bool Scheduler::Unwinds() {
  if (!Dead()) return false;
  if (std::uncaught_exceptions() > 0) return true;
  current_->unwinding = true;
  throw sync::TaskKilled{};
}

void Scheduler::Leave(const char* what, std::optional<TimePoint> until) {
  Task& task = *current_;
  task.what = what;
  task.until = until;
  task.state = Task::State::kWaiting;
  task.woken = false;
  ++task.wait;
  if (until) timers_.push({*until, next_timer_++, &task, task.wait});
  task.exceptions.Swap();
  task.fiber->Leave();
  task.exceptions.Swap();
}

bool Scheduler::Wait(const void* key, std::optional<TimePoint> deadline, const char* what) {
  THRESHER_CHECK(current_ != nullptr, "a wait between tasks");
  if (Unwinds()) return false;
  Task& task = *current_;
  task.key = key;
  waiting_[key].push_back(&task);
  Leave(what, deadline);
  auto found = waiting_.find(key);
  if (found != waiting_.end()) {
    std::erase(found->second, &task);
    if (found->second.empty()) waiting_.erase(found);
  }
  task.key = nullptr;
  const bool woken = task.woken;
  (void)Unwinds();
  return woken;
}

void Scheduler::Wake(const void* key, bool all) {
  auto found = waiting_.find(key);
  if (found == waiting_.end()) return;
  std::vector<Task*> tasks = std::move(found->second);
  waiting_.erase(found);
  if (!all && tasks.size() > 1) {
    waiting_[key].assign(tasks.begin() + 1, tasks.end());
    tasks.resize(1);
  }
  for (Task* task : tasks) {
    task->woken = true;
    MakeReady(*task);
  }
}

void Scheduler::Sleep(Duration time, const char* what) {
  THRESHER_CHECK(current_ != nullptr, "a sleep between tasks");
  if (Unwinds()) return;
  Leave(what, now_ + std::max(time, Duration::zero()));
  (void)Unwinds();
}

Scheduler::TaskId Scheduler::Spawn(const std::string& name, std::function<void()> body) {
  THRESHER_CHECK(current_ != nullptr, "a task starts between tasks");
  return NewTask(*current_->process, name, std::move(body)).number;
}

void Scheduler::Join(TaskId number) noexcept {
  Task& task = *tasks_[number];
  while (task.state != Task::State::kEnded && !Dead()) {
    Task& self = *current_;
    waiting_[&task].push_back(&self);
    Leave("joins a task", std::nullopt);
    auto found = waiting_.find(&task);
    if (found != waiting_.end()) std::erase(found->second, &self);
  }
}

bool Scheduler::WaitUntil(sync::Condition& condition, std::unique_lock<std::mutex>& lock,
                          TimePoint deadline) {
  struct Relock {
    std::unique_lock<std::mutex>& lock;
    ~Relock() { lock.lock(); }
  };
  lock.unlock();
  Relock relock{lock};
  if (deadline > now_) return Wait(&condition, deadline, "waits for a condition");
  Sleep(random_.Exponential(current_->process->turn), "computes");
  return false;
}

void Scheduler::MakeReady(Task& task) {
  if (task.state != Task::State::kWaiting) return;
  task.state = Task::State::kReady;
  ready_.push_back(&task);
}

void Scheduler::Resume(Task& task) {
  ++turns_;
  current_ = &task;
  SubstituteProcess(&task.process->shown_);
  if (task.fiber == nullptr) {
    task.fiber = TakeFiber();
    task.fiber->Reset(
        [](void* argument) {
          Task& self = *static_cast<Task*>(argument);
          try {
            self.body();
          } catch (const sync::TaskKilled&) {
          } catch (const std::exception& error) {
            self.process->exit_.error = self.name + ": " + error.what();
          }
        },
        &task);
  }
  const bool ended = task.fiber->Resume();
  SubstituteProcess(nullptr);
  current_ = nullptr;
  if (!ended) return;
  task.state = Task::State::kEnded;
  task.body = nullptr;
  idle_fibers.push_back(std::move(task.fiber));
  Wake(&task, true);
  Process& process = *task.process;
  const bool main_ended = process.tasks_.front() == &task;
  if (process.alive_ && (main_ended || !process.exit_.error.empty())) Finish(process);
}

// The process has ended by itself: what its main task left behind ends with it.
void Scheduler::Finish(Process& process) {
  if (!process.exit_.error.empty()) process.exit_.code = 3;
  trace_.Note(now_, process.name_, "exits", process.exit_.error,
              static_cast<std::uint64_t>(process.exit_.code));
  process.alive_ = false;
  killed_.push_back(&process);
}

void Scheduler::ReapKilled() {
  for (std::size_t i = 0; i < killed_.size(); ++i) {
    Process& process = *killed_[i];
    for (auto it = process.tasks_.rbegin(); it != process.tasks_.rend(); ++it) {
      Task& task = **it;
      std::erase(ready_, &task);
      if (task.fiber == nullptr) task.state = Task::State::kEnded;  // never ran
      for (int turn = 0; task.state != Task::State::kEnded; ++turn) {
        THRESHER_CHECK(turn < 10, process.name_ + " " + task.name + " does not end: " + task.what);
        task.state = Task::State::kReady;
        Resume(task);
        std::erase(ready_, &task);
      }
    }
    if (!process.on_exit_) continue;
    At(now_, [exit = process.exit_, on_exit = std::move(process.on_exit_)] { on_exit(exit); });
    process.on_exit_ = nullptr;
  }
  killed_.clear();
}

bool Scheduler::RunOneReady() {
  while (!ready_.empty()) {
    std::swap(ready_[random_.Below(ready_.size())], ready_.back());
    Task& task = *ready_.back();
    ready_.pop_back();
    if (task.process->stalled_until_ > now_) {
      task.state = Task::State::kWaiting;
      timers_.push({task.process->stalled_until_, next_timer_++, &task, task.wait});
      continue;
    }
    Resume(task);
    return true;
  }
  return false;
}

void Scheduler::FireNextTimer() {
  Timer timer = timers_.top();
  timers_.pop();
  now_ = timer.time;
  if (timer.task != nullptr) {
    if (timer.task->wait == timer.wait) MakeReady(*timer.task);
    return;
  }
  auto event = events_.extract(timer.number);
  event.mapped()();
}

Scheduler::End Scheduler::Run(const std::function<bool()>& done, TimePoint limit) {
  TimePoint since{-Duration(1)};
  std::uint64_t turns_then = 0;
  while (true) {
    ReapKilled();
    if (done()) return End::kDone;
    if (now_ != since) {
      since = now_;
      turns_then = turns_;
    }
    if (turns_ - turns_then > kTurnsWithoutTime) return End::kNoProgress;
    if (RunOneReady()) continue;
    if (timers_.empty()) return End::kDeadlock;
    if (timers_.top().time > limit) return End::kTimeLimit;
    FireNextTimer();
  }
}

std::string Scheduler::Report() const {
  std::string text;
  for (const auto& task : tasks_) {
    if (task->state == Task::State::kEnded || !task->process->alive_) continue;
    text += task->process->name_ + " " + task->name + ": " + task->what;
    if (task->until) {
      text +=
          " until " +
          std::to_string(std::chrono::duration<double>(task->until->time_since_epoch()).count()) +
          " s";
    }
    if (task->process->stalled_until_ > now_) text += " (stalled)";
    text += "\n";
  }
  return text;
}

}  // namespace thresher::sim
