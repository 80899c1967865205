#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/base/status.h"

namespace thresher::net {

// The HTTP adapter (cpp-httplib). Every request needs the run's token, as `Authorization: Bearer`
// or `?token=`, compared in constant time (401). Host must be the bound address, localhost or an IP
// literal of this machine, and an Origin must be that host: else 403. GET and HEAD only (405), no
// bodies (413), addresses and header lines up to 8 KiB. Pages get a strict content policy. Four
// threads serve; 64 connections wait at most, further ones in the kernel's backlog.
struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};
using HttpHandler = std::function<HttpResponse(const std::string& path)>;

class HttpServer {
 public:
  // Serves exact paths on its own threads; handlers must be thread-safe and may not throw (500).
  // address: "127.0.0.1:0", "[::1]:8080"; port 0: any free one. Errors: kUnavailable (address in
  // use), kInvalidArgument (address, empty token).
  static Result<std::unique_ptr<HttpServer>> Start(const std::string& address,
                                                   const std::string& token,
                                                   std::map<std::string, HttpHandler> handlers);
  virtual ~HttpServer() = default;          // stops and joins
  virtual std::string address() const = 0;  // "127.0.0.1:41234"
};

// GET with a deadline over all of it; at most 64 MiB. Errors: kInvalidArgument (address),
// kUnavailable (nobody answers, 5xx), kDeadlineExceeded, kPermissionDenied (401, 403), kNotFound
// (404), kOutOfRange (too long).
Result<std::string> HttpGet(const std::string& address, const std::string& path,
                            const std::string& token, int timeout_ms);

// RUN/token: 32 random bytes in hexadecimal, mode 0600, made when missing. Errors:
// kPermissionDenied (mode or owner), kDataLoss (not a token), kUnavailable (cannot be written).
Result<std::string> LoadOrCreateToken(const std::string& run_folder);

}  // namespace thresher::net
