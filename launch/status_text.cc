#include "launch/status_text.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>
#include <vector>

#include "common/log/log.h"
#include "launch/progress.h"

namespace thresher::launch {
namespace {

using nlohmann::json;

void AddLedger(std::ostream& out, const json& document) {
  const json ledger = document.value("ledger", json::object());
  for (const json& stream : ledger.value("streams", json::array())) {
    out << stream.value("stream", "") << ": " << Visible(stream.value("equation", "")) << "\n";
  }
  out << "ledger " << (ledger.value("balanced", false) ? "balanced" : "NOT BALANCED") << "\n";
}

void AddEvaluations(std::ostream& out, const json& document) {
  for (const json& eval : document.value("evals", json::array())) {
    out << "held-out '" << Visible(eval.value("label", "")) << "':";
    const json pass = eval.value("pass_at", json::object());
    for (const auto& [k, estimate] : pass.items()) {
      out << "  pass@" << Visible(k) << " " << EstimateText(estimate);
    }
    out << "  (" << eval.value("items", 0) << " items x " << eval.value("samples", 0) << ")\n";
  }
}

void AddPeers(std::ostream& out, const json& document, const char* role) {
  for (const json& peer : document.value(role, json::array())) {
    out << Visible(peer.value("name", "?")) << ": "
        << (peer.value("alive", false) ? "alive" : "SILENT") << ", heartbeat "
        << ShortDuration(peer.value("heartbeat_age_seconds", 0.0)) << " ago, pid "
        << peer.value("pid", 0);
    if (peer.contains("version") && peer["version"].is_string()) {
      out << ", version " << Visible(peer["version"].get<std::string>()) << ", "
          << peer.value("leased_samples", 0) << " samples leased";
    }
    out << "\n";
  }
}

// "journal 1.0 KiB, to send 0 B": the queues that hold something, in bytes.
void AddQueues(std::ostream& out, const json& status) {
  const json queues = status.value("queues", json::object());
  std::string text;
  for (const auto& [name, queue] : queues.items()) {
    const double bytes = queue.value("bytes", 0.0);
    if (bytes <= 0) continue;
    text += (text.empty() ? "" : ", ") + Visible(name) + " " + ShortBytes(bytes);
    if (queue.contains("limit_bytes")) {
      text += " of " + ShortBytes(queue.value("limit_bytes", 0.0));
    }
  }
  out << "queues: " << (text.empty() ? "empty" : text) << "\n";
}

void AddLeases(std::ostream& out, const json& status) {
  const json leases = status.value("leases", json::object());
  out << "leases: " << leases.value("now", 0) << " with " << leases.value("samples", 0)
      << " samples, " << leases.value("expired", 0) << " expired\n";
}

// "credits: 1.0 MiB in use, 48 MiB granted of 64 MiB; refused: actor 9 17".
void AddCredits(std::ostream& out, const json& status) {
  const json credits = status.value("credits", json());
  if (!credits.is_object()) return;
  auto bytes = [&](const char* name) { return ShortBytes(credits.value(name, 0.0)); };
  out << "credits: " << bytes("in_use_bytes") << " in use, " << bytes("granted_bytes")
      << " granted of " << bytes("budget_bytes");
  const int waiting = credits.value("waiting", 0);
  if (waiting > 0) out << "; " << waiting << " ACTORS WAIT for broker.memory_bytes";
  std::string refused;
  const json actors = credits.value("by_actor", json::object());
  for (const auto& [actor, account] : actors.items()) {
    const std::uint64_t count = account.value("refused", std::uint64_t{0});
    if (count > 0) refused += " actor " + Visible(actor) + " " + std::to_string(count);
  }
  out << (refused.empty() ? "" : "; refused:" + refused) << "\n";
}

// "kept by actors: 12 uploads with 300 open samples; 5 LOST samples come again": with journal.mode
// off, where there is any.
void AddKept(std::ostream& out, const json& status) {
  const json kept = status.value("kept", json());
  if (!kept.is_object()) return;
  auto number = [&](const char* name) { return kept.value(name, std::uint64_t{0}); };
  const std::uint64_t uploads = number("uploads"), lost = number("lost");
  const std::uint64_t left_out = number("not_stored");
  if (uploads + lost + left_out == 0) return;
  out << "kept by actors: " << uploads << " uploads with " << number("samples") << " open samples";
  if (lost > 0) out << "; " << lost << " LOST samples come again";
  if (left_out > 0) out << "; " << left_out << " trajectories not stored";
  out << "\n";
}

// "unfinished: 12 prefixes kept with 9000 tokens; 700 tokens continued, 30 drawn twice": where
// there is any.
void AddUnfinished(std::ostream& out, const json& document) {
  const json tokens = document.value("tokens", json::object());
  const json partials = document.value("partials", json::object());
  auto number = [](const json& of, const char* name) {
    return static_cast<std::uint64_t>(of.value(name, 0.0));
  };
  const std::uint64_t kept = number(partials, "now"), continued = number(tokens, "continued");
  const std::uint64_t twice = number(tokens, "generated_twice");
  if (kept + continued + twice == 0) return;
  out << "unfinished: " << kept << " prefixes kept with " << number(partials, "tokens")
      << " tokens; " << continued << " tokens continued, " << twice << " drawn twice\n";
}

// Alarms and warnings; by kind, the most frequent first.
void AddFaults(std::ostream& out, const json& document) {
  const json faults = document.value("faults", json::object());
  out << "alarms " << faults.value("alarms", 0) << "  warnings " << faults.value("warnings", 0)
      << "  mismatched tokens " << document.value("mismatched_tokens", 0) << "  staleness "
      << document.value("staleness_max", 0) << "\n";
  std::vector<std::pair<std::int64_t, std::string>> kinds;
  const json by_kind = faults.value("by_kind", json::object());
  for (const auto& [kind, count] : by_kind.items())
    kinds.emplace_back(-count.get<std::int64_t>(), kind);
  std::ranges::sort(kinds);
  std::string text;
  for (const auto& [negative, kind] : kinds) {
    text += (text.empty() ? "" : ", ") + Visible(kind) + " " + std::to_string(-negative);
  }
  if (!text.empty()) out << "faults: " << text << "\n";
  const std::string last = faults.value("last", "");
  if (!last.empty()) out << "last fault: " << Visible(last) << "\n";
}

}  // namespace

std::string StatusText(const json& status) {
  std::ostringstream out;
  out << Visible(ProgressLine(status)) << "\n";
  const std::string paused = status.value("paused", "");
  if (!paused.empty()) {
    out << "PAUSED: " << Visible(paused) << "; nothing is lost, goes on by itself once it can\n";
  }
  if (status.value("draining", false)) out << "stopping: no new work is handed out\n";
  AddPeers(out, status, "actors");
  AddPeers(out, status, "learners");
  AddLeases(out, status);
  AddCredits(out, status);
  AddKept(out, status);
  AddUnfinished(out, status);
  AddQueues(out, status);
  AddLedger(out, status);
  AddEvaluations(out, status);
  AddFaults(out, status);
  return out.str();
}

std::string SummaryText(const json& summary) {
  std::ostringstream out;
  out << (summary.value("finished", false) ? "finished" : "ended") << " after "
      << summary.value("steps", 0) << " steps\n";
  AddLedger(out, summary);
  AddEvaluations(out, summary);
  AddFaults(out, summary);
  return out.str();
}

}  // namespace thresher::launch
