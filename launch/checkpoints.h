#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace thresher::launch {

// RUN/checkpoints/step_NNNNNN, ascending; unfinished ones (temporary names) are left out.
std::vector<std::filesystem::path> ListCheckpoints(const std::filesystem::path& run);

// Whether `folder` is a run directory: it holds manifest.json and config.yaml.
bool IsRunDirectory(const std::filesystem::path& folder);

}  // namespace thresher::launch
