#include "learner/session.h"

#include <algorithm>
#include <utility>

#include "common/base/clock.h"
#include "common/sync/task.h"

namespace thresher::learner {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAskAgain{2000};    // an unanswered request is repeated after this
constexpr milliseconds kNotReadyPause{5};  // before asking for a batch that is not complete
constexpr milliseconds kIdleCall{50};      // between two of those that WhileWaiting asked for
constexpr milliseconds kLook{10};          // between two looks whether what is waited for is there

}  // namespace

Session::Session(Options options) : options_(std::move(options)) {
  auto heartbeat = [this] {
    std::lock_guard lock(mutex_);
    wire::Heartbeat beat;
    beat.progress = progress_;
    beat.longest_step_ms = longest_step_ms_;
    beat.waiting = waiting_;
    return beat;
  };
  link_ = std::make_unique<net::PeerLink>(
      options_.link, [this] { return options_.hello; }, heartbeat,
      [this](wire::Message m) { inbox_.Put(std::move(m)); },
      [this](Status s) { inbox_.Fail(std::move(s)); });
  link_->Start();
}

Session::~Session() { link_.reset(); }

void Session::Progress(std::uint64_t steps, std::uint32_t longest_step_ms) {
  std::lock_guard lock(mutex_);
  progress_ = steps;
  longest_step_ms_ = longest_step_ms;
}

void Session::CheckpointWaits(const std::string& why) {
  std::lock_guard lock(mutex_);
  waiting_ = why;
}

Result<std::unique_ptr<wire::Message>> Session::Next(milliseconds timeout) {
  const TimePoint end = SystemClock().Now() + timeout;
  Duration wait = idle_ ? Duration::zero() : Duration(timeout);
  while (true) {
    THRESHER_ASSIGN_OR_RETURN(auto message, inbox_.TakeOne(wait));
    const Duration left = end - SystemClock().Now();
    if (message != nullptr || !idle_ || left <= Duration::zero()) return message;
    idle_();
    wait = std::min<Duration>(left, kIdleCall);
  }
}

template <typename Accept>
Status Session::Ask(const wire::Message& request, AskOptions options, Accept accept) {
  bool send = !options.posted;
  while (true) {
    if (send) THRESHER_RETURN_IF_ERROR(link_->Post(request));
    send = false;
    milliseconds wait = kAskAgain;
    if (options.until) {
      const Duration left = *options.until - SystemClock().Now();
      if (left <= Duration::zero()) return DeadlineExceeded("the broker did not answer in time");
      wait = std::min(wait, std::chrono::ceil<milliseconds>(left));
    }
    THRESHER_ASSIGN_OR_RETURN(auto message, Next(wait));
    if (message == nullptr) {
      send = link_->Backlog() == 0;  // answered late or lost with the connection
      continue;
    }
    if (accept(*message)) return Status::Ok();
    // The broker restarted and may never have seen the request.
    if (std::holds_alternative<wire::Welcome>(*message)) send = link_->Backlog() == 0;
    Note(std::move(*message));
    if (options.stop_on_shutdown && shutdown_) return Cancelled("the broker asked to stop");
  }
}

void Session::Note(wire::Message message) {
  if (auto* stop = std::get_if<wire::Shutdown>(&message)) {
    shutdown_ = std::make_unique<wire::Shutdown>(*stop);
  } else if (auto* get = std::get_if<wire::ChunkGet>(&message)) {
    ServeChunk(*get);
  } else if (std::holds_alternative<wire::Welcome>(message)) {
    NoteWelcome();
  } else {
    Keep(std::move(message));
  }
}

Status Session::WaitFor(const std::string& what, const std::function<bool()>& done,
                        milliseconds deadline) {
  const TimePoint end = SystemClock().Now() + deadline;
  while (!done()) {
    if (shutdown_) return Cancelled("the broker asked to stop");
    if (SystemClock().Now() >= end) return DeadlineExceeded(what);
    THRESHER_ASSIGN_OR_RETURN(auto message, Next(kLook));
    if (message != nullptr) Note(std::move(*message));
  }
  return Status::Ok();
}

Status Session::HandleUntil(TimePoint time) {
  for (Duration left = time - SystemClock().Now(); left > Duration::zero();
       left = time - SystemClock().Now()) {
    THRESHER_ASSIGN_OR_RETURN(auto message, Next(std::chrono::ceil<milliseconds>(left)));
    if (message != nullptr) Note(std::move(*message));
  }
  return Status::Ok();
}

void Session::NoteWelcome() {
  for (auto& [leaf, early] : early_) early.posted = false;
  if (reported_) (void)link_->Post(*reported_);
}

void Session::Keep(wire::Message message) {
  if (auto* part = std::get_if<wire::LeafPart>(&message)) {
    if (part->lineage != early_lineage_ || part->step != early_step_ || part->part != 0) return;
    auto early = early_.find(part->leaf);
    if (early != early_.end()) early->second.answer = std::move(*part);
  } else if (auto* wait = std::get_if<wire::NotReady>(&message)) {
    std::erase_if(early_, [&](const auto& entry) {
      return !entry.second.answer && entry.second.request == wait->request;
    });
  } else if (auto* ack = std::get_if<wire::StepAck>(&message)) {
    if (reported_ && reported_->step == ack->step) reported_.reset();
  }
}

Result<wire::Welcome> Session::Join() {
  while (true) {
    THRESHER_ASSIGN_OR_RETURN(auto message, Next(kAskAgain));
    if (message == nullptr) continue;
    if (auto* welcome = std::get_if<wire::Welcome>(message.get())) return *welcome;
  }
}

Result<std::vector<std::string>> Session::Meet(const std::string& job, const std::string& mine,
                                               milliseconds deadline) {
  const std::uint32_t world = options_.hello.world;
  std::vector<std::string> hellos;
  Status status = Ask(wire::RanksMeet{job, world, mine},
                      {.stop_on_shutdown = true, .until = SystemClock().Now() + deadline},
                      [&](wire::Message& message) {
                        auto* met = std::get_if<wire::RanksMet>(&message);
                        if (met == nullptr || met->job != job) return false;
                        hellos = std::move(met->hellos);
                        return true;
                      });
  if (status.code() == StatusCode::kDeadlineExceeded) {
    return DeadlineExceeded("not all " + std::to_string(world) + " learner ranks of job '" + job +
                            "' came to the broker within " + std::to_string(deadline.count()) +
                            " ms");
  }
  if (!status.ok()) return status;
  return hellos;
}

Status Session::Prefetch(std::uint32_t lineage, std::uint32_t step, std::uint32_t begin,
                         std::uint32_t count) {
  if (lineage != early_lineage_ || step != early_step_) early_.clear();
  early_lineage_ = lineage;
  early_step_ = step;
  for (std::uint32_t leaf = begin; leaf < begin + count; ++leaf) {
    if (early_.contains(leaf)) continue;
    const std::uint64_t request = next_request_++;
    THRESHER_RETURN_IF_ERROR(link_->Post(wire::FetchLeaf{request, lineage, step, leaf, 0}));
    early_.emplace(leaf, Early{request, true, std::nullopt});
  }
  return Status::Ok();
}

Status Session::FetchPart(std::uint32_t lineage, std::uint32_t step, std::uint32_t leaf,
                          std::uint32_t part, wire::LeafPart& out) {
  while (true) {
    if (shutdown_) return Cancelled("the broker asked to stop");
    const bool ahead = part == 0 && lineage == early_lineage_ && step == early_step_;
    auto early = ahead ? early_.extract(leaf) : decltype(early_)::node_type();
    if (early && early.mapped().answer) {
      out = std::move(*early.mapped().answer);
      return Status::Ok();
    }
    const std::uint64_t request = early ? early.mapped().request : next_request_++;
    bool ready = false;
    Status status = Ask(wire::FetchLeaf{request, lineage, step, leaf, part},
                        {.stop_on_shutdown = true, .posted = early && early.mapped().posted},
                        [&](wire::Message& message) {
                          if (auto* wait = std::get_if<wire::NotReady>(&message))
                            return wait->request == request;
                          auto* answer = std::get_if<wire::LeafPart>(&message);
                          if (answer == nullptr || answer->request != request) return false;
                          out = std::move(*answer);
                          ready = true;
                          return true;
                        });
    THRESHER_RETURN_IF_ERROR(status);
    if (ready) return Status::Ok();
    sync::SleepFor(kNotReadyPause);
  }
}

Result<LeafBytes> Session::Fetch(std::uint32_t lineage, std::uint32_t step, std::uint32_t leaf) {
  LeafBytes bytes;
  std::uint32_t parts = 1;
  for (std::uint32_t part = 0; part < parts; ++part) {
    wire::LeafPart answer;
    THRESHER_RETURN_IF_ERROR(FetchPart(lineage, step, leaf, part, answer));
    if (part > 0 && (answer.batch_digest != bytes.batch_digest || answer.parts != parts)) {
      return DataLoss("step " + std::to_string(step) + " leaf " + std::to_string(leaf) +
                      ": its parts belong to different batches");
    }
    parts = answer.parts;
    bytes.batch_digest = answer.batch_digest;
    bytes.batch_trajectories = answer.batch_trajectories;
    bytes.batch_loss_tokens = answer.batch_loss_tokens;
    for (auto& record : answer.records) bytes.records.push_back(std::move(record));
  }
  return bytes;
}

Status Session::PostCommit(const wire::StepDone& done) {
  THRESHER_RETURN_IF_ERROR(AwaitCommit());
  THRESHER_RETURN_IF_ERROR(link_->Post(done));
  reported_ = done;
  return Status::Ok();
}

Status Session::AwaitCommit() {
  if (!reported_) return Status::Ok();
  const wire::StepDone done = *std::exchange(reported_, std::nullopt);
  return Ask(done, {.posted = true}, [&](wire::Message& message) {
    auto* ack = std::get_if<wire::StepAck>(&message);
    return ack != nullptr && ack->step == done.step;
  });
}

void Session::ServeChunk(const wire::ChunkGet& get) {
  if (get.version != publishing_.version) return;
  std::size_t begin = static_cast<std::size_t>(get.index) * publishing_.chunk_bytes;
  if (publishing_.chunk_bytes == 0 || begin >= publishing_blob_.size()) return;
  (void)link_->Post(
      wire::Chunk{get.version, get.index, publishing_blob_.substr(begin, publishing_.chunk_bytes)});
}

Status Session::PublishWeights(const wire::WeightsManifest& manifest, std::string blob) {
  publishing_ = manifest;
  publishing_blob_ = std::move(blob);
  Status refused;
  Status status = Ask(wire::Publish{manifest}, {}, [&](wire::Message& message) {
    auto* ack = std::get_if<wire::PublishAck>(&message);
    if (ack == nullptr || ack->version != manifest.version) return false;
    if (!ack->ok) {
      refused = Aborted("version " + manifest.version.ToString() + " was refused: " + ack->reason);
    }
    return true;
  });
  publishing_ = {};
  std::string().swap(publishing_blob_);
  return status.ok() ? refused : status;
}

Result<std::vector<std::uint32_t>> Session::ReportCheckpoint(const wire::CheckpointDone& done) {
  std::vector<std::uint32_t> keep;
  THRESHER_RETURN_IF_ERROR(Ask(done, {}, [&](wire::Message& message) {
    auto* ack = std::get_if<wire::CheckpointAck>(&message);
    if (ack == nullptr || ack->step != done.step) return false;
    keep = std::move(ack->keep);
    return true;
  }));
  return keep;
}

Result<wire::Shutdown> Session::AwaitShutdown() {
  while (!shutdown_) {
    THRESHER_ASSIGN_OR_RETURN(auto message, Next(kAskAgain));
    if (message == nullptr) continue;
    if (auto* stop = std::get_if<wire::Shutdown>(message.get())) {
      shutdown_ = std::make_unique<wire::Shutdown>(*stop);
    }
  }
  return *shutdown_;
}

void Session::Leave(const std::string& reason) { (void)link_->Post(wire::Goodbye{reason}); }

}  // namespace thresher::learner
