#include <algorithm>
#include <numeric>

#include "common/config/schema.h"

namespace thresher::config_internal {
namespace {

std::string LastPart(const std::string& path) {
  std::size_t dot = path.rfind('.');
  return dot == std::string::npos ? path : path.substr(dot + 1);
}

}  // namespace

int EditDistance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      int replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

std::string SuggestKeys(const std::string& unknown_path) {
  if (unknown_path.size() > 200) return "";
  std::string leaf = LastPart(unknown_path);
  // A third of the letters may be wrong, but never all of a short name.
  int best = std::clamp(static_cast<int>(leaf.size()) / 3, 1, 4);
  std::vector<std::string> nearest;
  for (const KeySpec& key : Schema()) {
    // The right key in the wrong section counts as one mistake.
    int distance =
        std::min(EditDistance(unknown_path, key.path), 1 + EditDistance(leaf, LastPart(key.path)));
    if (distance > best) continue;
    if (distance < best) nearest.clear();
    best = distance;
    nearest.push_back(key.path);
  }
  std::string out;
  for (std::size_t i = 0; i < std::min<std::size_t>(nearest.size(), 3); ++i) {
    out += (i == 0 ? "" : " or ") + nearest[i];
  }
  return out;
}

}  // namespace thresher::config_internal
