#include <iostream>

#include "launch/commands.h"

namespace thresher::launch {

int Report(const Status& status, int code) {
  std::cerr << "thresher: " << status.ToString() << "\n";
  return code;
}

}  // namespace thresher::launch
