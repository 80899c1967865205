#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace thresher::launch {

// Token ids out of a JSON array of integers called `key`. An integer that fits no id of any model
// becomes -1, for whoever knows the vocabulary to refuse. Error: kInvalidArgument.
Result<std::vector<std::int32_t>> TokensFromJson(const nlohmann::json& value,
                                                 const std::string& key);

}  // namespace thresher::launch
