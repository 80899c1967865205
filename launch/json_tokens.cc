#include "launch/json_tokens.h"

#include <nlohmann/json.hpp>

namespace thresher::launch {

Result<std::vector<std::int32_t>> TokensFromJson(const nlohmann::json& value,
                                                 const std::string& key) {
  const std::string allowed = "; allowed: an array of integers";
  if (!value.is_array()) return InvalidArgument(key + " is " + value.dump() + allowed);
  std::vector<std::int32_t> tokens;
  for (const auto& token : value) {
    if (!token.is_number_integer()) {
      return InvalidArgument(key + " has " + token.dump() + allowed);
    }
    const auto id = token.get<std::int64_t>();
    tokens.push_back(id >= 0 && id <= INT32_MAX ? static_cast<std::int32_t>(id) : -1);
  }
  return tokens;
}

}  // namespace thresher::launch
