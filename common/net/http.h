#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/base/status.h"

namespace thresher::net {

// The HTTP adapter (cpp-httplib). Every request needs the run's token, as `Authorization: Bearer`
// or `?token=`; compared in constant time. Host must be the bound address, localhost or an IP
// literal of this machine; a foreign Origin is refused (403).
struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};
using HttpHandler = std::function<HttpResponse(const std::string& path)>;

class HttpServer {
 public:
  // Serves exact paths on its own threads; handlers must be thread-safe. Errors: kUnavailable
  // (address in use), kInvalidArgument.
  static Result<std::unique_ptr<HttpServer>> Start(const std::string& address,
                                                   const std::string& token,
                                                   std::map<std::string, HttpHandler> handlers);
  virtual ~HttpServer() = default;      // stops and joins
  virtual std::string address() const = 0;  // "127.0.0.1:41234"
};

// GET with a deadline. Errors: kUnavailable, kDeadlineExceeded, kPermissionDenied (401, 403).
Result<std::string> HttpGet(const std::string& address, const std::string& path,
                            const std::string& token, int timeout_ms);

// RUN/token: 32 random bytes in hexadecimal, mode 0600, made when missing.
Result<std::string> LoadOrCreateToken(const std::string& run_folder);

}  // namespace thresher::net
