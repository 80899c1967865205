#include <httplib.h>
#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "common/base/check.h"
#include "common/net/http.h"
#include "common/net/http_common.h"
#include "common/net/secret_file.h"
#include "common/sync/named_thread.h"

namespace thresher::net {
namespace {

constexpr int kThreads = 4;
constexpr std::size_t kMaxWaiting = 64;
constexpr int kSocketTimeoutS = 5;
// What a page may do: only what this server itself serves. Text that models wrote stays text.
constexpr const char* kContentPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src "
    "'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

// A fixed number of threads behind a bounded queue. When it is full the acceptor waits, and new
// connections stay in the kernel's backlog.
class BoundedTasks : public httplib::TaskQueue {
 public:
  BoundedTasks() {
    for (int i = 0; i < kThreads; ++i) {
      threads_.emplace_back("http-" + std::to_string(i), [this](std::stop_token) { Work(); });
    }
  }

  void enqueue(std::function<void()> task) override {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return tasks_.size() < kMaxWaiting; });
    tasks_.push_back(std::move(task));
    work_.notify_one();
  }

  void shutdown() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    for (NamedThread& thread : threads_) thread.Join();
  }

 private:
  void Work() {
    while (true) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        work_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      room_.notify_one();
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable work_, room_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<NamedThread> threads_;
};

void Answer(httplib::Response& response, int status, const std::string& text) {
  response.status = status;
  response.set_content(text + "\n", "text/plain; charset=utf-8");
}

void SetSecurityHeaders(httplib::Response& response) {
  response.set_header("Content-Security-Policy", kContentPolicy);
  response.set_header("X-Content-Type-Options", "nosniff");
  response.set_header("X-Frame-Options", "DENY");
  response.set_header("Referrer-Policy", "no-referrer");  // the address may hold the token
  response.set_header("Cache-Control", "no-store");
  response.set_header("Cross-Origin-Resource-Policy", "same-origin");
}

class HttplibServer : public HttpServer {
 public:
  HttplibServer(HostAndPort where, std::string token, std::map<std::string, HttpHandler> handlers)
      : where_(std::move(where)), token_(std::move(token)), handlers_(std::move(handlers)) {
    server_.new_task_queue = [] { return new BoundedTasks; };
    server_.set_keep_alive_max_count(1);  // an idle connection never holds a thread
    server_.set_read_timeout(kSocketTimeoutS);
    server_.set_write_timeout(kSocketTimeoutS);
    server_.set_payload_max_length(0);
    // Not httplib's default, which adds SO_REUSEPORT and so never sees a busy port.
    server_.set_socket_options([](socket_t fd) {
      int yes = 1;
      ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    server_.set_pre_routing_handler(
        [this](const httplib::Request& request, httplib::Response& response) {
          Handle(request, response);
          return httplib::Server::HandlerResponse::Handled;
        });
    server_.set_exception_handler(
        [](const httplib::Request&, httplib::Response& response, std::exception_ptr) {
          Answer(response, 500, "internal error");
        });
  }

  ~HttplibServer() override {
    if (!thread_.joinable()) return;
    server_.stop();
    thread_.Join();
  }

  Status Listen() {
    bool bound = false;
    if (where_.port == 0) {
      where_.port = server_.bind_to_any_port(where_.host);
      bound = where_.port > 0;
    } else {
      bound = server_.bind_to_port(where_.host, where_.port);
    }
    if (!bound)
      return Unavailable(address() + ": cannot listen there: in use, or not of this machine");
    thread_ = NamedThread("http", [this](std::stop_token) { server_.listen_after_bind(); });
    // stop() has no effect before the loop runs.
    while (!server_.is_running()) std::this_thread::yield();
    return Status::Ok();
  }

  std::string address() const override { return FormatHostAndPort(where_.host, where_.port); }

 private:
  void Handle(const httplib::Request& request, httplib::Response& response) const {
    SetSecurityHeaders(response);
    if (!HostAllowed(request)) return Answer(response, 403, "foreign Host or Origin");
    if (!TokenMatches(request)) {
      response.set_header("WWW-Authenticate", "Bearer");
      return Answer(response, 401, "the run's token is missing or wrong");
    }
    if (request.method != "GET" && request.method != "HEAD")
      return Answer(response, 405, "GET only");
    if ((request.has_header("Content-Length") &&
         request.get_header_value("Content-Length") != "0") ||
        request.has_header("Transfer-Encoding")) {
      return Answer(response, 413, "no body expected");
    }
    auto handler = handlers_.find(request.path);
    if (handler == handlers_.end()) return Answer(response, 404, "no such page");
    HttpResponse out = handler->second(request.path);
    response.status = out.status;
    response.set_content(out.body, out.content_type);
  }

  // Names other than localhost are refused: a page of a foreign site whose name was pointed at this
  // machine (DNS rebinding) would carry its own.
  bool HostAllowed(const httplib::Request& request) const {
    if (request.get_header_value_count("Host") != 1) return false;
    std::string text = request.get_header_value("Host");
    bool has_port = text.find(':') != std::string::npos && !text.ends_with(']');
    Result<HostAndPort> host = ParseHostAndPort(has_port ? text : text + ":80");
    if (!host.ok()) return false;
    if (host->host != "localhost" && host->host != where_.host && !IsLocalAddress(host->host))
      return false;
    std::size_t origins = request.get_header_value_count("Origin");
    if (origins == 0) return true;
    return origins == 1 && request.get_header_value("Origin") == "http://" + text;
  }

  bool TokenMatches(const httplib::Request& request) const {
    constexpr std::string_view kScheme = "Bearer ";
    std::string given = request.get_header_value("Authorization");
    if (given.starts_with(kScheme)) {
      given = given.substr(kScheme.size());
    } else {
      given = request.get_param_value("token");
    }
    return EqualInConstantTime(given, token_);
  }

  HostAndPort where_;
  std::string token_;
  std::map<std::string, HttpHandler> handlers_;
  httplib::Server server_;
  NamedThread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address,
                                                      const std::string& token,
                                                      std::map<std::string, HttpHandler> handlers) {
  THRESHER_ASSIGN_OR_RETURN(HostAndPort where, ParseHostAndPort(address));
  if (token.empty()) return InvalidArgument("an HTTP server without a token");
  auto server = std::make_unique<HttplibServer>(where, token, std::move(handlers));
  THRESHER_RETURN_IF_ERROR(server->Listen());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace thresher::net
