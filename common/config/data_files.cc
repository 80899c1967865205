#include "common/config/data_files.h"

#include <algorithm>
#include <utility>

namespace thresher {
namespace {

constexpr std::uint32_t kMostWeight = 10000;
constexpr std::size_t kMostPaths = 64;

std::vector<std::string> Parts(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0;;) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    std::string part = text.substr(begin, end - begin);
    part.erase(0, part.find_first_not_of(' '));
    part.erase(part.find_last_not_of(' ') + 1);
    parts.push_back(std::move(part));
    if (end == text.size()) return parts;
    begin = end + 1;
  }
}

bool IsNumber(const std::string& text) {
  return !text.empty() && text.size() <= 9 && text.find_first_not_of("0123456789") == text.npos;
}

}  // namespace

Result<std::vector<WeightedPath>> ParseWeightedPaths(const std::string& text) {
  std::vector<WeightedPath> out;
  for (const std::string& part : Parts(text)) {
    WeightedPath path{part, 1};
    const std::size_t colon = part.rfind(':');
    if (colon != part.npos && IsNumber(part.substr(colon + 1))) {
      path.path = part.substr(0, colon);
      path.weight = static_cast<std::uint32_t>(std::stoul(part.substr(colon + 1)));
    }
    if (path.path.empty()) return InvalidArgument("an empty path; allowed: PATH or PATH:WEIGHT");
    if (path.weight < 1 || path.weight > kMostWeight) {
      return InvalidArgument("weight " + std::to_string(path.weight) + " of " + path.path +
                             "; allowed: 1 to " + std::to_string(kMostWeight));
    }
    if (std::ranges::find(out, path.path, &WeightedPath::path) != out.end()) {
      return InvalidArgument(path.path + " twice; allowed: each once, with a weight");
    }
    out.push_back(std::move(path));
  }
  if (out.size() > kMostPaths) {
    return InvalidArgument(std::to_string(out.size()) + " paths; allowed: at most " +
                           std::to_string(kMostPaths));
  }
  return out;
}

bool IsChatRole(std::string_view role) {
  return std::ranges::find(kChatRoles, role) != kChatRoles.end();
}

Result<std::set<std::string>> ParseRoles(const std::string& text) {
  std::set<std::string> out;
  for (std::string& part : Parts(text)) {
    if (!IsChatRole(part) || !out.insert(part).second) {
      return InvalidArgument("role '" + part + "'; allowed: each of " + kChatRolesText +
                             " at most once");
    }
  }
  return out;
}

}  // namespace thresher
