#include "learner/checkpoint_saver.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/log/log.h"
#include "kernels/cpu/fpenv.h"

namespace thresher::learner {
namespace {

constexpr std::chrono::seconds kStopDiskPatience{15};  // below the supervisor's with a stop
constexpr std::chrono::seconds kTryAgain{1};
constexpr std::chrono::milliseconds kLook{20};   // for the task, between looks at messages
constexpr std::chrono::milliseconds kListen{1};  // to those

// Below the deadline of the collective in which the other ranks wait meanwhile.
Duration DiskPatience(const Config& config) {
  const auto deadline = std::chrono::seconds(config.learner.collective_timeout_seconds);
  const Duration longest = std::chrono::minutes(8);
  return config.learner.ranks == 1 ? longest : std::min<Duration>(longest, deadline * 4 / 5);
}

double MillisecondsSince(TimePoint start) {
  return std::chrono::duration<double, std::milli>(SystemClock().Now() - start).count();
}

// Adds the time it lives to `sum`.
class Stopwatch {
 public:
  explicit Stopwatch(double& sum) : sum_(sum) {}
  ~Stopwatch() { sum_ += MillisecondsSince(start_); }

 private:
  double& sum_;
  const TimePoint start_ = SystemClock().Now();
};

}  // namespace

CheckpointSaver::CheckpointSaver(const model::RunContext& run, const Plan& plan, Session& session,
                                 FaultPlan& faults)
    : run_(run), plan_(plan), session_(session), faults_(faults), task_("checkpoint", [] {}) {}

Status CheckpointSaver::Save(TrainState& state, Optimizer& optimizer, Critic* critic) {
  const Stopwatch held(figures_.stall_ms);
  THRESHER_RETURN_IF_ERROR(session_.AwaitCommit());
  THRESHER_RETURN_IF_ERROR(FinishAll());
  if (reported_ == state.step) return Status::Ok();
  faults_.Reached("before_checkpoint");
  if (!run_.config.checkpoint.background) return SaveInPlace(state, optimizer, critic);
  copy_.lineage = state.lineage;
  copy_.step = state.step;
  copy_.chain = state.chain;
  copy_.reference = state.reference;
  THRESHER_RETURN_IF_ERROR(optimizer.Share(copy_));
  if (critic != nullptr && critic->started()) critic->Copy(copy_.critic);
  saving_ = &copy_;
  Write();
  return Status::Ok();
}

Status CheckpointSaver::SaveInPlace(TrainState& state, Optimizer& optimizer, Critic* critic) {
  THRESHER_RETURN_IF_ERROR(optimizer.Lend(state));
  if (critic != nullptr && critic->started()) state.critic = critic->Lend();
  saving_ = &state;
  Write();
  const Status status = FinishAll();
  optimizer.TakeBack(state);
  if (!state.critic.weights.empty()) critic->Restore(std::exchange(state.critic, {}));
  return status;
}

// On the task: what it uses is not touched until its outcome is taken.
void CheckpointSaver::Write() {
  if (stage_ == Stage::kIdle) began_ = SystemClock().Now();
  stage_ = Stage::kWriting;
  task_.Begin([this]() -> Status {
    kernels::PinFpEnv();  // weights are rounded to their stored type
    THRESHER_ASSIGN_OR_RETURN(
        saved_, SaveCheckpoint(run_, *saving_, [this] { faults_.Reached("in_checkpoint"); }));
    return Status::Ok();
  });
}

Status CheckpointSaver::Poll() {
  if (stage_ == Stage::kIdle) return Status::Ok();
  const Stopwatch held(figures_.stall_ms);
  return Look(Duration::zero());
}

Status CheckpointSaver::Look(Duration wait) {
  if (stage_ == Stage::kNoRoom) {
    if (SystemClock().Now() >= next_try_) Write();
    return Status::Ok();
  }
  const std::optional<Status> outcome = task_.Take(wait);
  if (!outcome) return Status::Ok();
  if (stage_ == Stage::kWriting) return OnWritten(*outcome);
  stage_ = Stage::kIdle;
  return *outcome;
}

Status CheckpointSaver::OnWritten(const Status& written) {
  if (written.code() == StatusCode::kResourceExhausted) {
    if (no_room_.ok()) LogWarning("the checkpoint waits for room: " + written.message());
    NoteRoom(written);
    next_try_ = SystemClock().Now() + kTryAgain;
    stage_ = Stage::kNoRoom;
    return Status::Ok();
  }
  stage_ = Stage::kIdle;
  if (!written.ok()) {
    return written.WithContext("the checkpoint of step " + std::to_string(saving_->step));
  }
  NoteRoom(Status::Ok());
  figures_.write_ms += MillisecondsSince(began_);
  faults_.Reached("after_checkpoint");
  THRESHER_ASSIGN_OR_RETURN(
      best_, session_.ReportCheckpoint({saving_->lineage, saving_->step, saved_.folder,
                                        saved_.manifest_hash, saving_->chain}));
  reported_ = saving_->step;
  faults_.Reached("after_report");
  Prune();
  return Status::Ok();
}

void CheckpointSaver::NoteRoom(const Status& room) {
  no_room_ = room;
  session_.CheckpointWaits(room.ok() ? "" : room.message());
}

// Reads what it keeps, and so takes as long as writing.
void CheckpointSaver::Prune() {
  stage_ = Stage::kPruning;
  KeepRules rules;
  rules.newest = run_.config.checkpoint.keep;
  rules.every = run_.config.checkpoint.keep_every;
  rules.always = best_;
  rules.always.insert(rules.always.end(), {plan_.supervised_steps(), plan_.total_steps()});
  task_.Begin([this, rules] { return PruneCheckpoints(run_.folder, rules); });
}

Status CheckpointSaver::Finish() {
  const Stopwatch held(figures_.stall_ms);
  return FinishAll();
}

Status CheckpointSaver::FinishAll() {
  TimePoint end = SystemClock().Now() + DiskPatience(run_.config);
  bool stopping = false;
  while (stage_ != Stage::kIdle) {
    THRESHER_RETURN_IF_ERROR(Look(kLook));
    if (stage_ == Stage::kIdle) break;
    THRESHER_RETURN_IF_ERROR(session_.HandleUntil(SystemClock().Now() + kListen));
    if (stage_ != Stage::kNoRoom) continue;
    if (SystemClock().Now() >= end) return no_room_;
    if (session_.shutdown() != nullptr && !std::exchange(stopping, true)) {
      LogWarning("asked to stop: the checkpoint waits for room no longer than " +
                 std::to_string(kStopDiskPatience.count()) + " s more");
      end = std::min(end, SystemClock().Now() + Duration(kStopDiskPatience));
    }
    THRESHER_RETURN_IF_ERROR(session_.HandleUntil(std::min(next_try_, end)));
  }
  return Status::Ok();
}

Status CheckpointSaver::PruneLast(std::vector<std::uint32_t> best) {
  if (run_.config.checkpoint.keep_best == 0) return Status::Ok();
  best_ = std::move(best);
  Prune();
  return FinishAll();
}

CheckpointSaver::Figures CheckpointSaver::TakeFigures() {
  Figures figures = std::exchange(figures_, {});
  figures.waits = !no_room_.ok();
  return figures;
}

}  // namespace thresher::learner
