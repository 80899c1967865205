#pragma once

namespace thresher {

// What this program was built from. CMake target thresher_build_info; the strings live as long as
// the process.
struct BuildInfo {
  const char* version;     // "0.1.0"
  const char* revision;    // git commit, 12 digits, "-dirty" if files differed; or "unknown"
  const char* build_type;  // "Release", "Debug+address"
  const char* compiler;    // "GNU 12.2.0"
};

const BuildInfo& GetBuildInfo();

}  // namespace thresher
