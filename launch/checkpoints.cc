#include "launch/checkpoints.h"

#include <algorithm>
#include <cstdio>

namespace thresher::launch {

std::vector<std::filesystem::path> ListCheckpoints(const std::filesystem::path& run) {
  std::vector<std::pair<unsigned, std::filesystem::path>> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(run / "checkpoints", error)) {
    std::string name = entry.path().filename().string();
    unsigned step = 0;
    int used = 0;
    if (std::sscanf(name.c_str(), "step_%u%n", &step, &used) != 1) continue;
    if (static_cast<std::size_t>(used) == name.size()) found.emplace_back(step, entry.path());
  }
  std::sort(found.begin(), found.end());
  std::vector<std::filesystem::path> out;
  for (auto& [step, path] : found) out.push_back(std::move(path));
  return out;
}

bool IsRunDirectory(const std::filesystem::path& folder) {
  std::error_code error;
  return std::filesystem::exists(folder / "manifest.json", error) &&
         std::filesystem::exists(folder / "config.yaml", error);
}

}  // namespace thresher::launch
