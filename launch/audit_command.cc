#include <iostream>
#include <nlohmann/json.hpp>

#include "launch/audit.h"
#include "launch/commands.h"

namespace thresher::launch {
namespace {

using nlohmann::json;

json ToJson(const AuditReport& report) {
  json streams = json::object();
  for (int s = 0; s < kStreamCount; ++s) {
    const auto& c = report.streams[static_cast<std::size_t>(s)];
    if (c.issued == 0) continue;
    streams[StreamName(static_cast<Stream>(s))] = {
        {"issued", c.issued},       {"accepted", c.accepted}, {"trained", c.trained},
        {"evaluated", c.evaluated}, {"dropped", c.dropped},   {"held", c.held}};
  }
  return {{"sound", report.problem_count == 0},
          {"problem_count", report.problem_count},
          {"problems", report.problems},
          {"streams", streams},
          {"finished", report.finished},
          {"committed_steps", report.committed_steps},
          {"first_record", report.first_record},
          {"journal_records", report.journal_records},
          {"stored_trajectories", report.stored_trajectories},
          {"not_stored", report.not_stored},
          {"audited_tokens", report.audited_tokens},
          {"mismatched_tokens", report.mismatched_tokens},
          {"nondeterministic", report.nondeterministic},
          {"heldout_overlap", report.heldout_overlap}};
}

void PrintText(const AuditReport& report) {
  for (int s = 0; s < kStreamCount; ++s) {
    const auto& c = report.streams[static_cast<std::size_t>(s)];
    if (c.issued == 0) continue;
    std::cout << StreamName(static_cast<Stream>(s)) << ": issued " << c.issued << " = trained "
              << c.trained << " + evaluated " << c.evaluated << " + dropped " << c.dropped
              << " + held " << c.held << "\n";
  }
  std::cout << "steps " << report.committed_steps << (report.finished ? ", finished" : "")
            << "; journal records " << report.journal_records << "; stored trajectories "
            << report.stored_trajectories << "; mismatched tokens " << report.mismatched_tokens
            << " of " << report.audited_tokens << "; held-out overlap " << report.heldout_overlap
            << "\n";
  if (report.not_stored > 0) {
    std::cout << report.not_stored
              << " accepted trajectories were not stored (journal.mode off): what the journal says "
                 "of them is compared with nothing\n";
  }
  if (report.first_record > 0) {
    std::cout << "audited from journal record " << report.first_record
              << " on: older ones were deleted (journal.keep_bytes), and the state then is taken "
                 "as right\n";
  }
  for (const std::string& problem : report.problems) std::cout << "problem: " << problem << "\n";
  if (report.problem_count > report.problems.size()) {
    std::cout << "and " << report.problem_count - report.problems.size() << " more\n";
  }
  std::cout << (report.problem_count == 0 ? "sound" : "not sound") << "\n";
}

}  // namespace

int AuditCommand(const AuditOptions& options) {
  auto report = AuditRun(options.run);
  if (!report.ok()) return Report(report.status(), kExitUsage);
  if (options.json) {
    std::cout << ToJson(*report).dump(2) << "\n";
  } else {
    PrintText(*report);
  }
  return report->problem_count == 0 ? kExitOk : kExitDoesNotHold;
}

}  // namespace thresher::launch
