#include "broker/metrics_report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace thresher::broker {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

double WallSeconds(const BrokerContext& context) {
  return std::chrono::duration<double>(context.clock.WallTime()).count();
}

// Letters, digits and _ alone.
std::string PrometheusName(std::string name) {
  for (char& c : name) {
    const bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!fits) c = '_';
  }
  return name;
}

Json SamplesJson(const SampleFigures& f) {
  return {{"samples", f.reward.count},        {"reward_mean", f.reward.mean},
          {"reward_std", f.reward.deviation}, {"reward_min", f.reward.min},
          {"reward_max", f.reward.max},       {"solved_share", f.solved},
          {"length_mean", f.length.mean},     {"length_std", f.length.deviation},
          {"length_min", f.length.min},       {"length_max", f.length.max},
          {"truncated_share", f.truncated},   {"staleness_mean", f.staleness.mean},
          {"staleness_max", f.staleness.max}};
}

Json GroupsJson(const GroupFigures& f) {
  return {{"count", f.groups},
          {"complete", f.complete},
          {"solved_all", f.solved_all},
          {"solved_none", f.solved_none},
          {"equal_rewards", f.equal_rewards},
          {"reward_std_mean", f.deviation}};
}

// How the farm stands when a step is committed.
Json FarmJson(BrokerContext& context) {
  const StreamCounts total = context.state.ledger().Total();
  const Journal& journal = *context.journal;
  return {{"actors_alive", context.Live().count},
          {"actors_waiting_for_credit", context.admission.waiting()},
          {"leases_expired", context.metrics.count("leases_expired")},
          {"tokens_continued", context.tally.continued()},
          {"tokens_generated_twice", context.tally.twice()},
          {"samples_issued", total.issued},
          {"samples_trained", total.trained},
          {"samples_evaluated", total.evaluated},
          {"samples_dropped", total.DroppedTotal()},
          {"samples_held", total.HeldTotal()},
          {"journal_queue_bytes",
           journal.pending_bytes() + journal.sealed_bytes() + journal.aside_bytes()},
          {"send_queue_bytes", context.outgoing.bytes()},
          {"batch_queue_bytes", context.payloads.cached_bytes()},
          {"weights_published", context.state.published_versions()},
          {"weights_bytes_sent", context.metrics.count("weights_bytes_sent")},
          {"alarms", context.events.alarms()},
          {"warnings", context.events.warnings()}};
}

}  // namespace

std::string StepLine(BrokerContext& context, const wire::StepDone& done,
                     const StepFigures& figures) {
  StepPlan plan = context.state.plan().Step(done.step);
  const StepStatistics* found = context.state.Statistics(done.step);
  StepStatistics s = found == nullptr ? StepStatistics{} : *found;
  double accepted = static_cast<double>(std::max<std::uint64_t>(1, s.accepted));
  Json outcomes = Json::object();
  for (int kind = 0; kind < 5; ++kind) {
    outcomes[OutcomeKindName(static_cast<OutcomeKind>(kind))] = s.outcomes[kind];
  }
  TimePoint now = context.Now();
  Json json = {{"time", WallSeconds(context)},
               {"step", done.step},
               {"phase", PhaseName(plan.phase)},
               {"phase_step", plan.phase_step},
               {"samples", s.accepted},
               {"batch", context.state.Batch(done.step)->ids.size()},
               {"reward_mean", s.reward_sum / accepted},
               {"outcomes", outcomes},
               {"zero_variance_samples", s.zero_variance},
               {"not_selected_samples", s.not_selected},
               {"surplus_samples", s.surplus},
               {"dropped_samples", s.other_drops},
               {"rounds", s.rounds},
               {"loss_tokens_mean", static_cast<double>(s.loss_tokens) / accepted},
               {"trained_tokens", done.trained_tokens},
               {"audited_tokens", done.audited_tokens},
               {"mismatched_tokens", done.mismatched_tokens},
               {"generated_tokens_per_second", context.metrics.generated().PerSecond(now)},
               {"trained_tokens_per_second", context.metrics.trained().PerSecond(now)},
               {"state_hash", done.state_hash.ToString()}};
  json["rollout"] = SamplesJson(figures.arrived);
  json["trained"] = SamplesJson(figures.trained);
  if (plan.phase == Phase::kRl) json["groups"] = GroupsJson(figures.groups);
  json["farm"] = FarmJson(context);
  Json learner = Json::object();
  for (const auto& [name, value] : done.metrics) learner[name] = value;
  json["learner"] = std::move(learner);
  return Dump(json);
}

std::string RoundLine(const BrokerContext& context, const EvalSummary& result) {
  Json eval = {{"round", result.round.round},      {"step", result.round.version.step},
               {"label", result.round.label},      {"items", result.round.items},
               {"samples", result.round.samples},  {"arrived", result.arrived},
               {"reward_mean", result.mean_reward}};
  const std::vector<std::uint32_t> ks = ReportedKs(result.round.samples);
  for (std::size_t i = 0; i < ks.size(); ++i) {
    const std::string name = "pass_at_" + std::to_string(ks[i]);
    eval[name] = result.pass_at[i].value;
    eval[name + "_low"] = result.pass_at[i].low;
    eval[name + "_high"] = result.pass_at[i].high;
  }
  Json json = {{"time", WallSeconds(context)}};
  json[result.round.phase_end ? "eval_end" : "eval"] = std::move(eval);
  return Dump(json);
}

std::string PrometheusText(BrokerContext& context) {
  std::string text;
  auto add = [&](const std::string& name, const char* type, double value) {
    char number[64];
    std::snprintf(number, sizeof number, "%.17g", value);
    std::string full = "thresher_" + name;
    text += "# TYPE " + full + " " + type + "\n" + full + " " + number + "\n";
  };
  for (const auto& [name, value] : context.metrics.counts()) add(name + "_total", "counter", value);
  for (const auto& [name, value] : context.metrics.gauges()) add(name, "gauge", value);
  for (const auto kind : {MetricsLine::Kind::kStep, MetricsLine::Kind::kRound}) {
    const std::optional<MetricsLine>& line = context.metrics_log.newest(kind);
    if (!line) continue;
    const std::string prefix = kind == MetricsLine::Kind::kStep ? "step_" : "";
    if (kind == MetricsLine::Kind::kStep) add("step_number", "gauge", line->number);
    for (const auto& [name, value] : line->numbers) {
      add(PrometheusName(prefix + name), "gauge", value);
    }
  }
  for (const auto& [key, counts] : context.state.ledger().counts()) {
    std::string prefix = std::string("ledger_") + StreamName(key.first) + "_island" +
                         std::to_string(key.second) + "_";
    add(prefix + "issued", "gauge", static_cast<double>(counts.issued));
    add(prefix + "trained", "gauge", static_cast<double>(counts.trained));
    add(prefix + "evaluated", "gauge", static_cast<double>(counts.evaluated));
    add(prefix + "dropped", "gauge", static_cast<double>(counts.DroppedTotal()));
    add(prefix + "held", "gauge", static_cast<double>(counts.HeldTotal()));
  }
  return text;
}

}  // namespace thresher::broker
