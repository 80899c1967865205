#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/wire/frame.h"
#include "common/wire/records.h"

namespace thresher::bench {

using BenchClock = std::chrono::steady_clock;

Hash128 BenchRunId();
RunIdentity BenchIdentity(const Config& config);
// Long steps of supervised traces, one a group, a learner that is never waited for.
Config BenchConfig(const std::vector<std::string>& more);

// Peers of a real broker that only carry: no threads, no sockets. Each takes frames and says which
// to send, and does as little else as the protocol allows.
class LoadPeer {
 public:
  LoadPeer(const Config& config, wire::PeerRole role, std::uint32_t index);
  virtual ~LoadPeer() = default;
  // Frames to be sent, at the beginning and after each frame or tick.
  std::deque<std::string>& outgoing() { return outgoing_; }
  void OnFrame(const SharedBytes& bytes);
  void Tick(BenchClock::time_point now);

 protected:
  virtual void OnMessage(wire::Message& message) = 0;
  virtual wire::Heartbeat MakeHeartbeat() { return {}; }
  void Say(const wire::Message& message);
  void Beat();

  const Config& config_;
  const std::uint32_t index_;

 private:
  const Incarnation incarnation_;
  std::uint64_t sequence_ = 0;
  std::uint64_t beats_ = 0;
  BenchClock::time_point next_beat_{};
  std::deque<std::string> outgoing_;
};

// Leases samples and answers with trajectories of `tokens` tokens: 4 bytes a token of tokens, 4 of
// text. Uploads hold as many records as an actor's do.
class LoadActor : public LoadPeer {
 public:
  LoadActor(const Config& config, std::uint32_t index, std::uint32_t tokens,
            std::uint32_t outstanding);

  std::uint64_t accepted() const { return accepted_; }
  std::uint64_t refused() const { return refused_; }
  std::size_t record_bytes() const { return pool_.front().size(); }
  // From an upload's making to its acknowledgement, in microseconds.
  std::vector<float>& latencies() { return latencies_; }

 private:
  struct Sent {
    BenchClock::time_point made;
    wire::Upload upload;
    std::size_t bytes = 0;
  };
  void OnMessage(wire::Message& message) override;
  wire::Heartbeat MakeHeartbeat() override;
  void Ask();
  void Work(const wire::LeaseGrant& grant);
  void Flush(wire::Upload& upload);
  void Halve(Sent& whole);
  // Sends what waits, within the credit.
  void Pump();
  void OnAck(const wire::UploadAck& ack);

  const std::uint32_t outstanding_;
  std::vector<std::string> pool_;  // records of any item, so many that blocks hold none twice
  std::size_t item_at_ = 0;        // where the item stands in them
  std::size_t upload_records_;
  std::uint64_t requests_ = 0, uploads_ = 0, accepted_ = 0, refused_ = 0;
  std::size_t in_flight_ = 0;
  bool asking_ = false;
  std::map<std::uint64_t, Sent> sent_;
  std::map<FencingToken, std::size_t> held_;  // leases and their samples that are not answered
  std::deque<Sent> waiting_;                  // for credit
  wire::Credit credit_;
  std::size_t unanswered_bytes_ = 0;
  std::vector<float> latencies_;
};

// Fetches every part of every step, reads nothing of the records, commits and checkpoints.
class LoadLearner : public LoadPeer {
 public:
  explicit LoadLearner(const Config& config) : LoadPeer(config, wire::PeerRole::kLearner, 0) {}
  std::uint64_t records() const { return records_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  void OnMessage(wire::Message& message) override;
  void Fetch();
  void OnPart(const wire::LeafPart& part);

  std::uint32_t step_ = 0, leaf_ = 0, part_ = 0;
  std::uint64_t requests_ = 0, records_ = 0, bytes_ = 0;
  Hash128 digest_, chain_;
};

}  // namespace thresher::bench
