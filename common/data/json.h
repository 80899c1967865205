#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "common/base/status.h"

namespace thresher {

// Parses one JSON text strictly: valid UTF-8, no comments, no key twice in an object, no deeper
// than 32. Error: kDataLoss with the position or the key.
Result<nlohmann::json> ParseJson(std::string_view text);

}  // namespace thresher
