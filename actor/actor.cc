#include "actor/actor.h"

#include <bit>
#include <utility>

#include "common/backend/backend.h"
#include "common/base/clock.h"
#include "common/base/process.h"
#include "common/config/sampling.h"
#include "common/examples/source.h"
#include "common/log/log.h"
#include "common/model/weights.h"
#include "common/wire/records.h"
#include "kernels/cpu/fpenv.h"

namespace thresher::actor {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kIdleWait{100};
constexpr milliseconds kTurnWait{20};             // between two looks at whose turn it is
constexpr std::chrono::seconds kRequestRetry{5};  // an unanswered lease request goes out again
constexpr std::chrono::seconds kManifestRetry{1};
constexpr std::chrono::seconds kHandOver{3};      // a supervisor that asked is patient for 5 s
constexpr std::chrono::seconds kHandOverAll{20};  // the broker that asked is for 30 s
constexpr milliseconds kHandOverWait{20};
constexpr std::size_t kReferencesPerTurn = 64;  // keeps messages flowing between turns

Outbox::Limits LimitsOf(const Config& config) {
  Outbox::Limits limits;
  limits.records = static_cast<std::size_t>(config.actors.upload_batch);
  limits.bytes = std::min<std::size_t>(
      limits.bytes, static_cast<std::size_t>(config.broker.max_message_bytes) / 4);
  return limits;
}

}  // namespace

EngineOptions EngineOptionsOf(const Config& config) {
  EngineOptions options;
  options.max_batch = config.actors.max_batch;
  options.prefill_chunk = config.actors.prefill_chunk_tokens;
  options.kv_pages = config.actors.kv_pages;
  options.colocated = config.engine.colocated;
  return options;
}

Actor::Actor(const model::RunContext& run, const ActorOptions& options, FaultPlan faults,
             Engine engine, std::unique_ptr<DeviceTurn> turn)
    : run_(run),
      options_(options),
      faults_(std::move(faults)),
      incarnation_(NewIncarnation()),
      identity_hash_(run.identity.Hash()),
      engine_(std::move(engine)),
      receiver_([this](const wire::Message& m) { Post(m); },
                static_cast<std::uint32_t>(run.config.weights.window)),
      outbox_([this](const wire::Message& m) { PostUpload(m); },
              [this](wire::UploadVerdict verdict, const std::string& reason) {
                ++refused_;
                LogWarning(std::string(verdict == wire::UploadVerdict::kConflict
                                           ? "the broker holds another copy: "
                                           : "the broker refused a record: ") +
                           reason);
              },
              LimitsOf(run.config),
              [this](const TrajectoryId& id, std::uint32_t tokens, bool kept) {
                OnPrefix(id, tokens, kept);
              }),
      turn_(std::move(turn)),
      partial_interval_(PartialInterval(run.config)) {
  net::PeerLinkOptions link;
  link.run_folder = run.folder;
  link.endpoint = options.endpoint;
  link.role = wire::PeerRole::kActor;
  link.run_id = run.run_id;
  link.incarnation = incarnation_;
  link.max_message_bytes = static_cast<std::size_t>(run.config.broker.max_message_bytes);
  link.patience = options.patience;
  link_ = std::make_unique<net::PeerLink>(
      link, [this] { return MakeHello(); }, [this] { return MakeHeartbeat(); },
      [this](wire::Message message) { inbox_.Put(std::move(message)); },
      [this](Status failure) { inbox_.Fail(std::move(failure)); });
}

Actor::~Actor() { link_.reset(); }

void Actor::Post(const wire::Message& message) {
  Status status = link_->Post(message);
  if (!status.ok()) LogError(status.ToString());
}

void Actor::PostUpload(const wire::Message& upload) {
  faults_.Reached("before_upload");
  Post(upload);
}

// The link's thread calls the two makers; both read the copy that UpdateHeartbeat keeps.
wire::Hello Actor::MakeHello() const {
  wire::Hello hello;
  hello.role = wire::PeerRole::kActor;
  hello.index = options_.index;
  const ProcessName process = ThisProcess();
  hello.name = "actor-" + std::to_string(options_.index) + "@" + process.host;
  hello.pid = process.pid;
  hello.identity = run_.identity;
  std::lock_guard lock(mutex_);
  hello.has_weights = heartbeat_.has_weights;
  hello.weights = heartbeat_.weights;
  hello.weights_hash = heartbeat_.weights_hash;
  return hello;
}

wire::Heartbeat Actor::MakeHeartbeat() {
  std::lock_guard lock(mutex_);
  return heartbeat_;
}

void Actor::UpdateHeartbeat() {
  const EngineCounters counters = engine_.counters();
  wire::Heartbeat beat;
  if (outbox_.blocked()) ++credit_waits_;
  // Waiting for the device is no standstill: HasTurn has a deadline of its own. Nor is waiting for
  // credit, which the broker gives.
  beat.progress = counters.steps + references_written_ + turn_waits_ + credit_waits_;
  beat.longest_step_ms = counters.longest_step_ms;
  beat.has_weights = engine_.has_weights();
  beat.weights = engine_.version();
  beat.weights_hash = held_hash_;
  for (const auto& [fence, held] : leases_) beat.held.push_back(fence);
  if (outbox_.blocked()) {
    for (FencingToken fence : outbox_.Fences()) {
      if (!leases_.contains(fence)) beat.held.push_back(fence);
    }
  }
  beat.credit = outbox_.Obeyed();
  beat.kept = outbox_.Kept();
  beat.counters = {{"engine_steps", static_cast<double>(counters.steps)},
                   {"prefill_tokens", static_cast<double>(counters.prefill_tokens)},
                   {"generated_tokens", static_cast<double>(counters.decode_tokens)},
                   {"recomputed_tokens", static_cast<double>(counters.recomputed_tokens)},
                   {"shared_tokens", static_cast<double>(counters.shared_tokens)},
                   {"preemptions", static_cast<double>(counters.preemptions)},
                   {"trajectories", static_cast<double>(counters.finished)},
                   {"references", static_cast<double>(references_written_)},
                   {"swaps", static_cast<double>(swaps_)},
                   {"damaged_chunks", static_cast<double>(receiver_.damaged_chunks())},
                   {"refused_records", static_cast<double>(refused_)},
                   {"kept_bytes", static_cast<double>(outbox_.kept_bytes())},
                   {"partials_sent", static_cast<double>(prefixes_sent_)},
                   {"partials_kept", static_cast<double>(prefixes_kept_)},
                   {"partials_refused", static_cast<double>(prefixes_refused_)},
                   {"partials_continued", static_cast<double>(prefixes_continued_)},
                   {"partials_unusable", static_cast<double>(prefixes_unusable_)},
                   {wire::Heartbeat::kContinuedTokens, static_cast<double>(tokens_continued_)},
                   {wire::Heartbeat::kLostTokens, static_cast<double>(LostTokens())},
                   {wire::Heartbeat::kUnsavedTokens, static_cast<double>(UnsavedTokens())},
                   {"running", static_cast<double>(engine_.load())},
                   {"kv_pages_used", static_cast<double>(counters.pages_used)}};
  if (const backend::GpuMemory memory = backend::GpuMemoryTaken(); memory.most > 0) {
    beat.counters.emplace_back("gpu_bytes", static_cast<double>(memory.taken));
    beat.counters.emplace_back("gpu_bytes_most", static_cast<double>(memory.most));
  }
  // Others may wait for what this one was told to give back.
  const wire::Credit credit = beat.credit;
  bool less = false;
  {
    std::lock_guard lock(mutex_);
    less = credit.number != heartbeat_.credit.number && credit.bytes < heartbeat_.credit.bytes;
    heartbeat_ = std::move(beat);
  }
  if (less) link_->BeatSoon();
}

Status Actor::PumpMessages(milliseconds wait) {
  THRESHER_ASSIGN_OR_RETURN(std::deque<wire::Message> batch, inbox_.TakeAll(wait));
  for (wire::Message& message : batch) Handle(message);
  return Status::Ok();
}

void Actor::Handle(wire::Message& message) {
  TimePoint now = SystemClock().Now();
  if (auto* welcome = std::get_if<wire::Welcome>(&message)) {
    OnWelcome(*welcome);
  } else if (auto* grant = std::get_if<wire::LeaseGrant>(&message)) {
    OnGrant(*grant);
  } else if (auto* ack = std::get_if<wire::UploadAck>(&message)) {
    if (outbox_.OnAck(*ack) > 0) faults_.Reached("acked");
    outbox_.OnCredit(ack->credit, now);
  } else if (auto* beat = std::get_if<wire::HeartbeatAck>(&message)) {
    outbox_.OnCredit(beat->credit, now);
  } else if (auto* consumed = std::get_if<wire::Consumed>(&message)) {
    outbox_.OnConsumed(*consumed);
  } else if (auto* announce = std::get_if<wire::Announce>(&message)) {
    newest_ = announce->manifest;
  } else if (auto* chunk = std::get_if<wire::Chunk>(&message)) {
    receiver_.OnChunk(*chunk, now);
  } else if (auto* manifest = std::get_if<wire::WeightsManifest>(&message)) {
    OnManifest(*manifest);
  } else if (auto* stop = std::get_if<wire::Shutdown>(&message)) {
    LogInfo("the broker ends the run: " + stop->reason);
    finished_ = true;
    hand_over_ = stop->checkpoint_first;
  }
}

void Actor::OnWelcome(const wire::Welcome& welcome) {
  TimePoint now = SystemClock().Now();
  if (welcome.has_weights) newest_ = welcome.weights;
  outstanding_request_.reset();
  outbox_.OnEpoch(welcome.epoch, welcome.keep_until_consumed);
  outbox_.ResendAll(welcome.credit, now);
  receiver_.Restart(now);
}

void Actor::OnGrant(const wire::LeaseGrant& grant) {
  // A grant for a request given up meanwhile (a swap came between) still carries leases; those that
  // do not fit the weights held now are parked until theirs are loaded.
  if (leaving_) return;
  if (outstanding_request_ == grant.request) outstanding_request_.reset();
  if (grant.leases.empty()) request_not_before_ = SystemClock().Now() + milliseconds(20);
  KeepPrefixes(grant.prefixes);
  for (const wire::Lease& lease : grant.leases) StartLease(lease);
  if (parked_.empty()) prefixes_.clear();
}

void Actor::KeepPrefixes(const std::vector<SharedBytes>& prefixes) {
  for (const SharedBytes& bytes : prefixes) {
    Result<Trajectory> prefix = wire::DecodeTrajectory(bytes);
    if (prefix.ok()) {
      const TrajectoryId id = prefix->id;
      prefixes_.insert_or_assign(id, *std::move(prefix));
    } else {
      ++prefixes_unusable_;
      LogWarning("a prefix cannot be read: " + prefix.status().ToString());
    }
  }
}

void Actor::OnManifest(const wire::WeightsManifest& manifest) {
  if (manifest.bytes > 0) {
    parked_manifest_ = manifest;
    return;
  }
  // The broker has that version no more, for nobody needs what it would be loaded for: samples that
  // were lost may have been found meanwhile. If somebody does, it is leased again.
  receiver_.Abandon(manifest.version);
  const std::string reason = "version " + manifest.version.ToString() + " is gone";
  const std::size_t returned = std::erase_if(parked_, [&](const wire::Lease& lease) {
    if (lease.version != manifest.version) return false;
    Post(wire::LeaseRelease{lease.fence, {}, reason});
    leases_.erase(lease.fence);
    return true;
  });
  if (returned == 0) return;
  LogInfo(reason + ": " + std::to_string(returned) + " leases are handed back");
  request_not_before_ = SystemClock().Now() + kManifestRetry;
}

void Actor::StartLease(const wire::Lease& lease) {
  HeldLease& held = leases_[lease.fence];
  held.lease = lease;
  held.open_samples = lease.samples;
  if (lease.pinned && (!engine_.has_weights() || engine_.version() != lease.version)) {
    parked_.push_back(lease);
    return;
  }
  for (std::uint32_t s = 0; s < lease.samples; ++s) {
    SampleSpec spec;
    spec.id = {lease.stream, lease.island, lease.item, lease.first_sample + s};
    spec.group_size = lease.group_size;
    spec.pinned = lease.version;
    spec.temperature = lease.temperature;
    spec.max_new_tokens = lease.max_new_tokens;
    if (auto open = open_.find(spec.id); open != open_.end()) {
      // Granted again while it is being worked on (the broker restarted and leases are not
      // journalled): the work goes on under the new fence.
      CountDown(std::exchange(open->second.fence, lease.fence));
      open->second.sent = open->second.saved;  // it may have been refused under the old one
      continue;
    }
    OpenSample& sample = open_[spec.id] = {lease.fence, spec};
    if (lease.purpose == wire::Purpose::kSupervised) {
      references_.push_back(spec.id);
    } else {
      Submit(sample);
    }
  }
}

// From where somebody else left it, if that can be continued.
void Actor::Submit(OpenSample& sample) {
  const TrajectoryId id = sample.spec.id;
  GenerationRequest request = rollout_->Request(sample.spec);
  sample.prompt = static_cast<std::uint32_t>(request.prompt.size());
  if (auto found = prefixes_.extract(id); !found.empty()) {
    const Trajectory& record = found.mapped();
    auto prefix = record.run_identity == identity_hash_
                      ? Rollout::Continue(sample.spec, request, record)
                      : FailedPrecondition("prefix of " + id.ToString() + ": other numerics");
    Status status = prefix.status();
    const std::uint32_t tokens = record.PolicyTokenCount();
    if (prefix.ok()) {
      GenerationRequest continued = request;
      continued.prefix = *std::move(prefix);
      status = engine_.Submit(std::move(continued));
    }
    if (status.ok()) {
      sample.drawn = sample.sent = sample.saved = tokens;
      ++prefixes_continued_;
      tokens_continued_ += tokens;
      return;
    }
    ++prefixes_unusable_;
    lost_tokens_ += tokens;
    LogWarning(status.ToString() + ": generated anew");
  }
  Status status = engine_.Submit(std::move(request));
  if (!status.ok()) FailSample(id, "prompt_too_long", status.message());
}

void Actor::CloseSample(FencingToken fence, const TrajectoryId& id) {
  open_.erase(id);
  CountDown(fence);
}

void Actor::CountDown(FencingToken fence) {
  auto held = leases_.find(fence);
  if (held != leases_.end() && --held->second.open_samples == 0) leases_.erase(held);
}

void Actor::FinishSample(const TrajectoryId& id, const Trajectory& record) {
  auto found = open_.find(id);
  THRESHER_CHECK(found != open_.end(), "finished a sample that is not open: " + id.ToString());
  Trajectory complete = record;
  complete.actor = ActorId(options_.index);
  complete.incarnation = incarnation_;
  complete.run_identity = identity_hash_;
  FencingToken fence = found->second.fence;
  outbox_.DropPrefix(id);
  outbox_.Add(fence, wire::EncodeTrajectory(complete), SystemClock().Now(),
              found->second.Unsaved());
  CloseSample(fence, id);
}

void Actor::FailSample(const TrajectoryId& id, const std::string& reason,
                       const std::string& detail) {
  auto found = open_.find(id);
  THRESHER_CHECK(found != open_.end(), "failed a sample that is not open: " + id.ToString());
  FencingToken fence = found->second.fence;
  outbox_.DropPrefix(id);
  LogWarning(id.ToString() + ": " + reason + ": " + detail);
  Post(wire::SampleFailed{fence, id, reason, detail});
  CloseSample(fence, id);
}

Status Actor::WriteReferences() {
  for (std::size_t i = 0; i < kReferencesPerTurn && !references_.empty(); ++i) {
    TrajectoryId id = references_.front();
    references_.pop_front();
    auto found = open_.find(id);
    if (found == open_.end()) continue;
    THRESHER_ASSIGN_OR_RETURN(const Trajectory record, rollout_->Reference(found->second.spec));
    FinishSample(id, record);
    ++references_written_;
  }
  return Status::Ok();
}

Result<bool> Actor::HasTurn() {
  if (turn_ == nullptr || turn_->TryTake()) {
    turn_asked_.reset();
    return true;
  }
  const TimePoint now = SystemClock().Now();
  if (!turn_asked_) turn_asked_ = now;
  ++turn_waits_;
  if (now - *turn_asked_ < kTurnDeadline) return false;
  return DeadlineExceeded("the learner has not given its turn on the GPU (" +
                          turn_->file().string() + ") for an hour");
}

Status Actor::OfferTurn() {
  turn_asked_.reset();
  if (turn_ == nullptr || (turn_->held() && !turn_->Wanted())) return Status::Ok();
  if (turn_->held()) THRESHER_RETURN_IF_ERROR(engine_.ReleaseMemory());
  turn_->Give();
  return Status::Ok();
}

Status Actor::Work() {
  if (!references_.empty()) THRESHER_RETURN_IF_ERROR(WriteReferences());
  if (engine_.load() == 0) return OfferTurn();
  THRESHER_ASSIGN_OR_RETURN(const bool has_turn, HasTurn());
  if (!has_turn) return Status::Ok();
  THRESHER_ASSIGN_OR_RETURN(std::vector<GenerationResult> finished, engine_.Step());
  faults_.Reached("decode");
  NoteDrawn();
  for (GenerationResult& result : finished) {
    auto found = open_.find(result.id);
    THRESHER_CHECK(found != open_.end(), "the engine finished a sample that is not open");
    const TrajectoryId id = result.id;
    if (result.finish == FinishReason::kError) {
      FailSample(id, "cancelled", result.error);
      continue;
    }
    if (id.stream == Stream::kTrain && faults_.Due("token", "item", id.item)) {
      LogWarning("planted fault: a changed token in " + id.ToString());
      result.tokens[result.prompt_tokens] ^= 1;
    }
    FinishSample(id, rollout_->Finish(found->second.spec, result));
  }
  return Status::Ok();
}

void Actor::NoteDrawn() {
  for (const FreshToken& token : engine_.fresh_tokens()) {
    auto found = open_.find(token.id);
    if (found == open_.end()) continue;
    OpenSample& sample = found->second;
    sample.drawn = token.position + 1 - sample.prompt;
    const bool due = partial_interval_ > 0 && sample.drawn - sample.sent >= partial_interval_;
    if (due) SendPrefix(token.id, sample);
  }
}

void Actor::SendPrefix(const TrajectoryId& id, OpenSample& sample) {
  const std::optional<GenerationResult> so_far = engine_.SoFar(id);
  if (!so_far) return;  // it has just ended
  Trajectory record = rollout_->Prefix(sample.spec, *so_far);
  record.actor = ActorId(options_.index);
  record.incarnation = incarnation_;
  record.run_identity = identity_hash_;
  sample.sent = static_cast<std::uint32_t>(so_far->logprobs.size());
  outbox_.AddPrefix(id, sample.fence, sample.sent, wire::EncodeTrajectory(record));
  ++prefixes_sent_;
}

void Actor::OnPrefix(const TrajectoryId& id, std::uint32_t tokens, bool kept) {
  ++(kept ? prefixes_kept_ : prefixes_refused_);
  auto found = open_.find(id);
  if (found == open_.end()) return;
  found->second.refused = !kept;
  if (kept) found->second.saved = std::max(found->second.saved, tokens);
}

std::uint64_t Actor::UnsavedTokens() const {
  std::uint64_t tokens = outbox_.unaccepted_tokens();
  for (const auto& [id, sample] : open_) tokens += sample.Unsaved();
  return tokens;
}

void Actor::HandOver() {
  leaving_ = true;
  if (partial_interval_ == 0) return;
  for (auto& [id, sample] : open_) {
    if (sample.drawn > sample.sent || sample.refused) SendPrefix(id, sample);
  }
  const TimePoint end = SystemClock().Now() + (hand_over_ ? kHandOverAll : kHandOver);
  for (TimePoint now; !outbox_.idle() && (now = SystemClock().Now()) < end;) {
    outbox_.Tick(now, true);
    UpdateHeartbeat();
    if (!PumpMessages(kHandOverWait).ok()) return;
  }
}

// Weights that the next work needs: those of a parked lease, else the newest. Null: nothing to
// change, or the manifest is on its way.
const wire::WeightsManifest* Actor::WantedWeights(TimePoint now) {
  if (!parked_.empty()) {
    PolicyVersion wanted = parked_.front().version;
    if (newest_ && newest_->version == wanted) return &*newest_;
    if (parked_manifest_ && parked_manifest_->version == wanted) return &*parked_manifest_;
    if (now >= manifest_not_before_) {
      manifest_not_before_ = now + kManifestRetry;
      Post(wire::ManifestGet{wanted});
    }
    return nullptr;
  }
  bool holds_newest = newest_ && engine_.has_weights() && engine_.version() == newest_->version &&
                      held_hash_ == newest_->hash;
  return newest_ && !holds_newest ? &*newest_ : nullptr;
}

Status Actor::ConsiderSwap() {
  TimePoint now = SystemClock().Now();
  const wire::WeightsManifest* wanted = WantedWeights(now);
  if (wanted == nullptr) return Status::Ok();
  Status begun = receiver_.Begin(*wanted, now);
  if (!begun.ok()) {
    LogError(begun.ToString());
    (newest_ && wanted == &*newest_ ? newest_ : parked_manifest_)
        .reset();  // until one that adds up
    return Status::Ok();
  }
  if (engine_.load() > 0) return Status::Ok();  // pinned work goes first; chunks arrive meanwhile
  wire::WeightsManifest manifest = *wanted;
  auto blob = receiver_.TakeComplete(now);
  return blob ? InstallWeights(std::move(*blob), manifest) : Status::Ok();
}

Status Actor::InstallWeights(std::string blob, const wire::WeightsManifest& manifest) {
  faults_.Reached("swap");
  auto flat = model::DecodeWeights(run_.model, blob, "version " + manifest.version.ToString());
  if (!flat.ok()) {
    LogError("published weights cannot be used: " + flat.status().ToString());
    return Status::Ok();
  }
  MoveOneWeight(manifest.version, *flat);
  THRESHER_RETURN_IF_ERROR(engine_.SetWeights(
      model::PackedModel::Make(run_.model, *flat, run_.tokenizer->vocab(), false),
      manifest.version));
  held_hash_ = manifest.hash;
  ++swaps_;
  faults_.Reached("after_swap");
  request_not_before_ = {};
  outstanding_request_.reset();  // asked on behalf of the old version
  for (const wire::Lease& lease : std::exchange(parked_, {})) StartLease(lease);
  if (parked_.empty()) prefixes_.clear();
  return Status::Ok();
}

// A gain of the final norm: every logit depends on it, while one ulp in a single element of a
// matrix is often rounded away in all of a small model's sums.
void Actor::MoveOneWeight(PolicyVersion version, std::vector<float>& flat) {
  one_ulp_off_ |= faults_.Due("ulp", "version", version.step);
  if (!one_ulp_off_) return;
  LogWarning("planted fault: one weight of version " + version.ToString() + " moved by one ulp");
  for (const model::ParameterInfo& info : model::ParameterList(run_.model)) {
    if (info.name != "model.norm.weight") continue;
    const std::uint32_t ulp = run_.model.dtype == kernels::WeightType::kBf16 ? 1u << 16 : 1u;
    float& weight = flat[info.offset];
    weight = std::bit_cast<float>(std::bit_cast<std::uint32_t>(weight) + ulp);
  }
}

void Actor::AskForWork(TimePoint now) {
  if (outstanding_request_ && now - request_sent_ < kRequestRetry) return;
  if (now < request_not_before_) return;
  std::size_t capacity = static_cast<std::size_t>(run_.config.actors.max_batch);
  if (open_.size() >= capacity || !parked_.empty() || outbox_.blocked()) return;
  // Others may do it while the learner has the device, or is to have it.
  if (turn_asked_ || (turn_ != nullptr && turn_->Wanted())) return;
  wire::LeaseRequest request;
  request.request = next_request_++;
  request.max_samples = static_cast<std::uint32_t>(capacity - open_.size());
  request.has_weights = engine_.has_weights();
  request.weights = engine_.version();
  outstanding_request_ = request.request;
  request_sent_ = now;
  Post(request);
}

void Actor::CountLost() {
  lost_tokens_ += outbox_.UnsentTokens();
  for (const auto& [id, sample] : open_) lost_tokens_ += sample.Unsaved();
}

void Actor::SayGoodbye(const std::string& reason) {
  Post(wire::Goodbye{reason, LostTokens(), tokens_continued_});
}

void Actor::ReleaseAll(const std::string& reason) {
  engine_.CancelAll();
  std::unordered_map<FencingToken, std::vector<TrajectoryId>> unfinished;
  for (const auto& [id, sample] : open_) unfinished[sample.fence].push_back(id);
  for (auto& [fence, ids] : unfinished) Post(wire::LeaseRelease{fence, std::move(ids), reason});
  for (const wire::Lease& lease : parked_) Post(wire::LeaseRelease{lease.fence, {}, reason});
  open_.clear();
  leases_.clear();
  references_.clear();
  parked_.clear();
  prefixes_.clear();
}

Status Actor::Run() {
  std::unique_ptr<examples::SupervisedSource> examples;
  if (run_.config.supervised.steps > 0 && examples::UsesFiles(run_.config)) {
    THRESHER_ASSIGN_OR_RETURN(examples, examples::OpenSource(run_));
  }
  THRESHER_ASSIGN_OR_RETURN(rollout_,
                            Rollout::Make(run_.config, *run_.tokenizer, std::move(examples)));
  link_->Start();
  while (!finished_ && !stop_requested_) {
    const bool busy = (engine_.load() > 0 && !turn_asked_) || !references_.empty();
    const milliseconds idle = turn_ != nullptr ? kTurnWait : kIdleWait;
    THRESHER_RETURN_IF_ERROR(PumpMessages(busy ? milliseconds(0) : idle));
    Status worked = Work();
    if (worked.ok()) worked = ConsiderSwap();
    if (!worked.ok()) {  // a device that is lost: others take the work over at once
      CountLost();
      ReleaseAll(worked.message());
      SayGoodbye("engine: " + worked.message());
      return worked;
    }
    TimePoint now = SystemClock().Now();
    receiver_.Tick(now);
    outbox_.Tick(now, engine_.load() == 0 && references_.empty());
    if (outbox_.uploads_sent() > uploads_seen_ && link_->Backlog() == 0) {
      uploads_seen_ = outbox_.uploads_sent();
      faults_.Reached("upload");
    }
    AskForWork(now);
    UpdateHeartbeat();
  }
  if (!finished_ || hand_over_) HandOver();
  outbox_.Tick(SystemClock().Now(), true);
  CountLost();
  if (!finished_) ReleaseAll("the actor was asked to stop");
  SayGoodbye(finished_ ? "finished" : "drained");
  return finished_ ? Status::Ok() : Cancelled("asked to stop");
}

}  // namespace thresher::actor
