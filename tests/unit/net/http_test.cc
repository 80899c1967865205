#include "common/net/http.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace thresher::net {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr int kTimeoutMs = 5000;

// A peer of its own kind: sends `request` as it is and returns all that comes back.
std::string Raw(const std::string& address, const std::string& request, bool half_close = false) {
  int port = std::stoi(address.substr(address.rfind(':') + 1));
  int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  timeval limit{10, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  (void)!::send(fd, request.data(), request.size(), MSG_NOSIGNAL);
  if (half_close) ::shutdown(fd, SHUT_WR);  // says that a line without an end stays so
  std::string all;
  char part[4096];
  for (ssize_t got; (got = ::recv(fd, part, sizeof part, 0)) > 0;)
    all.append(part, static_cast<std::size_t>(got));
  ::close(fd);
  return all;
}

class HttpTest : public ::testing::Test {
 protected:
  HttpTest() {
    std::map<std::string, HttpHandler> handlers;
    handlers["/status"] = [](const std::string&) {
      return HttpResponse{200, "application/json", "{\"ok\":true}"};
    };
    handlers["/fails"] = [](const std::string&) {
      return HttpResponse{503, "text/plain", "later"};
    };
    handlers["/slow"] = [this](const std::string&) {
      while (!release_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return HttpResponse{};
    };
    auto server = HttpServer::Start("127.0.0.1:0", "secret", std::move(handlers));
    EXPECT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(server).value();
  }
  ~HttpTest() override { release_ = true; }

  std::string Get(const std::string& target, const std::string& headers) {
    return Raw(server_->address(), "GET " + target + " HTTP/1.1\r\n" + headers + "\r\n");
  }
  std::string Host() { return "Host: " + server_->address() + "\r\n"; }

  std::atomic<bool> release_ = false;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpTest, AnswersWithTheToken) {
  EXPECT_EQ(HttpGet(server_->address(), "/status", "secret", kTimeoutMs).value(), "{\"ok\":true}");
  EXPECT_THAT(Get("/status?token=secret", Host()), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Get("/status", Host() + "Authorization: Bearer secret\r\n"),
              StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpTest, RefusesWithoutOrWithAWrongToken) {
  EXPECT_EQ(HttpGet(server_->address(), "/status", "wrong", kTimeoutMs).status().code(),
            StatusCode::kPermissionDenied);
  for (const char* headers : {"", "Authorization: Bearer \r\n", "Authorization: Bearer secretx\r\n",
                              "Authorization: Bearer secre\r\n", "Authorization: Basic secret\r\n",
                              "X-Token: secret\r\n"}) {
    std::string answer = Get("/status", Host() + headers);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 401")) << headers;
    EXPECT_THAT(answer, Not(HasSubstr("ok\":true")));
  }
  EXPECT_THAT(Get("/status?token=", Host()), StartsWith("HTTP/1.1 401"));
  // A page that does not exist says nothing to a stranger either.
  EXPECT_THAT(Get("/nothing", Host()), StartsWith("HTTP/1.1 401"));
}

TEST_F(HttpTest, RefusesForeignHostsAndOrigins) {
  const std::string port = server_->address().substr(server_->address().rfind(':'));
  for (const std::string& host :
       {std::string("evil.example"), "evil.example" + port, std::string("203.0.113.7"),
        std::string("127.0.0.1.evil.example"), std::string(""), std::string("localhost:x")}) {
    EXPECT_THAT(Get("/status?token=secret", "Host: " + host + "\r\n"), StartsWith("HTTP/1.1 403"))
        << host;
  }
  EXPECT_THAT(Get("/status?token=secret", ""), StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(Get("/status?token=secret", Host() + "Host: evil.example\r\n"),
              StartsWith("HTTP/1.1 403"));
  for (const char* origin : {"http://evil.example", "null", "https://127.0.0.1"}) {
    EXPECT_THAT(Get("/status?token=secret", Host() + "Origin: " + origin + "\r\n"),
                StartsWith("HTTP/1.1 403"))
        << origin;
  }
  EXPECT_EQ(Get("/status?token=secret", "Host: evil.example\r\n").find("ok\":true"),
            std::string::npos);
  EXPECT_THAT(Get("/status?token=secret", Host() + "Origin: http://" + server_->address() + "\r\n"),
              StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Get("/status?token=secret", "Host: localhost" + port + "\r\n"),
              StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpTest, UnknownPathsAndFailuresHaveTheirCodes) {
  EXPECT_EQ(HttpGet(server_->address(), "/nothing", "secret", kTimeoutMs).status().code(),
            StatusCode::kNotFound);
  EXPECT_EQ(HttpGet(server_->address(), "/status/", "secret", kTimeoutMs).status().code(),
            StatusCode::kNotFound);
  Status status = HttpGet(server_->address(), "/fails", "secret", kTimeoutMs).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("503: later"));
}

TEST_F(HttpTest, OnlyReadsAndNoBodies) {
  std::string head = " /status?token=secret HTTP/1.1\r\n" + Host();
  EXPECT_THAT(Raw(server_->address(), "POST" + head + "Content-Length: 3\r\n\r\nabc"),
              StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Raw(server_->address(), "DELETE" + head + "\r\n"), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Raw(server_->address(), "GET" + head + "Content-Length: 3\r\n\r\nabc"),
              StartsWith("HTTP/1.1 413"));
  std::string answer = Raw(server_->address(), "HEAD" + head + "\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, Not(HasSubstr("ok\":true")));
}

TEST_F(HttpTest, AnswersCarryTheContentPolicy) {
  for (const char* target : {"/status?token=secret", "/status"}) {
    std::string answer = Get(target, Host());
    EXPECT_THAT(answer, HasSubstr("Content-Security-Policy: default-src 'none'"));
    EXPECT_THAT(answer, HasSubstr("X-Content-Type-Options: nosniff"));
    EXPECT_THAT(answer, HasSubstr("Referrer-Policy: no-referrer"));
  }
}

TEST_F(HttpTest, ForeignBytesAndLongRequestsDoNotStopIt) {
  for (const std::string& bytes :
       {std::string("\xff\0\1garbage\r\n\r\n", 12), std::string(100000, 'A'),
        "GET /" + std::string(20000, 'a') + " HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nX: " + std::string(20000, 'b') + "\r\n\r\n",
        std::string("GET /%zz?%=&token HTTP/9\r\n\r\n")}) {
    EXPECT_THAT(Raw(server_->address(), bytes, /*half_close=*/true), Not(HasSubstr("200 OK")));
  }
  EXPECT_TRUE(HttpGet(server_->address(), "/status", "secret", kTimeoutMs).ok());
}

TEST_F(HttpTest, MoreRequestsThanThreadsAreAllAnswered) {
  std::vector<std::jthread> clients;
  std::atomic<int> answered = 0;
  for (int i = 0; i < 20; ++i) {
    clients.emplace_back(
        [&] { answered += HttpGet(server_->address(), "/slow", "secret", 20000).ok(); });
  }
  release_ = true;
  clients.clear();
  EXPECT_EQ(answered, 20);
}

TEST_F(HttpTest, TheClientKeepsItsDeadline) {
  auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(HttpGet(server_->address(), "/slow", "secret", 100).status().code(),
            StatusCode::kDeadlineExceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(4));
}

TEST_F(HttpTest, NobodyThereIsUnavailable) {
  std::string address = server_->address();
  server_.reset();
  EXPECT_EQ(HttpGet(address, "/status", "secret", 2000).status().code(), StatusCode::kUnavailable);
}

TEST_F(HttpTest, BusyPortsAndBadAddressesAreRefused) {
  Status busy = HttpServer::Start(server_->address(), "t", {}).status();
  EXPECT_EQ(busy.code(), StatusCode::kUnavailable);
  EXPECT_THAT(busy.message(), HasSubstr(server_->address()));
  for (const char* address :
       {"", "127.0.0.1", "127.0.0.1:x", ":80", "127.0.0.1:70000", "::1:80", "a b:1"}) {
    EXPECT_EQ(HttpServer::Start(address, "t", {}).status().code(), StatusCode::kInvalidArgument)
        << address;
    EXPECT_EQ(HttpGet(address, "/", "t", 100).status().code(), StatusCode::kInvalidArgument)
        << address;
  }
  EXPECT_EQ(HttpServer::Start("127.0.0.1:0", "", {}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace thresher::net
