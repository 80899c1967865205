#pragma once

#include <string>

#include "common/base/status.h"

namespace thresher::net {

struct HostAndPort {
  std::string host;  // without brackets
  int port = 0;
};
// "127.0.0.1:80", "[::1]:80", "localhost:0". Error: kInvalidArgument.
Result<HostAndPort> ParseHostAndPort(const std::string& address);
// host:port, an IPv6 host in brackets.
std::string FormatHostAndPort(const std::string& host, int port);

// Whether `host` is an IP literal of one of this machine's interfaces.
bool IsLocalAddress(const std::string& host);

}  // namespace thresher::net
