#include <cstdio>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <tuple>

#include "common/data/trajectory_scan.h"
#include "common/data/trajectory_store.h"
#include "common/log/log.h"
#include "common/model/run_context.h"
#include "common/wire/records.h"
#include "launch/commands.h"
#include "launch/trajectory_filter.h"

namespace thresher::launch {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kListed = 20;
constexpr const char* kRoles[] = {"prompt", "policy", "environment", "tool"};
constexpr const char* kFinish[] = {"stop", "length", "reference", "cancelled", "error"};

std::string Fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string Dump(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Json SpansJson(const Trajectory& t) {
  Json segments = Json::array(), versions = Json::array(), history = Json::array();
  for (const Segment& s : t.segments) {
    segments.push_back({{"begin", s.begin},
                        {"end", s.end},
                        {"role", kRoles[static_cast<int>(s.role)]},
                        {"in_loss", s.in_loss}});
  }
  for (const VersionSpan& s : t.versions) {
    versions.push_back({{"begin", s.begin}, {"end", s.end}, {"version", s.version.ToString()}});
  }
  for (const KvSpan& s : t.kv_history) {
    history.push_back({{"begin", s.begin},
                       {"end", s.end},
                       {"version", s.version.ToString()},
                       {"recomputed", s.recomputed}});
  }
  return {{"segments", segments}, {"versions", versions}, {"kv_history", history}};
}

Json OutcomeJson(const Outcome& outcome) {
  Json subscores = Json::object();
  for (const SubScore& s : outcome.subscores) subscores[s.name] = s.value;
  return {{"kind", OutcomeKindName(outcome.kind)},
          {"score", outcome.score},
          {"reward", outcome.reward},
          {"reason", outcome.reason},
          {"subscores", subscores},
          {"nondeterministic", outcome.nondeterministic}};
}

Json ToJson(const Trajectory& t) {
  Json json = {{"id", t.id.ToString()},
               {"task", t.task},
               {"group_size", t.group_size},
               {"pinned", t.pinned.ToString()},
               {"finish", kFinish[static_cast<int>(t.finish)]},
               {"outcome", OutcomeJson(t.outcome)},
               {"text", t.text},
               {"tokens", t.tokens},
               {"logprobs", t.logprobs}};
  json.update(SpansJson(t));
  if (!t.kept_mass_logprobs.empty()) json["kept_mass_logprobs"] = t.kept_mass_logprobs;
  json["sampling"] = {{"temperature", t.sampling.temperature},
                      {"max_new_tokens", t.sampling.max_new_tokens}};
  if (t.sampling.Filtered()) {
    json["sampling"].update({{"top_k", t.sampling.top_k},
                             {"top_p", t.sampling.top_p},
                             {"min_p", t.sampling.min_p},
                             {"repetition_penalty", t.sampling.repetition_penalty}});
  }
  json["prompt_hash"] = t.prompt_hash.ToString();
  json["instance_hash"] = t.instance_hash.ToString();
  json["content_hash"] = t.ContentHash().ToString();
  json["actor"] = t.actor.value;
  json["timings_ms"] = {{"queue", t.timings.queue_ms},
                        {"prefill", t.timings.prefill_ms},
                        {"decode", t.timings.decode_ms},
                        {"grade", t.timings.grade_ms}};
  json["run_identity"] = t.run_identity.ToString();
  return json;
}

void PrintHead(const Trajectory& t) {
  std::cout << "trajectory " << t.id.ToString() << "  task " << Visible(t.task) << "  group of "
            << t.group_size << "  version " << t.OldestVersion().ToString() << "  "
            << kFinish[static_cast<int>(t.finish)] << "\n"
            << "outcome " << OutcomeKindName(t.outcome.kind) << "  " << Visible(t.outcome.reason)
            << "  score " << Fixed(t.outcome.score, 3) << "  reward " << Fixed(t.outcome.reward, 3);
  for (const SubScore& s : t.outcome.subscores) {
    std::cout << "  " << Visible(s.name) << " " << Fixed(s.value, 3);
  }
  std::cout << "\ntext " << Visible(t.text) << "\n"
            << "temperature " << Fixed(t.sampling.temperature, 3) << "  actor " << t.actor.value
            << "  queue " << Fixed(t.timings.queue_ms, 1) << " ms  prefill "
            << Fixed(t.timings.prefill_ms, 1) << " ms  decode " << Fixed(t.timings.decode_ms, 1)
            << " ms\ncontent " << t.ContentHash().ToString() << "  prompt "
            << t.prompt_hash.ToString() << "  instance " << t.instance_hash.ToString() << "\n";
}

void PrintSpans(const Trajectory& t) {
  for (const Segment& s : t.segments) {
    std::cout << "segment [" << s.begin << ", " << s.end << ") " << kRoles[static_cast<int>(s.role)]
              << (s.in_loss ? ", in the loss" : "") << "\n";
  }
  for (const VersionSpan& s : t.versions) {
    std::cout << "sampled [" << s.begin << ", " << s.end << ") by version " << s.version.ToString()
              << "\n";
  }
  for (const KvSpan& s : t.kv_history) {
    std::cout << "keys and values [" << s.begin << ", " << s.end << ") "
              << (s.recomputed ? "recomputed" : "written") << " by version " << s.version.ToString()
              << "\n";
  }
}

// One line a token; logprobs stand on the policy's tokens in order.
void PrintTokens(const Trajectory& t, const model::Tokenizer* tokenizer) {
  std::cout << "position  token  logprob    text\n";
  std::size_t next_logprob = 0;
  for (const Segment& segment : t.segments) {
    for (std::uint32_t p = segment.begin; p < segment.end; ++p) {
      bool has = segment.role == Role::kPolicy && next_logprob < t.logprobs.size();
      std::string logprob = has ? Fixed(t.logprobs[next_logprob++], 6) : "";
      std::string text =
          tokenizer == nullptr ? "" : tokenizer->Decode(std::span(&t.tokens[p], 1), true);
      std::printf("%8u  %5d  %-9s  %s\n", p, t.tokens[p], logprob.c_str(), Visible(text).c_str());
    }
  }
}

Status Show(const TrajectoriesOptions& options) {
  THRESHER_ASSIGN_OR_RETURN(
      const auto store,
      TrajectoryStoreReader::Open(std::filesystem::path(options.run) / "trajectories"));
  THRESHER_ASSIGN_OR_RETURN(TrajectoryId id, TrajectoryId::Parse(options.show));
  THRESHER_ASSIGN_OR_RETURN(auto entry, store->Find(id));
  THRESHER_ASSIGN_OR_RETURN(std::string bytes, store->Read(entry));
  THRESHER_ASSIGN_OR_RETURN(Trajectory t, wire::DecodeTrajectory(bytes));
  if (options.json) {
    std::cout << Dump(ToJson(t), 2) << "\n";
    return Status::Ok();
  }
  auto run = model::OpenRun(options.run);  // for the tokenizer; without it tokens have no text
  PrintHead(t);
  PrintSpans(t);
  std::cout << std::flush;
  PrintTokens(t, run.ok() ? run->tokenizer.get() : nullptr);
  std::fflush(stdout);
  return Status::Ok();
}

void PrintRow(const Trajectory& t, bool json) {
  if (json) {
    Json row = {{"id", t.id.ToString()},      {"version", t.OldestVersion().ToString()},
                {"tokens", t.tokens.size()},  {"outcome", OutcomeKindName(t.outcome.kind)},
                {"reason", t.outcome.reason}, {"score", t.outcome.score},
                {"reward", t.outcome.reward}, {"text", t.text}};
    std::cout << Dump(row) << "\n";
    return;
  }
  std::printf("%-22s  %7s  %6zu  %-10s  %-16s  %5.2f  %s\n", t.id.ToString().c_str(),
              t.OldestVersion().ToString().c_str(), t.tokens.size(),
              OutcomeKindName(t.outcome.kind), Visible(t.outcome.reason).c_str(), t.outcome.score,
              Visible(t.text).c_str());
}

Result<TrajectoryFilter> FilterOf(const TrajectoriesOptions& options) {
  TrajectoryFilter filter;
  if (!options.stream.empty()) {
    THRESHER_ASSIGN_OR_RETURN(filter.stream, ParseStream(options.stream));
  }
  if (!options.outcome.empty()) {
    THRESHER_ASSIGN_OR_RETURN(filter.outcome, ParseOutcome(options.outcome));
  }
  const std::tuple<const char*, const std::string&, NumberRange&> ranges[] = {
      {"--step", options.step, filter.step},
      {"--reward", options.reward, filter.reward},
      {"--length", options.length, filter.length}};
  for (const auto& [option, text, range] : ranges) {
    if (text.empty()) continue;
    THRESHER_ASSIGN_OR_RETURN(range, ParseRange(text, option));
  }
  filter.item = options.item;
  filter.actor = options.actor;
  filter.reason = options.reason;
  filter.prompt_hash = options.prompt;
  return filter;
}

// Hands the trajectories that pass to `print`, one at a time in file order, and no more than
// `limit` (0: all). Returns whether there would be more.
Result<bool> ForEach(const TrajectoriesOptions& options, int limit,
                     const std::function<void(const Trajectory&)>& print) {
  THRESHER_ASSIGN_OR_RETURN(const TrajectoryFilter filter, FilterOf(options));
  const Status enough = Cancelled("enough");
  int shown = 0;
  Status status = ScanTrajectories(std::filesystem::path(options.run) / "trajectories",
                                   [&](const TrajectoryId& id, std::string_view bytes) -> Status {
                                     if (!filter.MayHold(id)) return Status::Ok();
                                     THRESHER_ASSIGN_OR_RETURN(const Trajectory t,
                                                               wire::DecodeTrajectory(bytes));
                                     if (!filter.Holds(t)) return Status::Ok();
                                     if (limit > 0 && shown >= limit) return enough;
                                     print(t);
                                     ++shown;
                                     return Status::Ok();
                                   });
  if (status.code() == enough.code()) return true;
  THRESHER_RETURN_IF_ERROR(status);
  return false;
}

Status List(const TrajectoriesOptions& options) {
  if (!options.json) {
    std::printf("%-22s  %7s  %6s  %-10s  %-16s  %5s  %s\n", "id", "version", "tokens", "outcome",
                "reason", "score", "text");
  }
  THRESHER_ASSIGN_OR_RETURN(const bool more,
                            ForEach(options, options.limit.value_or(kListed),
                                    [&](const Trajectory& t) { PrintRow(t, options.json); }));
  std::fflush(stdout);
  if (more) std::cerr << "thresher: there are more; --limit 0 shows all\n";
  return Status::Ok();
}

// Complete records, one JSON object a line.
Status Export(const TrajectoriesOptions& options) {
  return ForEach(options, options.limit.value_or(0),
                 [](const Trajectory& t) { std::cout << Dump(ToJson(t)) << "\n"; })
      .status();
}

}  // namespace

int TrajectoriesCommand(const TrajectoriesOptions& options) {
  using Action = TrajectoriesOptions::Action;
  Status status = options.action == Action::kShow     ? Show(options)
                  : options.action == Action::kExport ? Export(options)
                                                      : List(options);
  std::cout << std::flush;
  if (status.ok() && !std::cout) status = Unavailable("standard output cannot be written");
  if (status.ok()) return kExitOk;
  bool usage =
      status.code() == StatusCode::kNotFound || status.code() == StatusCode::kInvalidArgument;
  return Report(status, usage ? kExitUsage : kExitFailure);
}

}  // namespace thresher::launch
