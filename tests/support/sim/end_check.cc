#include "tests/support/sim/end_check.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "broker/recovery.h"
#include "common/data/files.h"
#include "launch/audit.h"

namespace thresher::sim {
namespace {

using nlohmann::json;

// Alarms of events.jsonl that no disturbance explains.
std::string Alarms(const std::filesystem::path& run) {
  auto text = ReadFile(run / "events.jsonl");
  if (!text.ok()) return "events.jsonl: " + text.status().ToString() + "\n";
  std::string alarms;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    // A power cut may have left anything where nothing was synced.
    const json event = json::parse(line, nullptr, false);
    if (!event.is_object() || event.value("level", "") != "alarm") continue;
    if (event.value("event", "") == "paused") continue;
    alarms += "alarm: " + event.value("event", "") + ": " + event.value("detail", "") + "\n";
  }
  return alarms;
}

std::string CheckFold(const std::filesystem::path& run, const Config& config) {
  auto recovered = broker::Recover(run, Plan(config), {.bytes_may_be_lost = config.journal.off()});
  if (!recovered.ok()) return "the journal: " + recovered.status().ToString() + "\n";
  const broker::RunState& state = recovered->state;
  std::string text;
  if (!state.finished()) text += "the journal tells of no end\n";
  const Status balanced = state.ledger().Check(state.groups().CountHeld());
  if (!balanced.ok()) text += "the ledger: " + balanced.ToString() + "\n";
  return text;
}

std::string CheckAudit(const std::filesystem::path& run) {
  auto report = launch::AuditRun(run);
  if (!report.ok()) return "the audit: " + report.status().ToString() + "\n";
  std::string text;
  for (const std::string& problem : report->problems) text += "audit: " + problem + "\n";
  if (report->mismatched_tokens > 0) text += "audit: tokens that do not match\n";
  if (report->nondeterministic > 0) text += "audit: outcomes that depend on a clock\n";
  return text;
}

}  // namespace

Result<RunResult> ReadResult(const std::filesystem::path& run) {
  THRESHER_ASSIGN_OR_RETURN(std::string text, ReadFile(run / "summary.json"));
  const json summary = json::parse(text, nullptr, false);
  if (!summary.is_object()) return DataLoss("summary.json is no object");
  RunResult result;
  for (const char* key : {"final", "final_chain", "final_state_hash", "evals"}) {
    json value = summary.value(key, json());
    if (value.is_object()) value.erase("stored");  // how many files are kept is a setting
    result.text += std::string(key) + " " + value.dump() + "\n";
  }
  return result;
}

std::string CheckEnd(const std::filesystem::path& run, const Config& config,
                     const RunResult& expected) {
  std::string text = CheckFold(run, config) + CheckAudit(run) + Alarms(run);
  auto result = ReadResult(run);
  if (!result.ok()) {
    text += "the result: " + result.status().ToString() + "\n";
  } else if (*result != expected) {
    text += "the result differs from that of the undisturbed run:\n" + result->text +
            "expected:\n" + expected.text;
  }
  return text;
}

}  // namespace thresher::sim
