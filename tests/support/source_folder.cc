#include "tests/support/source_folder.h"

namespace thresher {

std::filesystem::path SourceFolder() { return THRESHER_SOURCE_FOLDER; }

}  // namespace thresher
