#include "tests/bench/broker/load_peers.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

#include "common/base/hash.h"

namespace thresher::bench {
namespace {

constexpr std::size_t kUploadRecords = 64, kUploadBytes = 512u << 10;
constexpr std::size_t kPoolBytes = 2u << 20;
constexpr std::chrono::seconds kBeat{1};
constexpr std::uint64_t kAnItem = 0x0102030405, kAnother = 0x0607080900;

Trajectory MakeTrajectory(const Config& config, std::uint32_t index, std::uint32_t tokens,
                          std::uint64_t item, std::uint32_t seed) {
  std::mt19937 random(seed);
  Trajectory t;
  t.id = {Stream::kSupervised, 0, item, 0};
  t.group_size = 1;
  t.task = config.task.name;
  for (std::uint32_t i = 0; i < tokens; ++i) {
    t.tokens.push_back(static_cast<std::int32_t>(random() % 32000));
    for (int letter = 0; letter < 4; ++letter) t.text += "etaoin shrdlu"[random() % 13];
  }
  t.prompt_hash = HashTokens(t.tokens, 16);
  t.segments = {{0, 16, Role::kPrompt, false}, {16, tokens, Role::kPolicy, true}};
  t.finish = FinishReason::kReference;
  t.outcome.reason = "solved";
  t.actor = ActorId(index);
  t.run_identity = BenchIdentity(config).Hash();
  return t;
}

}  // namespace

Hash128 BenchRunId() { return HashText128("broker bench"); }

RunIdentity BenchIdentity(const Config& config) {
  RunIdentity identity;
  identity.backend = "bench";
  identity.run_seed = config.run.seed;
  return identity;
}

Config BenchConfig(const std::vector<std::string>& more) {
  std::vector<std::string> overrides = {"run.name=bench",
                                        "supervised.steps=100000",
                                        "supervised.batch=4096",
                                        "rl.steps=0",
                                        "supervised.warmup_steps=0",
                                        "broker.lookahead_steps=2",
                                        "learner.grad_leaves=1",
                                        "checkpoint.every=1",
                                        "actors.count=1",
                                        "eval.items=1"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return ParseConfig("", "broker bench", overrides);
}

LoadPeer::LoadPeer(const Config& config, wire::PeerRole role, std::uint32_t index)
    : config_(config), index_(index), incarnation_(NewIncarnation()) {
  wire::Hello hello;
  hello.role = role;
  hello.index = index;
  hello.world = role == wire::PeerRole::kLearner ? 1 : 0;
  hello.identity = BenchIdentity(config);
  Say(hello);
}

void LoadPeer::Say(const wire::Message& message) {
  outgoing_.push_back(
      wire::EncodeFrame({BenchRunId(), incarnation_, ++sequence_}, message).value());
}

void LoadPeer::OnFrame(const SharedBytes& bytes) {
  auto frame = wire::DecodeFrame(bytes);
  THRESHER_CHECK(frame.ok(), frame.status().ToString());
  if (auto* refused = std::get_if<wire::Refused>(&frame->message)) {
    THRESHER_CHECK(false, "refused: " + refused->reason);
  }
  OnMessage(frame->message);
}

void LoadPeer::Tick(BenchClock::time_point now) {
  if (now < next_beat_) return;
  next_beat_ = now + kBeat;
  Beat();
}

void LoadPeer::Beat() {
  wire::Heartbeat beat = MakeHeartbeat();
  beat.progress = ++beats_;
  if (beats_ > 1) Say(beat);
}

LoadActor::LoadActor(const Config& config, std::uint32_t index, std::uint32_t tokens,
                     std::uint32_t outstanding)
    : LoadPeer(config, wire::PeerRole::kActor, index), outstanding_(outstanding) {
  const auto encode = [&](std::uint64_t item, std::uint32_t seed) {
    return wire::EncodeTrajectory(MakeTrajectory(config, index, tokens, item, seed));
  };
  // Simulated actors are too many for pools of their own size.
  const std::size_t pool = outstanding <= 64 ? 1 : kPoolBytes;
  for (std::uint32_t seed = 0; pool_.size() * encode(kAnItem, 0).size() < pool; ++seed) {
    pool_.push_back(encode(kAnItem, seed));
  }
  const std::string other = encode(kAnother, 0);
  while (pool_.front()[item_at_] == other[item_at_]) ++item_at_;
  item_at_ -= item_at_ % 8;
  upload_records_ = std::clamp<std::size_t>(kUploadBytes / record_bytes(), 1, kUploadRecords);
}

void LoadActor::Ask() {
  if (asking_ || in_flight_ * 2 > outstanding_) return;
  asking_ = true;
  Say(wire::LeaseRequest{++requests_, outstanding_, false, {}});
}

void LoadActor::OnMessage(wire::Message& message) {
  if (auto* welcome = std::get_if<wire::Welcome>(&message)) {
    credit_ = welcome->credit;
    Ask();
  } else if (auto* beat = std::get_if<wire::HeartbeatAck>(&message)) {
    if (beat->credit.number > credit_.number) credit_ = beat->credit;
    Pump();
  } else if (auto* grant = std::get_if<wire::LeaseGrant>(&message)) {
    asking_ = false;
    Work(*grant);
    Ask();
  } else if (auto* ack = std::get_if<wire::UploadAck>(&message)) {
    const bool less = ack->credit.number > credit_.number && ack->credit.bytes < credit_.bytes;
    if (ack->credit.number > credit_.number) credit_ = ack->credit;
    OnAck(*ack);
    Pump();
    Ask();
    if (less) Beat();  // as an actor does, so that others may have it
  }
}

void LoadActor::OnAck(const wire::UploadAck& ack) {
  auto sent = sent_.find(ack.upload);
  if (sent == sent_.end()) return;
  unanswered_bytes_ -= sent->second.bytes;
  if (ack.verdicts.empty()) {  // beyond the credit
    waiting_.push_front(std::move(sent->second));
    sent_.erase(sent);
    return;
  }
  const std::chrono::duration<float, std::micro> took = BenchClock::now() - sent->second.made;
  latencies_.push_back(took.count());
  for (wire::UploadVerdict verdict : ack.verdicts) {
    ++(verdict == wire::UploadVerdict::kAccepted ? accepted_ : refused_);
  }
  in_flight_ -= ack.verdicts.size();
  for (FencingToken fence : sent->second.upload.fences) {
    if (--held_[fence] == 0) held_.erase(fence);
  }
  sent_.erase(sent);
}

// As an actor does when its credit is less than when it made the upload.
void LoadActor::Halve(Sent& whole) {
  const auto half = static_cast<std::ptrdiff_t>(whole.upload.records.size() / 2);
  Sent rest{whole.made, {}, 0};
  auto move_behind = [half](auto& from, auto& to) {
    to.assign(std::make_move_iterator(from.begin() + half), std::make_move_iterator(from.end()));
    from.resize(static_cast<std::size_t>(half));
  };
  move_behind(whole.upload.records, rest.upload.records);
  move_behind(whole.upload.fences, rest.upload.fences);
  rest.upload.upload = ++uploads_;
  rest.bytes = rest.upload.records.size() * record_bytes();
  whole.bytes -= rest.bytes;
  waiting_.insert(waiting_.begin() + 1, std::move(rest));
}

void LoadActor::Pump() {
  while (!waiting_.empty() && waiting_.front().upload.records.size() > 1 && credit_.bytes > 0 &&
         waiting_.front().bytes > credit_.bytes) {
    Halve(waiting_.front());
  }
  while (!waiting_.empty() && unanswered_bytes_ + waiting_.front().bytes <= credit_.bytes) {
    Sent next = std::move(waiting_.front());
    waiting_.pop_front();
    unanswered_bytes_ += next.bytes;
    Say(next.upload);
    const std::uint64_t number = next.upload.upload;
    sent_[number] = std::move(next);
  }
}

void LoadActor::Work(const wire::LeaseGrant& grant) {
  wire::Upload upload;
  for (const wire::Lease& lease : grant.leases) {
    for (std::uint32_t sample = 0; sample < lease.samples; ++sample) {
      std::string record = pool_[lease.item % pool_.size()];
      std::memcpy(record.data() + item_at_, &lease.item, sizeof lease.item);
      upload.fences.push_back(lease.fence);
      upload.records.push_back(std::move(record));
      const std::size_t bytes = (upload.records.size() + 1) * record_bytes();
      if (upload.records.size() == upload_records_ || bytes > credit_.bytes) Flush(upload);
    }
    held_[lease.fence] += lease.samples;
  }
  if (!upload.records.empty()) Flush(upload);
}

void LoadActor::Flush(wire::Upload& upload) {
  upload.upload = ++uploads_;
  in_flight_ += upload.records.size();
  const std::size_t bytes = upload.records.size() * record_bytes();
  waiting_.push_back({BenchClock::now(), std::exchange(upload, {}), bytes});
  Pump();
}

wire::Heartbeat LoadActor::MakeHeartbeat() {
  wire::Heartbeat beat;
  for (const auto& [fence, samples] : held_) beat.held.push_back(fence);
  beat.credit = {credit_.number, std::max<std::uint64_t>(credit_.bytes, unanswered_bytes_)};
  return beat;
}

void LoadLearner::Fetch() { Say(wire::FetchLeaf{++requests_, 0, step_, leaf_, part_}); }

void LoadLearner::OnMessage(wire::Message& message) {
  if (std::holds_alternative<wire::Welcome>(message) ||
      std::holds_alternative<wire::NotReady>(message)) {
    Fetch();
  } else if (auto* part = std::get_if<wire::LeafPart>(&message)) {
    if (part->request == requests_) OnPart(*part);
  } else if (auto* ack = std::get_if<wire::StepAck>(&message)) {
    if (ack->step + 1 != step_) return;
    Say(wire::CheckpointDone{0, step_, "checkpoints/" + std::to_string(step_), digest_, chain_});
    Fetch();
  }
}

void LoadLearner::OnPart(const wire::LeafPart& part) {
  records_ += part.records.size();
  for (const SharedBytes& record : part.records) bytes_ += record.size();
  digest_ = part.batch_digest;
  if (++part_ < part.parts) return Fetch();
  part_ = 0;
  if (++leaf_ < static_cast<std::uint32_t>(config_.learner.grad_leaves)) return Fetch();
  leaf_ = 0;
  chain_ = wire::HashChain(chain_, digest_);
  Say(wire::StepDone{0, step_, digest_, chain_, chain_, part.batch_trajectories, 0, 0, {}, {}});
  ++step_;
}

}  // namespace thresher::bench
