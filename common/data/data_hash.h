#pragma once

#include <cstdint>
#include <string>

#include "common/base/ids.h"

namespace thresher {

// What a file or folder that a run learns from is known by: written into the manifest when the run
// is made, compared whenever it is opened again.
struct DataHash {
  std::string key;   // supervised.file, supervised.eval_file, supervised.run
  std::string path;  // where it lay when the run was made; may change
  std::uint32_t weight = 1;
  Hash128 hash;  // of the file's bytes; of the ids and content hashes of a run's trajectories
  friend bool operator==(const DataHash&, const DataHash&) = default;
};

}  // namespace thresher
