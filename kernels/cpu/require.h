#pragma once

#include <cstdio>
#include <cstdlib>

namespace thresher::kernels {

// A precondition of a kernel: a bug of the caller ends the process, in every build type. (kernels
// depends on nothing of the project, so not on common/base/check.h.)
inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "kernels: precondition violated: %s\n", what);
  std::abort();
}

}  // namespace thresher::kernels
