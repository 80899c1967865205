#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

#include "common/base/ids.h"
#include "common/base/status.h"

namespace thresher {

// Reads all records of a trajectory store (trajectory_store.h) in file order from its segments
// alone: memory is one segment and one block, whatever the size of the store. May run beside the
// writer. A callback's error ends the reading and is returned. Errors: kNotFound (no folder),
// kDataLoss naming file and record.
Status ScanTrajectories(
    const std::filesystem::path& folder,
    const std::function<Status(const TrajectoryId&, std::string_view bytes)>& callback);

}  // namespace thresher
