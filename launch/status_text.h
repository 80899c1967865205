#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace thresher::launch {

// status.json of a broker (docs/status.md) as a person reads it; control characters of names made
// visible. Throws json::exception when the document has another form.
std::string StatusText(const nlohmann::json& status);
// The same of summary.json, what a finished run leaves.
std::string SummaryText(const nlohmann::json& summary);

}  // namespace thresher::launch
