#include "tests/fuzz/broker/script.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "broker/snapshot.h"
#include "common/base/check.h"
#include "common/wire/protocol_version.h"
#include "common/wire/records.h"
#include "tests/unit/broker/fake_peers.h"
#include "tests/unit/wire/random_values.h"

namespace thresher::fuzz {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kActors = 2, kLearner = 2;
constexpr std::size_t kChunkBytes = 4096;

// Under which of these a frame of somebody who may not speak is counted, each one once.
constexpr const char* kRefusals[] = {
    "frames_foreign", "frames_retired_incarnation", "frames_unknown_peer", "frames_other_version",
    "frames_damaged", "frames_malformed",           "frames_oversized",    "peers_refused"};

// Reasons for which a learner that computes something else stops the run, as it shall.
bool MayStopTheRun(const std::string& failure) {
  return failure.find("was trained on batch") != std::string::npos ||
         failure.find("has chain") != std::string::npos ||
         failure.find("reached state") != std::string::npos ||
         failure.find("was published as") != std::string::npos ||
         failure.find("version ") != std::string::npos ||
         failure.find("contains other batches") != std::string::npos ||
         failure.find("prompt") != std::string::npos;
}

}  // namespace

class Script::Wire : public net::Server {
 public:
  explicit Wire(Script* script) : script_(script) {}
  std::vector<std::string> endpoints() const override { return {"ipc:///fuzz"}; }
  std::optional<net::Received> Receive(milliseconds timeout) override {
    script_->CheckRefused();
    if (!script_->unread_.empty()) return script_->Next();
    // Read in the next pass, at whose beginning the clock stands: nothing is done between two
    // frames.
    if (timeout > milliseconds(0)) {
      script_->clock_.Advance(timeout);
      script_->Step();
    }
    return std::nullopt;
  }
  Status Send(const net::PeerAddress& peer, SharedBytes bytes) override {
    script_->Hear(peer, bytes);
    return Status::Ok();
  }
  std::uint64_t malformed() const override { return 0; }
  std::uint64_t refused() const override { return 0; }
  void Wake() override {}

 private:
  Script* script_;
};

Script::Script(Recipe recipe, const Config& config, const Hash128& run_id)
    : recipe_(recipe), config_(config), run_id_(run_id) {
  peers_ = {{"a0", "actor", wire::PeerRole::kActor, 0, Incarnation(10)},
            {"a1", "actor", wire::PeerRole::kActor, 1, Incarnation(11)},
            {"l0", "learner", wire::PeerRole::kLearner, 0, Incarnation(12)},
            {"t0", "tool", wire::PeerRole::kTool, 0, Incarnation(13)},
            {"x", "actor", wire::PeerRole::kLearner, 0, Incarnation(14)}};
  while (blob_.size() < 2 * kChunkBytes + 100) blob_ += static_cast<char>(blob_.size() % 251);
}

Result<std::unique_ptr<net::Server>> Script::Bind(const net::ServerOptions&) {
  return std::unique_ptr<net::Server>(std::make_unique<Wire>(this));
}

Result<std::unique_ptr<net::Client>> Script::Connect(const net::ClientOptions&) {
  return Unavailable("a script has no clients");
}

bool Script::Live(const broker::BrokerOptions& options) {
  net::Transport* before = net::SubstituteTransport(this);
  auto started = broker::BrokerLoop::Start(options, config_, clock_);
  net::SubstituteTransport(before);
  THRESHER_CHECK(started.ok(), "what it wrote itself: " + started.status().ToString());
  loop_ = started->get();
  restart_ = false;
  before_.reset();
  unread_.clear();
  leases_.clear();
  const int code = loop_->Run();
  if (code == broker::BrokerLoop::kFailed && !loop_->failure().empty()) {
    THRESHER_CHECK(MayStopTheRun(loop_->failure()), loop_->failure());
    return false;
  }
  return restart_ && !recipe_.empty();
}

std::optional<net::Received> Script::Next() {
  if (unread_.empty()) return std::nullopt;
  net::Received received = std::move(unread_.front());
  unread_.pop_front();
  ++frames_;
  const broker::Admission& admission = loop_->context().admission;
  THRESHER_CHECK(admission.told_bytes() <= admission.reserved_bytes() &&
                     admission.in_use_bytes() <= admission.reserved_bytes() &&
                     admission.reserved_bytes() <= admission.limits().budget_bytes,
                 "more credit than there is");
  if (MustRefuse(received)) before_ = Look();
  return received;
}

// By who is connected, and by nothing that the loop decides.
bool Script::MustRefuse(const net::Received& received) const {
  const auto frame = wire::DecodeFrame(received.bytes);
  if (!frame.ok() || frame->envelope.run_id != run_id_) return true;
  if (const auto* hello = std::get_if<wire::Hello>(&frame->message)) {
    return received.key_user_id != broker::RoleName(hello->role);
  }
  return std::ranges::none_of(loop_->context().peers.All(), [&](const broker::Peer* peer) {
    return peer->address == received.peer && peer->incarnation == frame->envelope.incarnation;
  });
}

Script::Standing Script::Look() const {
  const broker::BrokerContext& context = loop_->context();
  Standing now;
  now.state = broker::EncodeState(context.state);
  for (const broker::Peer* peer : context.peers.All()) {
    now.state += peer->Label() + peer->address + std::to_string(peer->incarnation.value) +
                 std::to_string(peer->last_seen.time_since_epoch().count());
  }
  now.state += std::to_string(context.journal->pending_bytes()) + " " +
               std::to_string(context.leases.leased_samples());
  for (const char* name : kRefusals) now.counted += context.metrics.count(name);
  return now;
}

void Script::CheckRefused() {
  if (!before_) return;
  Standing expected = *std::exchange(before_, std::nullopt);
  ++expected.counted;
  ++refused_;
  THRESHER_CHECK(Look() == expected, "who may not speak changes something, or is not counted");
}

void Script::Hear(const net::PeerAddress& address, std::string_view bytes) {
  if (wire::DecodeVersionRefusal(AsBytes(bytes))) return;
  auto frame = wire::DecodeFrame(AsBytes(bytes));
  THRESHER_CHECK(frame.ok(), "the broker says " + frame.status().ToString());
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (address == peers_[i].address) Learn(i, frame->message);
  }
}

void Script::Learn(std::size_t peer, const wire::Message& message) {
  if (const auto* grant = std::get_if<wire::LeaseGrant>(&message)) {
    for (const wire::Lease& lease : grant->leases) leases_.push_back({peer, lease});
  } else if (const auto* part = std::get_if<wire::LeafPart>(&message)) {
    part_ = *part;
  } else if (const auto* welcome = std::get_if<wire::Welcome>(&message)) {
    peers_[peer].credit = welcome->credit;
  } else if (const auto* heard = std::get_if<wire::HeartbeatAck>(&message)) {
    if (heard->credit.number > 0) peers_[peer].credit = heard->credit;
  } else if (const auto* ack = std::get_if<wire::UploadAck>(&message)) {
    peers_[peer].credit = ack->credit;
    CheckVerdicts(*ack);
  } else if (const auto* done = std::get_if<wire::StepAck>(&message)) {
    committed_ = std::max(committed_, done->step + 1);
  } else if (const auto* get = std::get_if<wire::ChunkGet>(&message)) {
    std::string bytes = std::size_t{get->index} * kChunkBytes < blob_.size()
                            ? blob_.substr(std::size_t{get->index} * kChunkBytes, kChunkBytes)
                            : "";
    if (recipe_.Below(8) == 0 && !bytes.empty()) bytes[0] ^= 1;
    Say(peer, wire::Chunk{get->version, get->index, bytes});
  }
}

void Script::CheckVerdicts(const wire::UploadAck& ack) {
  auto found = must_refuse_.find(ack.upload);
  if (found == must_refuse_.end()) return;  // of words that are no script's
  if (ack.verdicts.empty()) return;         // beyond the credit: not looked at
  THRESHER_CHECK(ack.verdicts.size() == found->second.size(), "verdicts of another upload");
  for (std::size_t i = 0; i < ack.verdicts.size(); ++i) {
    THRESHER_CHECK(!found->second[i] || ack.verdicts[i] != wire::UploadVerdict::kAccepted,
                   "a trajectory that must be refused is accepted");
  }
}

void Script::Say(std::size_t peer, const wire::Message& message) {
  Peer& p = peers_[peer];
  auto frame = wire::EncodeFrame({run_id_, p.incarnation, ++p.sequence}, message);
  if (frame.ok()) unread_.push_back({p.address, p.key, *std::move(frame)});
}

void Script::SayHello(std::size_t peer) {
  Peer& p = peers_[peer];
  const std::size_t how = recipe_.Below(8);
  if (how == 0) p.incarnation = Incarnation(p.incarnation.value + 100);
  wire::Hello hello;
  hello.role = p.role;
  hello.index = how == 1 ? recipe_.U16() : p.index;
  hello.world = p.role == wire::PeerRole::kLearner ? (how == 2 ? recipe_.U8() : 1u) : 0u;
  hello.identity = broker::TestIdentity(config_);
  if (how == 3) hello.identity.kernel_set = "another";
  hello.has_weights = how == 4;
  const char* address = p.address;
  if (how == 1 && recipe_.Below(2) == 0) p.address = "elsewhere";  // else it speaks for two slots
  Say(peer, hello);
  p.address = address;
}

void Script::SayBeat(std::size_t peer) {
  wire::Heartbeat beat;
  beat.progress = recipe_.U8();
  beat.longest_step_ms = recipe_.U8();
  if (recipe_.Below(4) != 0) beat.credit = peers_[peer].credit;
  if (recipe_.Below(8) == 0) beat.credit.number += recipe_.U8();
  if (recipe_.Below(8) == 0) beat.credit.bytes = recipe_.U64();
  for (const Lent& lent : leases_) {
    if (lent.peer == peer || recipe_.Below(8) == 0) beat.held.push_back(lent.lease.fence);
  }
  Say(peer, beat);
}

std::optional<Script::Lent> Script::AnyLease() {
  if (leases_.empty()) return std::nullopt;
  return leases_[recipe_.Below(leases_.size())];
}

// The lease's samples, one of them perhaps not as they were asked for.
void Script::SayUpload(std::size_t peer) {
  const std::optional<Lent> lent = AnyLease();
  if (!lent) return;
  const wire::Lease& lease = lent->lease;
  wire::Upload upload;
  upload.upload = ++uploads_;
  const std::size_t spoiled = recipe_.Below(lease.samples + 2), how = recipe_.Below(11);
  std::vector<bool>& refuse = must_refuse_[upload.upload];
  for (std::uint32_t s = 0; s < std::min(lease.samples, 8u); ++s) {
    TrajectoryId id{lease.stream, lease.island, lease.item, lease.first_sample + s};
    Trajectory t =
        broker::MakeTrajectory(config_, id, lease.group_size, lease.version, recipe_.Below(2),
                               ActorId(peers_[peer].index), broker::TestIdentity(config_).Hash());
    bool wrong = false;
    if (spoiled == s) {
      if (how == 1) t.run_identity = HashText128("another");
      if (how == 2) t.actor = ActorId(77);
      if (how == 3) t.id.item += 1u << 20;
      if (how == 4) t.group_size += 1;
      if (how == 5) t.task = "another";
      if (how == 6) t.outcome.reward = std::numeric_limits<double>::quiet_NaN();
      if (how == 7) t.finish = FinishReason::kError;
      if (how == 8) t.segments.pop_back();
      // What there is of it so far may be taken, if it is as it must be.
      const bool sampled = lease.stream != Stream::kSupervised;
      if (how >= 9 && sampled) t = broker::MakePrefix(std::move(t), recipe_.Below(5));
      if (how == 10 && !t.logprobs.empty()) t.logprobs.back() = NAN;
      wrong = (how > 0 && how < 9) || (how == 10 && sampled);
    }
    upload.fences.push_back(recipe_.Below(8) == 0 ? FencingToken(recipe_.U64()) : lease.fence);
    upload.records.push_back(wire::EncodeTrajectory(t));
    refuse.push_back(wrong);
  }
  Say(peer, upload);
}

void Script::SayStep() {
  wire::StepDone done;
  done.step = recipe_.Below(4) == 0 ? recipe_.U8() : committed_;
  if (part_ && part_->step == done.step && recipe_.Below(16) != 0) {
    done.batch_digest = part_->batch_digest;
    chains_[done.step + 1] = wire::HashChain(chains_[done.step], part_->batch_digest);
    done.chain = done.state_hash = chains_[done.step + 1];
  }
  Say(kLearner, done);
}

void Script::SayPublish() {
  wire::WeightsManifest manifest;
  manifest.version = {0, recipe_.Below(4) == 0 ? recipe_.U8() : committed_};
  manifest.bytes = blob_.size();
  manifest.chunk_bytes = kChunkBytes;
  manifest.hash = HashBytes128(AsBytes(blob_));
  for (std::size_t at = 0; at < blob_.size(); at += kChunkBytes) {
    manifest.chunk_hashes.push_back(HashBytes64(AsBytes(blob_.substr(at, kChunkBytes))));
  }
  switch (recipe_.Below(10)) {
    case 0:
      manifest.bytes = recipe_.U64();
      break;
    case 1:
      manifest.chunk_bytes = recipe_.U16();
      break;
    case 2:
      manifest.chunk_hashes.resize(recipe_.U8());
      break;
    case 3:
      manifest.hash = {};
      break;
    default:
      break;
  }
  Say(kLearner, wire::Publish{manifest});
}

void Script::SayWork(std::size_t peer, std::size_t what) {
  const std::uint32_t step = recipe_.Below(4) == 0 ? recipe_.U8() : committed_;
  const std::optional<Lent> lent = AnyLease();
  const FencingToken fence = lent ? lent->lease.fence : FencingToken(recipe_.U16());
  const TrajectoryId id = lent ? TrajectoryId{lent->lease.stream, 0, lent->lease.item,
                                              lent->lease.first_sample + recipe_.U8() % 4}
                               : TrajectoryId{};
  static constexpr const char* kReasons[] = {"grader_failure", "over_long", "prompt_too_long",
                                             "cancelled",      "",          "whatever"};
  switch (what) {
    case 0:
      return Say(peer,
                 wire::LeaseRequest{
                     recipe_.U8(), recipe_.U8() % 16u, recipe_.Below(2) == 0, {0, committed_}});
    case 1:
      return Say(peer, wire::LeaseRelease{fence,
                                          recipe_.Below(2) == 0 ? std::vector<TrajectoryId>{}
                                                                : std::vector<TrajectoryId>{id},
                                          "drain"});
    case 2:
      return Say(peer, wire::SampleFailed{fence, id, kReasons[recipe_.Below(6)], "why"});
    case 3:
      return Say(kLearner, wire::FetchLeaf{recipe_.U8(), recipe_.Below(16) == 0 ? 1u : 0u, step,
                                           recipe_.U8() % 3u, recipe_.Below(8) == 0 ? 1u : 0u});
    case 4:
      return Say(kLearner, wire::CheckpointDone{0, step, "checkpoints/x", {}, chains_[step]});
    case 5:
      return Say(peer, wire::ManifestGet{{0, step}});
    case 6:
      return Say(peer, wire::ChunkGet{{0, step}, recipe_.U8()});
    case 7:
      return Say(kLearner, wire::RanksMeet{"job", recipe_.U8() % 3u, "hello"});
    default:
      return Say(peer, wire::Goodbye{"drained"});
  }
}

// Any message, or bytes that were one.
void Script::SayBytes(std::size_t peer) {
  wire::RandomValues random(recipe_.U16());
  const wire::Message message =
      random.MakeMessage(recipe_.Below(std::variant_size_v<wire::Message>));
  Say(peer, message);
  if (unread_.empty() || recipe_.Below(2) == 0) return;
  std::string frame = unread_.back().bytes.ToString();
  const std::uint8_t fit = recipe_.U8();
  for (int i = 0; i <= (fit >> 6); ++i) Spoil(frame, recipe_);
  if ((fit & 3) != 0) FitLength(frame);
  if ((fit & 12) != 0) FitChecksum(frame);
  unread_.back().bytes = std::move(frame);
}

void Script::Step() {
  if (recipe_.empty()) {
    loop_->Abandon();
    return;
  }
  const std::size_t peer = recipe_.Below(peers_.size());
  const std::size_t what = recipe_.Below(27);
  if (what < 24) return SayWord(peer, what);
  SayFalsely(peer);
}

// In another's name, of another run, with another's key, or in another version.
void Script::SayFalsely(std::size_t peer) {
  Peer& p = peers_[peer];
  const Peer& other = peers_[recipe_.Below(peers_.size())];
  const Peer truth = p;
  const Hash128 run_id = run_id_;
  const std::size_t how = recipe_.Below(6), said = unread_.size();
  if (how == 0) run_id_ = HashText128("another run");
  if (how == 1) p.incarnation = Incarnation(recipe_.Below(4) == 0 ? recipe_.U64() : recipe_.U8());
  if (how == 2) p.incarnation = other.incarnation;
  if (how == 3) p.address = other.address;
  if (how == 4) p.key = other.key;
  SayWord(peer, recipe_.Below(22));
  p = truth;
  run_id_ = run_id;
  if (how != 5 || unread_.size() == said) return;
  std::string frame = unread_.back().bytes.ToString();
  frame[4 + recipe_.Below(2)] ^= static_cast<char>(1 + recipe_.U8() % 255);
  FitChecksum(frame);
  unread_.back().bytes = std::move(frame);
}

void Script::SayWord(std::size_t peer, std::size_t what) {
  const std::size_t actor = peer % kActors;
  switch (what) {
    case 0:
    case 1:
      return SayHello(peer);
    case 2:
      return SayBeat(actor);
    case 3:
    case 4:
    case 5:
    case 6:
      return SayUpload(actor);
    case 7:
    case 8:
      return SayStep();
    case 9:
      return SayPublish();
    case 10:
    case 11:
      return SayWork(actor, 0);
    case 12:
    case 13:
      return SayWork(kLearner, 3);
    case 22:
      return SayBytes(peer);
    case 23:
      if (recipe_.Below(2) == 0) {
        clock_.Advance(milliseconds(recipe_.U16()));
      } else if (recipe_.Below(4) == 0) {
        restart_ = true;
        loop_->Abandon();
      }
      return;
    default:
      return SayWork(peer, what - 14);
  }
}

}  // namespace thresher::fuzz
