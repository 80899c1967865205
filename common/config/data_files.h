#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace thresher {

struct WeightedPath {
  std::string path;
  std::uint32_t weight = 1;
  friend bool operator==(const WeightedPath&, const WeightedPath&) = default;
};

// "a.jsonl", "a.jsonl:3,b.jsonl:1". Error: kInvalidArgument (empty path, the same one twice, a
// weight of 0 or over 10000, more than 64 of them).
Result<std::vector<WeightedPath>> ParseWeightedPaths(const std::string& text);

// Who may speak in a conversation, and all of them for people.
inline constexpr std::array<std::string_view, 4> kChatRoles = {"system", "user", "assistant",
                                                               "tool"};
inline constexpr char kChatRolesText[] = "system, user, assistant, tool";
bool IsChatRole(std::string_view role);

// "assistant", "assistant,user". Error: kInvalidArgument with the allowed ones.
Result<std::set<std::string>> ParseRoles(const std::string& text);

}  // namespace thresher
