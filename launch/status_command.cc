#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/net/http.h"
#include "launch/checkpoints.h"
#include "launch/commands.h"
#include "launch/farm.h"
#include "launch/status_text.h"

namespace thresher::launch {
namespace {

using nlohmann::json;

constexpr int kTimeoutMs = 5000;

bool IsAddress(const std::string& text) { return text.starts_with("http://"); }

// "http://127.0.0.1:8080/?token=T": the token may also stand in THRESHER_TOKEN.
Result<json> FetchFromAddress(const std::string& text) {
  std::string rest = text.substr(std::string("http://").size());
  std::string address = rest.substr(0, rest.find_first_of("/?"));
  std::string token;
  std::size_t at = rest.find("token=");
  if (at != std::string::npos) {
    token = rest.substr(at + 6, rest.find('&', at) - (at + 6));
  } else if (const char* variable = std::getenv("THRESHER_TOKEN")) {
    token = variable;
  }
  THRESHER_ASSIGN_OR_RETURN(std::string body,
                            net::HttpGet(address, "/status.json", token, kTimeoutMs));
  json parsed = json::parse(body, nullptr, false);
  if (!parsed.is_object()) return DataLoss(address + ": the answer is not a status");
  return parsed;
}

struct Found {
  json document;
  bool finished = false;  // a summary, not a live status
};

Result<Found> Fetch(const std::string& run) {
  if (IsAddress(run)) {
    THRESHER_ASSIGN_OR_RETURN(json status, FetchFromAddress(run));
    return Found{std::move(status), false};
  }
  if (!IsRunDirectory(run)) return NotFound(run + ": not a run directory");
  auto status = FetchStatus(run, kTimeoutMs);
  if (status.ok()) return Found{std::move(status).value(), false};
  auto summary = ReadSummary(run);
  if (summary.ok()) return Found{std::move(summary).value(), true};
  if (summary.status().code() != StatusCode::kNotFound) return summary.status();
  std::string why = status.status().code() == StatusCode::kNotFound
                        ? "no broker has announced itself"
                        : status.status().message();
  return Unavailable(run + " is not running and not finished (" + why +
                     "); to go on: thresher run CONFIG --dir " + run);
}

}  // namespace

int StatusCommand(const StatusOptions& options) {
  auto found = Fetch(options.run);
  if (!found.ok()) {
    bool usage = found.status().code() == StatusCode::kNotFound ||
                 found.status().code() == StatusCode::kInvalidArgument;
    return Report(found.status(), usage ? kExitUsage : kExitFailure);
  }
  if (options.json) {
    std::cout << found->document.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
    return kExitOk;
  }
  try {
    std::cout << (found->finished ? SummaryText(found->document) : StatusText(found->document));
  } catch (const json::exception& error) {
    return Report(DataLoss(std::string("status of another form: ") + error.what()), kExitFailure);
  }
  return kExitOk;
}

}  // namespace thresher::launch
