#include <utility>

#include "common/net/socket.h"

namespace thresher::net {
namespace {

thread_local Transport* current = nullptr;

}  // namespace

Transport* CurrentTransport() { return current; }

Transport* SubstituteTransport(Transport* transport) { return std::exchange(current, transport); }

}  // namespace thresher::net
