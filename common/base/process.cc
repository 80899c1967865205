#include "common/base/process.h"

#include <unistd.h>

#include <utility>

namespace thresher {
namespace {

thread_local const ProcessName* substitute = nullptr;

}  // namespace

ProcessName ThisProcess() {
  if (substitute != nullptr) return *substitute;
  char host[256] = {};
  const bool named = ::gethostname(host, sizeof host - 1) == 0;
  return {static_cast<std::uint32_t>(::getpid()), named ? host : "unknown"};
}

const ProcessName* SubstituteProcess(const ProcessName* name) {
  return std::exchange(substitute, name);
}

}  // namespace thresher
