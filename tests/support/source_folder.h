#pragma once

#include <filesystem>

namespace thresher {

// The checkout that the tests were built from. __FILE__ does not tell: a compiler's cache may have
// compiled the file in another one.
std::filesystem::path SourceFolder();

}  // namespace thresher
