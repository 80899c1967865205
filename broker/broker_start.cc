// How a broker comes up: lock, recovery, journal, sockets.
#include <fcntl.h>

#include <algorithm>

#include "broker/acceptance.h"
#include "broker/broker_loop.h"
#include "broker/partial_log.h"
#include "broker/recovery.h"
#include "common/base/process.h"
#include "common/config/sampling.h"
#include "common/sync/task.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

constexpr const char* kNoHttp = "none";
// A killed process is gone for others a little before its files are.
constexpr std::chrono::seconds kLockPatience{3};

// One broker per run directory: a lock that ends with the process.
Result<FileHandle> LockRun(const std::filesystem::path& run) {
  const std::filesystem::path path = run / "broker.lock";
  Result<FileHandle> file = FileHandle::Open(path, O_RDWR | O_CREAT);
  if (!file.ok()) return Unavailable(path.string() + ": cannot be opened");
  const TimePoint end = SystemClock().Now() + kLockPatience;
  while (!file->TryLock().ok()) {
    if (SystemClock().Now() >= end) {
      return Unavailable(path.string() + ": another broker serves this run");
    }
    sync::SleepFor(milliseconds(20));
  }
  return file;
}

LeaseLimits LimitsOf(const BrokerConfig& config) {
  return {milliseconds(config.lease_silence_ms), milliseconds(config.lease_min_progress_ms),
          config.max_attempts};
}

Result<std::unique_ptr<BrokerContext>> MakeContext(const BrokerOptions& options,
                                                   const Config& config, const Clock& clock,
                                                   RunState state) {
  THRESHER_ASSIGN_OR_RETURN(FaultPlan plan, FaultPlan::FromEnvironment("broker"));
  auto faults = std::make_unique<FaultPlan>(std::move(plan));
  THRESHER_ASSIGN_OR_RETURN(auto journal, Journal::Open(options.run, config.journal, faults.get()));
  THRESHER_ASSIGN_OR_RETURN(EventLog events, EventLog::Open(options.run, clock));
  THRESHER_ASSIGN_OR_RETURN(Identities identities,
                            Identities::Open(options.run, config.engine.strict));
  BrokerEpoch epoch(state.epoch().value + 1);
  THRESHER_ASSIGN_OR_RETURN(
      MetricsLog metrics_log,
      MetricsLog::Open(options.run, clock,
                       {.tensorboard = config.metrics.tensorboard, .epoch = epoch}));
  const BrokerMemory memory = PlanBrokerMemory(config);
  WeightStore weights(options.run, static_cast<std::uint32_t>(config.weights.chunk_bytes),
                      config.weights.retain);
  THRESHER_RETURN_IF_ERROR(weights.Open(state));
  std::optional<PolicyVersion> newest = state.NewestPublished();
  auto context = std::unique_ptr<BrokerContext>(new BrokerContext{
      .run = options.run,
      .config = config,
      .clock = clock,
      .state = std::move(state),
      .leases = LeaseTable(epoch, LimitsOf(config.broker)),
      .work = WorkSource(config),
      .payloads = PayloadStore(
          options.run / "trajectories", memory.cache,
          config.journal.off() ? PayloadStore::Holds::kOriginals : PayloadStore::Holds::kCopies),
      .weights = std::move(weights),
      .journal = std::move(journal),
      .events = std::move(events),
      .metrics_log = std::move(metrics_log),
      .faults = std::move(faults),
      .identities = std::move(identities),
      .memory = memory,
      .admission = Admission({memory.credit, LargestTrajectoryBytes(config)})});
  context->visible_version = newest;
  return context;
}

// Messages of one peer that may wait to be read: of honest ones credit bounds them, of others this.
int MessagesOfOnePeer(const BrokerContext& context) {
  const auto largest = static_cast<std::uint64_t>(context.config.broker.max_message_bytes);
  return static_cast<int>(std::clamp<std::uint64_t>(context.memory.frames / 2 / largest, 2, 16));
}

}  // namespace

BrokerLoop::BrokerLoop(std::unique_ptr<BrokerContext> context)
    : context_(std::move(context)),
      driver_(*context_),
      sessions_(*context_, driver_),
      heartbeats_(*context_),
      leases_(*context_, driver_),
      uploads_(*context_, driver_),
      learner_(*context_, driver_),
      weights_(*context_, driver_),
      keeper_(context_->run, JournalKeeper::LimitsOf(context_->config), context_->faults.get()),
      incarnation_(NewIncarnation()),
      writer_("journal",
              [this] {
                if (net::Server* server = waken_.load()) server->Wake();
              }),
      tidier_("tidier", [] {}) {}

BrokerLoop::~BrokerLoop() = default;

Result<std::unique_ptr<BrokerLoop>> BrokerLoop::Start(const BrokerOptions& options,
                                                      const Config& config, const Clock& clock) {
  THRESHER_ASSIGN_OR_RETURN(Hash128 run_id, ReadRunId(options.run));
  THRESHER_ASSIGN_OR_RETURN(FileHandle lock, LockRun(options.run));
  THRESHER_ASSIGN_OR_RETURN(
      Recovered recovered,
      Recover(options.run, Plan(config), {.bytes_may_be_lost = config.journal.off()}));
  const std::uint64_t torn = recovered.torn_bytes;
  const std::vector<std::string> warnings = std::move(recovered.warnings);
  THRESHER_ASSIGN_OR_RETURN(auto context,
                            MakeContext(options, config, clock, std::move(recovered.state)));
  auto loop = std::unique_ptr<BrokerLoop>(new BrokerLoop(std::move(context)));
  loop->lock_ = std::move(lock);
  loop->run_id_ = run_id;
  if (torn > 0) {
    loop->context_->events.Add(EventLevel::kWarning, "torn_tail",
                               "journal: " + std::to_string(torn) + " bytes cut off");
  }
  for (const std::string& warning : warnings) {
    loop->context_->events.Add(EventLevel::kWarning, "snapshot", warning);
  }
  THRESHER_RETURN_IF_ERROR(loop->OpenPartials());
  loop->context_->payloads.Adopt(recovered.places);
  loop->NoteLost(recovered.lost);
  THRESHER_RETURN_IF_ERROR(loop->BeginEpoch(std::move(recovered.orphans)));
  THRESHER_RETURN_IF_ERROR(loop->ServeHttp(options));
  THRESHER_RETURN_IF_ERROR(loop->Bind(options));
  return loop;
}

// A log of them that is damaged costs what it held, never the run.
Status BrokerLoop::OpenPartials() {
  BrokerContext& c = *context_;
  if (PartialInterval(c.config) == 0) return Status::Ok();
  Result<RecoveredPartials> read = ReadPartials(c.run, c.state);
  Status opened =
      read.ok() ? c.journal->OpenPartials(c.run, c.config.journal, c.faults.get()) : read.status();
  if (opened.code() == StatusCode::kDataLoss) {
    c.events.Add(EventLevel::kWarning, "partials_lost", opened.ToString());
    THRESHER_RETURN_IF_ERROR(RemovePartials(c.run));
    read = RecoveredPartials{};
    opened = c.journal->OpenPartials(c.run, c.config.journal, c.faults.get());
  }
  THRESHER_RETURN_IF_ERROR(opened);
  THRESHER_ASSIGN_OR_RETURN(const LogCursor begin, LogBegin(PartialsFolder(c.run)));
  partials_begin_ = std::max(1u, begin.position.segment);
  c.partials = std::move(read->partials);
  c.tally = std::move(read->tally);
  return Status::Ok();
}

// Whoever has them is heard of within two heartbeats, and sends them.
void BrokerLoop::NoteLost(const std::vector<TrajectoryId>& lost) {
  BrokerContext& c = *context_;
  c.regenerate_from = c.Now() + 2 * milliseconds(c.config.net.heartbeat_ms);
  c.lost.insert(lost.begin(), lost.end());
  if (lost.empty()) return;
  c.metrics.Count("samples_lost", static_cast<double>(lost.size()));
  c.events.Add(
      EventLevel::kWarning, "bytes_lost",
      std::to_string(lost.size()) +
          " accepted samples were not stored (journal.mode off): actors send them again, or "
          "generate them again");
}

Status BrokerLoop::BeginEpoch(std::vector<Trajectory> orphans) {
  BrokerContext& c = *context_;
  was_finished_ = c.state.finished();
  BrokerEpoch epoch(c.state.epoch().value + 1);
  THRESHER_RETURN_IF_ERROR(
      driver_.Record(wire::EpochStarted{epoch, incarnation_, run_id_, c.identities.RunHash()}));
  if (epoch.value > 1) {
    c.events.Add(EventLevel::kWarning, "broker_restarted",
                 "epoch " + std::to_string(epoch.value) + ", " +
                     std::to_string(c.state.committed_steps()) + " steps committed, " +
                     std::to_string(orphans.size()) + " stored samples to judge again");
  }
  THRESHER_RETURN_IF_ERROR(AdoptOrphans(std::move(orphans)));
  (void)CommitAll();  // a full disk does not end the start: the loop begins paused
  return Status::Ok();
}

// Stored samples that the journal does not know take their places, before anyone else can get a
// lease on them. The items themselves may have been lost with the journal's tail: they are issued
// first, again whenever what was adopted makes room for more.
Status BrokerLoop::AdoptOrphans(std::vector<Trajectory> orphans) {
  BrokerContext& c = *context_;
  std::vector<std::string> reasons;
  for (bool adopted = true; adopted;) {
    THRESHER_RETURN_IF_ERROR(driver_.Advance());
    adopted = false;
    reasons.clear();
    std::vector<Trajectory> left;
    for (Trajectory& orphan : orphans) {
      Judgement judgement = JudgeUpload(orphan, c.state, c.config, c.identities, orphan.actor);
      if (judgement.verdict == wire::UploadVerdict::kAccepted) {
        THRESHER_RETURN_IF_ERROR(driver_.Accept(judgement.record, "", /*already_stored=*/true));
        adopted = true;
      } else {
        reasons.push_back(judgement.reason);
        left.push_back(std::move(orphan));
      }
    }
    orphans = std::move(left);
  }
  for (const std::string& reason : reasons) c.events.Add(EventLevel::kWarning, "orphan", reason);
  return Status::Ok();
}

Status BrokerLoop::ServeHttp(const BrokerOptions& options) {
  std::string address = options.http.empty() ? context_->config.net.http : options.http;
  if (address == kNoHttp) return Status::Ok();
  THRESHER_ASSIGN_OR_RETURN(std::string token, net::LoadOrCreateToken(options.run.string()));
  auto status = [this](const std::string&) {
    return net::HttpResponse{200, "application/json", board_.json()};
  };
  auto metrics = [this](const std::string&) {
    return net::HttpResponse{200, "text/plain; version=0.0.4; charset=utf-8", board_.prometheus()};
  };
  THRESHER_ASSIGN_OR_RETURN(
      http_,
      net::HttpServer::Start(address, token, {{"/status.json", status}, {"/metrics", metrics}}));
  return Status::Ok();
}

Status BrokerLoop::Bind(const BrokerOptions& options) {
  net::ServerOptions server;
  server.max_message_bytes = static_cast<std::size_t>(context_->config.broker.max_message_bytes);
  server.receive_high_water_mark = MessagesOfOnePeer(*context_);
  server.endpoints.push_back("ipc://" + (net::SocketFolder(options.run) / "broker").string());
  if (context_->config.net.listen != "ipc") server.endpoints.push_back(context_->config.net.listen);
  for (const std::string& endpoint : options.listen) {
    if (endpoint != "ipc") server.endpoints.push_back(endpoint);
  }
  net::Rendezvous rendezvous;
  if (server.endpoints.size() > 1) {
    THRESHER_ASSIGN_OR_RETURN(net::KeyRing keys, net::LoadOrCreateKeys(options.run / "keys"));
    rendezvous.broker_public_key = keys.broker.public_key;
    server.keys = std::move(keys);
  }
  THRESHER_ASSIGN_OR_RETURN(server_, net::Server::Bind(server));
  waken_.store(server_.get());
  endpoints_ = server_->endpoints();
  rendezvous.endpoints = endpoints_;
  rendezvous.http = http_address();
  rendezvous.epoch = context_->state.epoch().value;
  rendezvous.pid = ThisProcess().pid;
  UpdateStatus();
  return net::WriteRendezvous(options.run, rendezvous);
}

}  // namespace thresher::broker
