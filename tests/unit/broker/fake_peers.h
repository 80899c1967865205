#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <semaphore>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/net/peer_link.h"
#include "common/wire/records.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {

inline RunIdentity TestIdentity(const Config& config) {
  RunIdentity identity;
  identity.backend = "cpu";
  identity.kernel_set = "fake";
  identity.run_seed = config.run.seed;
  return identity;
}

// A peer over the real link; messages arrive in a queue that one thread of the test reads.
class FakePeer {
 public:
  FakePeer(const Config& config, const std::filesystem::path& run, const Hash128& run_id,
           wire::PeerRole role, std::uint32_t index, std::uint32_t world = 1);
  void Post(const wire::Message& message) { (void)link_->Post(message); }
  // The next message; nothing after `wait`.
  std::optional<wire::Message> Next(std::chrono::milliseconds wait);
  Incarnation incarnation() const { return incarnation_; }
  void SetHeld(std::vector<FencingToken> held);
  void SetKept(std::vector<std::uint64_t> kept);
  using Counters = std::vector<std::pair<std::string, double>>;
  void SetCounters(Counters counters);
  bool refused();

 private:
  Incarnation incarnation_ = NewIncarnation();
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<wire::Message> inbox_;
  std::vector<FencingToken> held_;
  std::vector<std::uint64_t> kept_;
  Counters counters_;
  wire::Credit credit_;  // told last, and obeyed
  bool refused_ = false;
  std::uint64_t progress_ = 0;
  std::unique_ptr<net::PeerLink> link_;
};

// Takes leases and answers each with a trajectory that depends on its id alone. Every
// `send_twice`-th upload is sent twice; 0: none.
class FakeActor {
 public:
  FakeActor(const Config& config, const std::filesystem::path& run, const Hash128& run_id,
            std::uint32_t slot, int send_twice = 0);
  ~FakeActor();  // ends like a killed process: no Goodbye, unless the run is over
  // False when the run is not over after `wait`.
  bool WaitUntilOver(std::chrono::milliseconds wait) { return ended_.try_acquire_for(wait); }

 private:
  void Run(std::stop_token stop);
  void Handle(const wire::Message& message);
  void Work(const wire::LeaseGrant& grant);
  void AskForWork();

  Config config_;
  std::uint32_t slot_;
  Hash128 identity_;
  FakePeer peer_;
  int send_twice_;
  std::uint64_t uploads_ = 0;
  std::uint64_t requests_ = 0;
  std::optional<PolicyVersion> version_;
  std::map<std::uint64_t, wire::Upload> unacknowledged_;
  std::map<std::uint64_t, wire::Upload> kept_;  // until consumed, where the broker asks for it
  bool keep_ = false;
  bool over_ = false;
  std::binary_semaphore ended_{0};
  std::jthread thread_;
};

struct FakeLearnerOptions {
  // Begins with these steps done and this chain: what a checkpoint would hold.
  std::uint32_t from_step = 0;
  Hash128 chain;
  std::optional<std::uint32_t> stop_after;    // does nothing more once so many steps are done
  std::optional<std::uint32_t> corrupt_step;  // reports another state than the right one
  std::chrono::milliseconds step_time{0};     // that each step takes
};

// Fetches batches, "trains" (the state is the chain of digests), publishes and checkpoints.
class FakeLearner {
 public:
  FakeLearner(const Config& config, const std::filesystem::path& run, const Hash128& run_id,
              const FakeLearnerOptions& options = {});
  ~FakeLearner();
  void WaitUntilOver() { ended_.acquire(); }
  std::uint32_t steps_done();
  // The newest checkpoint: steps and chain.
  std::pair<std::uint32_t, Hash128> checkpoint();

 private:
  void Run(std::stop_token stop);
  template <typename Answer, typename Matches>
  std::optional<Answer> Ask(std::stop_token stop, const wire::Message& question, Matches matches);
  bool Train(std::stop_token stop, std::uint32_t step);
  bool Publish(std::stop_token stop, std::uint32_t version);
  void Serve(const wire::ChunkGet& get);

  Config config_;
  Plan plan_;
  FakePeer peer_;
  std::string blob_;
  std::mutex mutex_;
  std::uint32_t step_;
  Hash128 chain_;
  std::pair<std::uint32_t, Hash128> checkpoint_;
  FakeLearnerOptions options_;
  std::uint64_t requests_ = 0;
  bool over_ = false;
  std::binary_semaphore ended_{0};
  std::jthread thread_;
};

// ---- definitions

inline FakePeer::FakePeer(const Config& config, const std::filesystem::path& run,
                          const Hash128& run_id, wire::PeerRole role, std::uint32_t index,
                          std::uint32_t world) {
  net::PeerLinkOptions options;
  options.run_folder = run.string();
  options.role = role;
  options.run_id = run_id;
  options.incarnation = incarnation_;
  options.silence = std::chrono::milliseconds(5000);
  options.patience = std::chrono::milliseconds(60000);
  auto hello = [config, role, index, world] {
    wire::Hello message;
    message.role = role;
    message.index = index;
    message.world = role == wire::PeerRole::kLearner ? world : 0;
    message.identity = TestIdentity(config);
    return message;
  };
  auto heartbeat = [this] {
    std::lock_guard lock(mutex_);
    wire::Heartbeat beat;
    beat.progress = ++progress_;
    beat.held = held_;
    beat.kept = kept_;
    beat.counters = counters_;
    beat.credit = credit_;
    return beat;
  };
  auto deliver = [this](wire::Message message) {
    std::lock_guard lock(mutex_);
    if (const auto* welcome = std::get_if<wire::Welcome>(&message)) credit_ = welcome->credit;
    if (const auto* ack = std::get_if<wire::UploadAck>(&message)) credit_ = ack->credit;
    if (const auto* beat = std::get_if<wire::HeartbeatAck>(&message)) credit_ = beat->credit;
    inbox_.push_back(std::move(message));
    arrived_.notify_one();
  };
  auto fail = [this](Status) {
    std::lock_guard lock(mutex_);
    refused_ = true;
  };
  link_ = std::make_unique<net::PeerLink>(options, hello, heartbeat, deliver, fail);
  link_->Start();
}

inline std::optional<wire::Message> FakePeer::Next(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  if (!arrived_.wait_for(lock, wait, [&] { return !inbox_.empty(); })) return std::nullopt;
  wire::Message message = std::move(inbox_.front());
  inbox_.pop_front();
  return message;
}

inline void FakePeer::SetHeld(std::vector<FencingToken> held) {
  std::lock_guard lock(mutex_);
  held_ = std::move(held);
}

inline void FakePeer::SetKept(std::vector<std::uint64_t> kept) {
  std::lock_guard lock(mutex_);
  kept_ = std::move(kept);
}

inline void FakePeer::SetCounters(Counters counters) {
  std::lock_guard lock(mutex_);
  counters_ = std::move(counters);
}

inline bool FakePeer::refused() {
  std::lock_guard lock(mutex_);
  return refused_;
}

inline FakeActor::FakeActor(const Config& config, const std::filesystem::path& run,
                            const Hash128& run_id, std::uint32_t slot, int send_twice)
    : config_(config),
      slot_(slot),
      identity_(TestIdentity(config).Hash()),
      peer_(config, run, run_id, wire::PeerRole::kActor, slot),
      send_twice_(send_twice),
      thread_([this](std::stop_token stop) { Run(stop); }) {}

inline FakeActor::~FakeActor() {
  thread_.request_stop();
  thread_.join();
}

inline void FakeActor::Run(std::stop_token stop) {
  while (!stop.stop_requested() && !over_) {
    std::optional<wire::Message> message = peer_.Next(std::chrono::milliseconds(300));
    if (message) {
      Handle(*message);
    } else {
      AskForWork();  // the answer was lost with a broker
    }
  }
  if (over_) peer_.Post(wire::Goodbye{"finished"});
  ended_.release();
}

inline void FakeActor::AskForWork() {
  peer_.Post(
      wire::LeaseRequest{++requests_, 4, version_.has_value(), version_.value_or(PolicyVersion{})});
}

inline void FakeActor::Handle(const wire::Message& message) {
  if (const auto* welcome = std::get_if<wire::Welcome>(&message)) {
    if (welcome->has_weights) version_ = welcome->weights.version;
    keep_ = welcome->keep_until_consumed;
    unacknowledged_.merge(kept_);
    for (const auto& [number, upload] : unacknowledged_) peer_.Post(upload);
    AskForWork();
  } else if (const auto* announce = std::get_if<wire::Announce>(&message)) {
    version_ = announce->manifest.version;
    AskForWork();
  } else if (const auto* grant = std::get_if<wire::LeaseGrant>(&message)) {
    Work(*grant);
    if (grant->request == requests_) AskForWork();
  } else if (const auto* ack = std::get_if<wire::UploadAck>(&message)) {
    const auto upload = unacknowledged_.find(ack->upload);
    if (upload == unacknowledged_.end()) return;
    if (ack->verdicts.empty()) {  // beyond the credit
      peer_.Post(upload->second);
    } else if (keep_) {
      kept_.insert(unacknowledged_.extract(upload));
    } else {
      unacknowledged_.erase(upload);
    }
  } else if (const auto* consumed = std::get_if<wire::Consumed>(&message)) {
    for (std::uint64_t number : consumed->uploads) kept_.erase(number);
  } else if (std::holds_alternative<wire::Shutdown>(message)) {
    over_ = true;
  }
}

inline void FakeActor::Work(const wire::LeaseGrant& grant) {
  wire::Upload upload;
  for (const wire::Lease& lease : grant.leases) {
    for (std::uint32_t s = 0; s < lease.samples; ++s) {
      TrajectoryId id{lease.stream, lease.island, lease.item, lease.first_sample + s};
      double reward = static_cast<double>((id.item * 7 + id.sample * 3) % 5 % 2);
      upload.fences.push_back(lease.fence);
      upload.records.push_back(wire::EncodeTrajectory(MakeTrajectory(
          config_, id, lease.group_size, lease.version, reward, ActorId(slot_), identity_)));
    }
  }
  if (upload.records.empty()) return;
  upload.upload = ++uploads_;
  unacknowledged_[upload.upload] = upload;
  peer_.Post(upload);
  if (send_twice_ > 0 && uploads_ % static_cast<std::uint64_t>(send_twice_) == 0) {
    peer_.Post(upload);
  }
}

inline FakeLearner::FakeLearner(const Config& config, const std::filesystem::path& run,
                                const Hash128& run_id, const FakeLearnerOptions& options)
    : config_(config),
      plan_(config),
      peer_(config, run, run_id, wire::PeerRole::kLearner, 0),
      step_(options.from_step),
      chain_(options.chain),
      checkpoint_(options.from_step, options.chain),
      options_(options),
      thread_([this](std::stop_token stop) { Run(stop); }) {}

inline FakeLearner::~FakeLearner() {
  thread_.request_stop();
  thread_.join();
}

inline std::uint32_t FakeLearner::steps_done() {
  std::lock_guard lock(mutex_);
  return step_;
}

inline std::pair<std::uint32_t, Hash128> FakeLearner::checkpoint() {
  std::lock_guard lock(mutex_);
  return checkpoint_;
}

inline void FakeLearner::Run(std::stop_token stop) {
  bool going = step_ > 0 || !plan_.PublishesInitial() || Publish(stop, 0);
  std::uint32_t last = options_.stop_after.value_or(plan_.total_steps());
  while (going && step_ < last) going = Train(stop, step_);
  while (!stop.stop_requested() && !over_) {
    std::optional<wire::Message> message = peer_.Next(std::chrono::milliseconds(100));
    over_ = message && std::holds_alternative<wire::Shutdown>(*message);
  }
  if (over_) peer_.Post(wire::Goodbye{"finished"});
  ended_.release();
}

// Asks until the answer comes; asks again after a Welcome (another broker) or a second.
template <typename Answer, typename Matches>
std::optional<Answer> FakeLearner::Ask(std::stop_token stop, const wire::Message& question,
                                       Matches matches) {
  peer_.Post(question);
  while (!stop.stop_requested() && !over_) {
    std::optional<wire::Message> message = peer_.Next(std::chrono::milliseconds(1000));
    if (!message || std::holds_alternative<wire::Welcome>(*message) ||
        std::holds_alternative<wire::NotReady>(*message)) {
      peer_.Post(question);
    } else if (const auto* get = std::get_if<wire::ChunkGet>(&*message)) {
      Serve(*get);
    } else if (const auto* answer = std::get_if<Answer>(&*message)) {
      if (matches(*answer)) return *answer;
    } else if (std::holds_alternative<wire::Shutdown>(*message)) {
      over_ = true;
    }
  }
  return std::nullopt;
}

inline bool FakeLearner::Train(std::stop_token stop, std::uint32_t step) {
  std::vector<wire::BatchEntry> entries;
  Hash128 digest;
  for (std::uint32_t leaf = 0; leaf < static_cast<std::uint32_t>(config_.learner.grad_leaves);
       ++leaf) {
    for (std::uint32_t part = 0, parts = 1; part < parts; ++part) {
      auto reply = Ask<wire::LeafPart>(stop, wire::FetchLeaf{++requests_, 0, step, leaf, part},
                                       [&](const wire::LeafPart& p) {
                                         return p.step == step && p.leaf == leaf && p.part == part;
                                       });
      if (!reply) return false;
      parts = reply->parts;
      digest = reply->batch_digest;
      for (const SharedBytes& record : reply->records) {
        Trajectory t = wire::DecodeTrajectory(record).value();
        entries.push_back({t.id, t.ContentHash()});
      }
    }
  }
  THRESHER_CHECK(wire::HashBatch(entries) == digest, "the bytes are not the batch's");
  std::this_thread::sleep_for(options_.step_time);
  Hash128 chain = wire::HashChain(chain_, digest);
  wire::StepDone done{0, step, digest, chain, chain, entries.size(), entries.size(), 0, {}, {}};
  if (options_.corrupt_step == step) done.state_hash = H("corrupt");
  auto acknowledged =
      Ask<wire::StepAck>(stop, done, [&](const wire::StepAck& ack) { return ack.step == step; });
  if (!acknowledged) return false;
  {
    std::lock_guard lock(mutex_);
    chain_ = chain;
    step_ = step + 1;
  }
  if (plan_.Step(step).publish_after && !Publish(stop, step + 1)) return false;
  if (!plan_.Step(step).checkpoint_after) return true;
  wire::CheckpointDone checkpoint{0, step + 1, "checkpoints/step_" + std::to_string(step + 1),
                                  H("manifest"), chain};
  auto durable = Ask<wire::CheckpointAck>(
      stop, checkpoint, [&](const wire::CheckpointAck& ack) { return ack.step == step + 1; });
  std::lock_guard lock(mutex_);
  if (durable) checkpoint_ = {step + 1, chain};
  return durable.has_value();
}

inline bool FakeLearner::Publish(std::stop_token stop, std::uint32_t version) {
  blob_.clear();
  while (blob_.size() < 10000) blob_ += chain_.ToString() + std::to_string(version);
  auto bytes = [](const std::string& s) { return std::as_bytes(std::span(s.data(), s.size())); };
  wire::WeightsManifest manifest;
  manifest.version = V(version);
  manifest.bytes = blob_.size();
  manifest.chunk_bytes = 4096;
  manifest.hash = HashBytes128(bytes(blob_));
  for (std::size_t at = 0; at < blob_.size(); at += 4096) {
    manifest.chunk_hashes.push_back(HashBytes64(bytes(blob_.substr(at, 4096))));
  }
  auto ack = Ask<wire::PublishAck>(stop, wire::Publish{manifest}, [&](const wire::PublishAck& a) {
    return a.version == V(version);
  });
  return ack && ack->ok;
}

inline void FakeLearner::Serve(const wire::ChunkGet& get) {
  std::size_t at = std::size_t{get.index} * 4096;
  peer_.Post(wire::Chunk{get.version, get.index, blob_.substr(at, 4096)});
}

}  // namespace thresher::broker
