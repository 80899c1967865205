#include "broker/status_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <variant>

#include "broker/run_driver.h"
#include "common/base/process.h"

namespace thresher::broker {
namespace {

using Json = nlohmann::ordered_json;

// Of status.json (docs/status.md): grows when a field leaves or means something else.
constexpr int kStatusFormat = 1;

constexpr std::chrono::milliseconds kStatusEvery{250};
constexpr std::chrono::seconds kStatusLatest{5};
constexpr int kStatusShare = 60;  // times what it takes

std::string Dump(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

double Seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

Json EstimateJson(const Estimate& e) {
  return {{"value", e.value}, {"low", e.low}, {"high", e.high}};
}

Json CountsJson(const StreamCounts& counts) {
  Json dropped = Json::object();
  for (int i = 0; i < wire::kDropReasonCount; ++i) {
    if (counts.dropped[i] == 0) continue;
    dropped[wire::DropReasonName(static_cast<wire::DropReason>(i))] = counts.dropped[i];
  }
  Json held = Json::object();
  for (int i = 0; i < kPlaceCount; ++i) held[PlaceName(static_cast<Place>(i))] = counts.held[i];
  return {{"issued", counts.issued},
          {"trained", counts.trained},
          {"evaluated", counts.evaluated},
          {"dropped_total", counts.DroppedTotal()},
          {"dropped", dropped},
          {"held_total", counts.HeldTotal()},
          {"held", held},
          {"equation", Ledger::Equation(counts)}};
}

Json LedgerJson(const RunState& state) {
  Json streams = Json::array();
  for (const auto& [key, counts] : state.ledger().counts()) {
    Json entry = {{"stream", StreamName(key.first)}, {"island", key.second}};
    entry.update(CountsJson(counts));
    streams.push_back(std::move(entry));
  }
  Status check = state.ledger().Check(state.groups().CountHeld());
  return {{"balanced", check.ok()},
          {"total", CountsJson(state.ledger().Total())},
          {"streams", std::move(streams)}};
}

Json EvalsJson(const RunState& state) {
  Json evals = Json::array();
  for (const auto& [number, result] : state.evals()) {
    Json pass = Json::object();
    const std::vector<std::uint32_t> ks = ReportedKs(result.round.samples);
    for (std::size_t i = 0; i < ks.size(); ++i) {
      pass[std::to_string(ks[i])] = EstimateJson(result.pass_at[i]);
    }
    evals.push_back({{"round", number},
                     {"label", result.round.label},
                     {"phase_end", result.round.phase_end},
                     {"version", result.round.version.ToString()},
                     {"items", result.round.items},
                     {"samples", result.round.samples},
                     {"arrived", result.arrived},
                     {"reward_mean", result.mean_reward},
                     {"pass_at", std::move(pass)},
                     {"digest", result.digest.ToString()}});
  }
  return evals;
}

Json PeersJson(BrokerContext& context, wire::PeerRole role) {
  Json peers = Json::array();
  for (const Peer* peer : context.peers.WithRole(role)) {
    Json entry = {{"index", peer->index},
                  {"name", peer->name},
                  {"pid", peer->pid},
                  {"heartbeat_age_seconds", Seconds(context.ListeningTime() - peer->last_seen)},
                  {"alive", context.Alive(*peer)},
                  {"progress", peer->progress},
                  {"counters", context.peers.CountersOf(*peer)}};
    if (role == wire::PeerRole::kActor) {
      entry["version"] = peer->has_weights ? Json(peer->weights.ToString()) : Json(nullptr);
      entry["weights_hash"] =
          peer->has_weights ? Json(peer->weights_hash.ToString()) : Json(nullptr);
      entry["leased_samples"] = context.leases.HeldBy(ActorId(peer->index));
      entry["capacity"] = peer->capacity;
    } else {
      entry["waiting"] = peer->waiting;
    }
    peers.push_back(std::move(entry));
  }
  return peers;
}

Json WeightsJson(BrokerContext& context) {
  std::optional<PolicyVersion> newest = context.state.NewestPublished();
  if (!newest) return {{"newest", nullptr}, {"hash", nullptr}, {"published", 0}, {"stored", 0}};
  return {{"newest", newest->ToString()},
          {"hash", context.state.Published(*newest)->hash.ToString()},
          {"published", context.state.published_versions()},
          {"stored", context.weights.stored_versions()}};
}

// Mean reward of the newest committed step of the phase, before filtering; null before the first.
Json RewardMean(const RunState& state) {
  if (state.committed_steps() == 0) return nullptr;
  const StepStatistics* s = state.Statistics(state.committed_steps() - 1);
  if (s == nullptr || s->accepted == 0) return nullptr;
  return s->reward_sum / static_cast<double>(s->accepted);
}

const char* PhaseText(const BrokerContext& context) {
  const RunState& state = context.state;
  if (state.finished()) return "finished";
  if (state.committed_steps() >= state.plan().total_steps()) return "evaluation";
  return PhaseName(state.plan().Step(state.committed_steps()).phase);
}

void AddProgress(Json& json, BrokerContext& context) {
  const RunState& state = context.state;
  const Plan& plan = state.plan();
  std::uint32_t step = state.committed_steps();
  bool supervised = step < plan.supervised_steps();
  std::uint32_t phase_steps = supervised ? plan.supervised_steps() : plan.rl_steps();
  std::uint32_t phase_step = supervised ? step : step - plan.supervised_steps();
  double rate = context.metrics.steps().PerSecond(context.Now());
  json["phase"] = PhaseText(context);
  json["step"] = step;
  json["total_steps"] = plan.total_steps();
  json["phase_step"] = phase_step;
  json["phase_steps"] = phase_steps;
  json["durable_steps"] = state.durable_steps();
  json["steps_per_second"] = rate;
  json["phase_eta_seconds"] = rate > 0 ? Json((phase_steps - phase_step) / rate) : Json(nullptr);
  json["reward_mean"] = RewardMean(state);
  bool evaluated = !state.evals().empty();
  json["pass_at_1"] =
      evaluated ? EstimateJson(state.evals().rbegin()->second.pass_at_1()) : Json(nullptr);
}

Json TokensJson(BrokerContext& context) {
  TimePoint now = context.Now();
  return {{"generated", context.metrics.count("tokens_generated")},
          {"generated_per_second", context.metrics.generated().PerSecond(now)},
          {"continued", context.tally.continued()},
          {"generated_twice", context.tally.twice()},
          {"trained", context.state.trained_tokens()},
          {"trained_per_second", context.metrics.trained().PerSecond(now)},
          {"audited", context.state.audited_tokens()},
          {"mismatched", context.state.mismatched_tokens()}};
}

Json FaultsJson(BrokerContext& context) {
  return {{"alarms", context.events.alarms()},
          {"warnings", context.events.warnings()},
          {"by_kind", context.events.by_kind()},
          {"last", context.events.last_fault()},
          {"retrained_steps", context.state.retrained_steps()},
          {"broker_starts", context.state.epoch().value}};
}

// Why nothing goes on now; empty when all is well.
std::string PausedText(BrokerContext& context) {
  if (!context.paused.empty() || context.metrics.gauge("weights_waiting") == 0) {
    return context.paused;
  }
  return "published weights cannot be written; " + context.events.last_fault();
}

// What waits in this process, in bytes, in the order in which data passes.
Json QueuesJson(BrokerContext& context) {
  const Metrics& metrics = context.metrics;
  std::size_t to_send = 0, messages = 0;
  context.outbox.ForEachWaiting([&](const wire::Message& message) {
    to_send += PayloadBytes(message);
    ++messages;
  });
  return {{"received",
           {{"messages", metrics.gauge("frames_deferred")},
            {"bytes", metrics.gauge("frames_deferred_bytes")}}},
          {"journal",
           {{"bytes", context.journal->pending_bytes() + context.journal->sealed_bytes() +
                          context.journal->aside_bytes()}}},
          {"to_send", {{"messages", messages}, {"bytes", to_send}}},
          {"to_peers",
           {{"bytes", context.outgoing.bytes()}, {"limit_bytes", context.outgoing.limit()}}},
          {"batches",
           {{"bytes", context.payloads.cached_bytes()},
            {"limit_bytes", context.payloads.max_bytes()},
            {"read_back", context.payloads.reads_from_disk()}}}};
}

// Bytes under way by actor, of the actors' part of the memory budget.
Json CreditsJson(BrokerContext& context) {
  const Admission& admission = context.admission;
  std::map<ActorId, const Admission::Account*> sorted;
  for (const auto& [actor, account] : admission.accounts()) sorted.emplace(actor, &account);
  Json::object_t actors;
  for (const auto& [actor, account] : sorted) {
    // Not operator[], which looks through all keys: each is new.
    actors.emplace_back(std::to_string(actor.value), Json{{"granted_bytes", account->told},
                                                          {"in_use_bytes", account->in_use},
                                                          {"refused", account->refused}});
  }
  return {
      {"memory_bytes", context.memory.budget},   {"budget_bytes", admission.limits().budget_bytes},
      {"granted_bytes", admission.told_bytes()}, {"in_use_bytes", admission.in_use_bytes()},
      {"waiting", admission.waiting()},          {"by_actor", std::move(actors)}};
}

// With journal.mode off: what actors keep, and what has to come again.
Json KeptJson(BrokerContext& context) {
  return {{"uploads", context.kept.uploads()},
          {"samples", context.kept.samples()},
          {"lost", context.lost.size()},
          {"not_stored", context.journal->not_stored()}};
}

// What is kept of unfinished samples.
Json PartialsJson(BrokerContext& context) {
  return {{"now", context.partials.size()},
          {"bytes", context.partials.bytes()},
          {"tokens", context.partials.tokens()},
          {"kept", context.metrics.count("partials_kept")},
          {"refused", context.metrics.count("partials_refused")},
          {"granted", context.metrics.count("partials_granted")}};
}

Json LeasesJson(BrokerContext& context) {
  return {{"now", context.leases.leases()},
          {"samples", context.leases.leased_samples()},
          {"expired", context.metrics.count("leases_expired")}};
}

// What both status and summary say about correctness.
void AddProofs(Json& json, BrokerContext& context) {
  const RunState& state = context.state;
  json["tokens"] = TokensJson(context);
  json["staleness_max"] = state.max_staleness();
  json["mismatched_tokens"] = state.mismatched_tokens();
  json["numerics_not_strict"] = context.identities.others().size();
  json["nondeterministic"] = state.nondeterministic();
  json["heldout_overlap"] = state.heldout_overlap();
  json["ledger"] = LedgerJson(state);
  json["evals"] = EvalsJson(state);
  json["faults"] = FaultsJson(context);
  json["counters"] = context.metrics.counts();
}

void SetGauges(BrokerContext& context) {
  Metrics& m = context.metrics;
  TimePoint now = context.Now();
  m.Set("leases", static_cast<double>(context.leases.leases()));
  m.Set("samples_leased_now", static_cast<double>(context.leases.leased_samples()));
  m.Set("payload_cache_bytes", static_cast<double>(context.payloads.cached_bytes()));
  m.Set("journal_pending_bytes",
        static_cast<double>(context.journal->pending_bytes() + context.journal->sealed_bytes()));
  m.Set("actors_alive", static_cast<double>(context.Live().count));
  m.Set("steps_committed_total", context.state.committed_steps());
  m.Set("steps_durable", context.state.durable_steps());
  m.Set("samples_accepted_total", static_cast<double>(context.state.accepted()));
  m.Set("mismatched_tokens", static_cast<double>(context.state.mismatched_tokens()));
  m.Set("tokens_generated_per_second", m.generated().PerSecond(now));
  m.Set("tokens_trained_per_second", m.trained().PerSecond(now));
  m.Set("tokens_generated_twice", static_cast<double>(context.tally.twice()));
  m.Set("partials", static_cast<double>(context.partials.size()));
  m.Set("partials_bytes", static_cast<double>(context.partials.bytes()));
  m.Set("memory_budget_bytes", static_cast<double>(context.memory.budget));
  m.Set("credit_budget_bytes", static_cast<double>(context.memory.credit));
  m.Set("credit_granted_bytes", static_cast<double>(context.admission.told_bytes()));
  m.Set("credit_in_use_bytes", static_cast<double>(context.admission.in_use_bytes()));
  m.Set("actors_waiting_for_credit", static_cast<double>(context.admission.waiting()));
  m.Set("metrics_lines_lost", static_cast<double>(context.metrics_log.lost()));
  m.Set("paused", context.paused.empty() ? 0 : 1);
}

}  // namespace

Duration StatusInterval(Duration took) {
  return std::clamp<Duration>(kStatusShare * took, kStatusEvery, kStatusLatest);
}

std::string StatusJson(BrokerContext& context, const std::map<std::string, double>& learner) {
  SetGauges(context);
  Json json = {{"format", kStatusFormat},
               {"run", context.run.string()},
               {"time", Seconds(context.clock.WallTime())},
               {"pid", ThisProcess().pid},
               {"finished", context.state.finished()},
               {"draining", context.draining},
               {"paused", PausedText(context)}};
  AddProgress(json, context);
  AddProofs(json, context);
  StreamCounts total = context.state.ledger().Total();
  std::uint64_t leased = context.leases.leased_samples();
  json["held"] = {{"queued", total.held[0] - std::min(total.held[0], leased)},
                  {"leased", leased},
                  {"accepted", total.held[1]},
                  {"batched", total.held[2]}};
  json["queues"] = QueuesJson(context);
  json["leases"] = LeasesJson(context);
  json["credits"] = CreditsJson(context);
  json["kept"] = KeptJson(context);
  json["partials"] = PartialsJson(context);
  json["weights"] = WeightsJson(context);
  json["actors"] = PeersJson(context, wire::PeerRole::kActor);
  json["learners"] = PeersJson(context, wire::PeerRole::kLearner);
  json["actor_counters"] = context.peers.ActorCounters();
  json["learner_metrics"] = learner;
  json["gauges"] = context.metrics.gauges();
  return Dump(json);
}

std::string SummaryJson(BrokerContext& context, const std::map<std::string, double>& learner) {
  Json json = {{"finished", context.state.finished()},
               {"steps", context.state.committed_steps()},
               {"supervised_steps", context.state.plan().supervised_steps()},
               {"rl_steps", context.state.plan().rl_steps()}};
  json["final"] = WeightsJson(context);
  std::uint32_t steps = context.state.committed_steps();
  json["final_state_hash"] =
      steps == 0 ? Json(nullptr) : Json(context.state.Commit(steps - 1)->state_hash.ToString());
  json["final_chain"] = context.state.ChainBefore(steps).ToString();
  json["checkpoint"] = context.state.last_durable().folder;
  AddProofs(json, context);
  json["time_split"] = {{"actors", context.peers.ActorCounters()}, {"learner_last_step", learner}};
  return Dump(json, 2);
}

}  // namespace thresher::broker
