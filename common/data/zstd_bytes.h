#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "common/base/status.h"

namespace thresher {

// One zstd frame that names its size.
Result<std::string> Zstd(std::string_view bytes, int level);
// Into *bytes, at most `limit` of them. Error: kDataLoss telling what is wrong.
Status Unzstd(std::string_view frame, std::size_t limit, std::string* bytes);

}  // namespace thresher
