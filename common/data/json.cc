#include "common/data/json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace thresher {
namespace {

// Deeper than any file of the project nests; bounds what a hostile one can build.
constexpr int kMaxDepth = 32;

struct Refused {
  std::string problem;
};

}  // namespace

Result<nlohmann::json> ParseJson(std::string_view text) {
  std::vector<std::set<std::string>> keys;  // of the objects being read, outermost first
  auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth > kMaxDepth) throw Refused{"nests deeper than " + std::to_string(kMaxDepth)};
    if (event == nlohmann::json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == nlohmann::json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == nlohmann::json::parse_event_t::key) {
      std::string key = parsed.get<std::string>();
      if (!keys.back().insert(key).second) {
        throw Refused{"key '" + key + "' stands twice in an object"};
      }
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), watch);
  } catch (const Refused& refused) {
    return DataLoss(refused.problem);
  } catch (const nlohmann::json::exception& error) {
    return DataLoss(error.what());
  }
}

}  // namespace thresher
