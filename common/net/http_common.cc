#include "common/net/http_common.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>

namespace thresher::net {

Result<HostAndPort> ParseHostAndPort(const std::string& address) {
  Status wrong =
      InvalidArgument("address '" + address + "'; allowed: HOST:PORT, such as 127.0.0.1:8080");
  std::size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return wrong;
  HostAndPort out{address.substr(0, colon), 0};
  const char* end = address.data() + address.size();
  auto [parsed, error] = std::from_chars(address.data() + colon + 1, end, out.port);
  if (error != std::errc() || parsed != end || out.port < 0 || out.port > 65535) return wrong;
  if (out.host.front() == '[') {
    if (out.host.back() != ']') return wrong;
    out.host = out.host.substr(1, out.host.size() - 2);
  } else if (out.host.find(':') != std::string::npos) {
    return wrong;
  }
  if (out.host.empty() || out.host.find_first_of(" /@\r\n") != std::string::npos) return wrong;
  return out;
}

std::string FormatHostAndPort(const std::string& host, int port) {
  bool ipv6 = host.find(':') != std::string::npos;
  return (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

bool IsLocalAddress(const std::string& host) {
  in_addr v4{};
  in6_addr v6{};
  bool is_v4 = ::inet_pton(AF_INET, host.c_str(), &v4) == 1;
  bool is_v6 = ::inet_pton(AF_INET6, host.c_str(), &v6) == 1;
  if (!is_v4 && !is_v6) return false;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return false;
  bool found = false;
  for (ifaddrs* entry = list; entry != nullptr && !found; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    if (is_v4 && entry->ifa_addr->sa_family == AF_INET) {
      found = reinterpret_cast<sockaddr_in*>(entry->ifa_addr)->sin_addr.s_addr == v4.s_addr;
    } else if (is_v6 && entry->ifa_addr->sa_family == AF_INET6) {
      found = std::memcmp(&reinterpret_cast<sockaddr_in6*>(entry->ifa_addr)->sin6_addr, &v6,
                          sizeof v6) == 0;
    }
  }
  ::freeifaddrs(list);
  return found;
}

}  // namespace thresher::net
