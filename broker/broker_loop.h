#pragma once

#include <atomic>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/context.h"
#include "broker/heartbeat_service.h"
#include "broker/journal_keeper.h"
#include "broker/learner_service.h"
#include "broker/lease_service.h"
#include "broker/run_driver.h"
#include "broker/session_service.h"
#include "broker/status_report.h"
#include "broker/upload_service.h"
#include "broker/weight_service.h"
#include "common/net/http.h"
#include "common/net/socket.h"
#include "common/sync/side_task.h"
#include "common/wire/frame.h"

namespace thresher::broker {

struct BrokerOptions {
  std::filesystem::path run;        // holds config.yaml and manifest.json
  std::vector<std::string> listen;  // besides the run's ipc socket and net.listen
  std::string http;                 // empty: net.http of the configuration; "none": no HTTP
};

// The broker of one run: recovers, listens, and carries frames between socket, services and
// journal on one thread; tasks beside it write the journal, and pack and delete old parts of it.
// One pass: receive what is there, tick, seal what was recorded and hand it to the writer, send
// what waited for the group that it has written. So no effect of an unwritten record leaves the
// process.
class BrokerLoop {
 public:
  // Exit codes of Run.
  static constexpr int kDone = 0;
  static constexpr int kFailed = 3;
  static constexpr int kStopped = 75;

  // Errors: kNotFound and kDataLoss (run directory), kUnavailable (port or lock in use).
  // `config` and `clock` are borrowed for the lifetime.
  static Result<std::unique_ptr<BrokerLoop>> Start(const BrokerOptions& options,
                                                   const Config& config, const Clock& clock);
  ~BrokerLoop();

  // Until the run is finished, stopped or has failed; returns the exit code.
  int Run();
  // Drain and stop. Async-signal-safe, from any thread.
  void RequestStop() { stop_requested_.store(true); }
  // Ends Run at once without a word to anyone, as if the process had died. For tests.
  void Abandon() { abandoned_.store(true); }

  const std::vector<std::string>& endpoints() const { return endpoints_; }
  // Empty where there is no HTTP.
  std::string http_address() const { return http_ == nullptr ? "" : http_->address(); }
  // Why Run returned kFailed.
  const std::string& failure() const { return failure_; }
  // What the services share, for who watches between two frames. For tests.
  const BrokerContext& context() const { return *context_; }

 private:
  enum class Mode { kRunning, kDraining, kClosing };

  explicit BrokerLoop(std::unique_ptr<BrokerContext> context);
  Status Bind(const BrokerOptions& options);
  Status OpenPartials();
  void NoteLost(const std::vector<TrajectoryId>& lost);
  Status BeginEpoch(std::vector<Trajectory> orphans);
  Status AdoptOrphans(std::vector<Trajectory> orphans);
  Status ServeHttp(const BrokerOptions& options);

  Status Pass();
  void NoteDelay();
  Status ReceiveSome();
  Status HandleDeferred();
  // `deferred`: it was admitted when it came. *heard, where it is wanted: its sender takes part.
  Status HandleFrame(const net::Received& received, bool deferred, bool* heard = nullptr);
  // `upload`: what of it the actor's credit was taken for; null: it is something else.
  void Defer(const Peer& peer, const net::Received& received, const wire::Upload* upload);
  Status Dispatch(Peer& peer, const wire::Message& message);
  Status Tick();
  void Commit();
  void SealGroup();
  bool TakeWritten(Duration timeout);
  void OnWritten(const Status& status);
  bool CommitAll();
  bool Congested() const;
  void KeepJournal();
  void KeepTally();
  void SealPartials();
  bool TidyPartials();
  void MovePartials(std::uint32_t segment);
  void OnKept(const Status& status);
  void Pause(const Status& why);
  void SendWaiting();
  void HandOnAnswered();
  void UpdateStatus();
  Status EnterMode();
  void BeginDraining();
  void BeginClosing();
  void Fail(const Status& why);

  std::unique_ptr<BrokerContext> context_;
  RunDriver driver_;
  SessionService sessions_;
  HeartbeatService heartbeats_;
  LeaseService leases_;
  UploadService uploads_;
  LearnerService learner_;
  WeightService weights_;
  JournalKeeper keeper_;
  StatusBoard board_;
  std::unique_ptr<net::Server> server_;
  std::unique_ptr<net::HttpServer> http_;
  std::vector<std::string> endpoints_;
  Hash128 run_id_;
  Incarnation incarnation_;
  std::uint64_t sequence_ = 0;
  struct Deferred {
    net::Received received;
    std::optional<std::pair<ActorId, std::uint64_t>> upload;  // that counts as taken
  };
  std::deque<Deferred> deferred_;  // frames that need the journal while it cannot be written
  std::size_t deferred_bytes_ = 0;
  bool pass_is_full_ = false;  // somebody sends what nobody wants: the others' answers go first
  TimePoint last_look_{};      // at the clock
  std::vector<Outbox::Item> sending_;  // empty between calls: its memory is used again
  TimePoint next_commit_{};            // while paused
  TimePoint next_keeping_{};           // of the journal, after an error
  TimePoint next_tally_{};
  std::string last_tally_;
  // Of `partials/`: the oldest segment that has to stay, by the time the group was sealed; the
  // first.
  std::uint32_t partials_needed_ = 0, partials_begin_ = 1;
  TimePoint next_status_{};
  Mode mode_ = Mode::kRunning;
  int exit_code_ = kDone;
  TimePoint deadline_{};       // of draining or closing
  TimePoint linger_until_{};   // closing: late comers may still ask
  bool was_finished_ = false;  // already when this process started
  std::atomic<bool> stop_requested_{false};
  std::atomic<bool> abandoned_{false};
  std::string failure_;
  FileHandle lock_;  // of the run; let go first, once nothing is written any more
  std::optional<PolicyVersion> sealed_version_;  // the newest published one in the sealed group
  std::atomic<net::Server*> waken_{nullptr};     // by the writer: the server, once there is one
  bool snapshotting_ = false;                    // the writer takes a snapshot
  sync::SideTask writer_, tidier_;
};

}  // namespace thresher::broker
