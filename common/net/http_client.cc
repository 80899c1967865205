#include <httplib.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <csignal>

#include "common/net/http.h"
#include "common/net/http_common.h"

namespace thresher::net {
namespace {

constexpr std::size_t kMaxBytes = 64u << 20;

// httplib writes without MSG_NOSIGNAL: a server that closes early would end the process.
class SigpipeBlocked {
 public:
  SigpipeBlocked() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~SigpipeBlocked() {
    timespec now{};
    while (::sigtimedwait(&pipe_, nullptr, &now) == SIGPIPE) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  SigpipeBlocked(const SigpipeBlocked&) = delete;
  SigpipeBlocked& operator=(const SigpipeBlocked&) = delete;

 private:
  sigset_t pipe_, before_;
};

Status StatusOf(int code, const std::string& what, const std::string& body) {
  std::string text = what + ": HTTP " + std::to_string(code) + ": " + body.substr(0, 200);
  if (code == 401 || code == 403) return PermissionDenied(text);
  if (code == 404) return NotFound(text);
  return Unavailable(text);
}

}  // namespace

Result<std::string> HttpGet(const std::string& address, const std::string& path,
                            const std::string& token, int timeout_ms) {
  THRESHER_ASSIGN_OR_RETURN(HostAndPort where, ParseHostAndPort(address));
  SigpipeBlocked no_sigpipe;
  auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  httplib::Client client(where.host, where.port);
  client.set_connection_timeout(std::chrono::milliseconds(timeout_ms));
  client.set_read_timeout(std::chrono::milliseconds(timeout_ms));
  client.set_write_timeout(std::chrono::milliseconds(timeout_ms));
  std::string body;
  bool late = false, long_body = false;
  auto receive = [&](const char* data, std::size_t size) {
    late = std::chrono::steady_clock::now() > deadline;
    long_body = body.size() + size > kMaxBytes;
    if (!late && !long_body) body.append(data, size);
    return !late && !long_body;
  };
  std::string what = "GET http://" + address + path;
  auto result = client.Get(path, {{"Authorization", "Bearer " + token}}, receive);
  if (long_body) return OutOfRange(what + ": longer than " + std::to_string(kMaxBytes) + " bytes");
  if (!result) {
    std::string text = what + ": " + httplib::to_string(result.error());
    late = late || std::chrono::steady_clock::now() >= deadline;
    return late ? DeadlineExceeded(text) : Unavailable(text);
  }
  if (result->status != 200) return StatusOf(result->status, what, body);
  return body;
}

}  // namespace thresher::net
