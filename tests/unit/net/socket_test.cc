#include "common/net/socket.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>
#include <zmq.hpp>

namespace thresher::net {
namespace {

using namespace std::chrono_literals;

constexpr auto kWait = 5s;

class SocketTest : public ::testing::Test {
 protected:
  SocketTest() {
    char pattern[] = "/tmp/thresher-net-XXXXXX";
    folder_ = ::mkdtemp(pattern);  // mode 0700
    keys_ = LoadOrCreateKeys(folder_ / "keys").value();
    path_ = "ipc://" + (folder_ / "broker").string();
  }
  ~SocketTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Server> BindAll(std::vector<std::string> endpoints,
                                  std::size_t max_bytes = 1 << 20) {
    ServerOptions options;
    options.endpoints = std::move(endpoints);
    options.keys = keys_;
    options.max_message_bytes = max_bytes;
    auto server = Server::Bind(options);
    EXPECT_TRUE(server.ok()) << server.status().ToString();
    return std::move(server).value();
  }

  ClientOptions Options(const std::string& endpoint, const KeyPair& key) {
    ClientOptions options;
    options.endpoint = endpoint;
    options.own_key = key;
    options.server_public_key = keys_.broker.public_key;
    return options;
  }
  std::unique_ptr<Client> ConnectTo(const std::string& endpoint, const KeyPair& key) {
    return Client::Connect(Options(endpoint, key)).value();
  }
  std::unique_ptr<Client> ConnectTo(const std::string& endpoint) {
    return ConnectTo(endpoint, keys_.actor);
  }

  // Serves until `done`; fails the test when that takes too long.
  template <typename Done>
  void ServeUntil(Server& server, Done done) {
    auto deadline = std::chrono::steady_clock::now() + kWait;
    while (!done()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      if (auto received = server.Receive(20ms)) last_ = received;
    }
  }

  std::filesystem::path folder_;
  KeyRing keys_;
  std::string path_;
  std::optional<Received> last_;
};

TEST_F(SocketTest, MessagesGoBothWaysOverIpcAndTcp) {
  auto server = BindAll({path_, "tcp://127.0.0.1:*"});
  ASSERT_EQ(server->endpoints().size(), 2u);
  for (const std::string& endpoint : server->endpoints()) {
    auto client = ConnectTo(endpoint);
    std::string bytes("hello\0\xff world", 13);
    ASSERT_TRUE(client->Send(bytes).ok());
    auto received = server->Receive(kWait);
    ASSERT_TRUE(received.has_value());
    EXPECT_EQ(received->bytes, bytes);
    EXPECT_EQ(received->key_user_id, endpoint.starts_with("ipc") ? "local" : "actor");
    ASSERT_TRUE(server->Send(received->peer, "answer").ok());
    EXPECT_EQ(client->Receive(kWait), "answer");
    ASSERT_TRUE(client->Send("").ok());  // an empty frame is a frame
    EXPECT_EQ(server->Receive(kWait)->bytes, "");
  }
  EXPECT_EQ(server->malformed(), 0u);
  EXPECT_EQ(server->refused(), 0u);
}

TEST_F(SocketTest, LongMessagesAreKeptUntilTheyHaveLeft) {
  auto server = BindAll({path_, "tcp://127.0.0.1:*"});
  for (const std::string& endpoint : server->endpoints()) {
    auto client = ConnectTo(endpoint);
    for (std::size_t size : {std::size_t{4095}, std::size_t{4096}, std::size_t{500000}}) {
      std::weak_ptr<const std::string> alive;
      {
        auto owner = std::make_shared<const std::string>(size, 'x');
        alive = owner;
        const SharedBytes bytes(owner, *owner, size);
        ASSERT_TRUE(client->Send(bytes.Slice(1, size - 1)).ok());
      }
      auto received = server->Receive(kWait);
      ASSERT_TRUE(received.has_value());
      EXPECT_EQ(received->bytes, std::string(size - 1, 'x'));
      EXPECT_GE(received->bytes.owner_bytes(), size - 1);
      ASSERT_TRUE(server->Send(received->peer, received->bytes).ok());
      EXPECT_EQ(client->Receive(kWait)->size(), size - 1);
      ServeUntil(*server, [&] { return alive.expired(); });
    }
  }
}

TEST_F(SocketTest, UserIdNamesTheRoleOfTheKey) {
  auto server = BindAll({"tcp://127.0.0.1:0"});
  const std::pair<const char*, KeyPair> roles[] = {
      {"actor", keys_.actor}, {"learner", keys_.learner}, {"tool", keys_.tool}};
  for (const auto& [role, key] : roles) {
    auto client = ConnectTo(server->endpoints()[0], key);
    ASSERT_TRUE(client->Send("x").ok());
    auto received = server->Receive(kWait);
    ASSERT_TRUE(received.has_value()) << role;
    EXPECT_EQ(received->key_user_id, role);
  }
}

TEST_F(SocketTest, KeyThatIsNotListedIsRefused) {
  auto server = BindAll({"tcp://127.0.0.1:0"});
  auto stranger = ConnectTo(server->endpoints()[0], GenerateKeyPair().value());
  ASSERT_TRUE(stranger->Send("let me in").ok());
  ServeUntil(*server, [&] { return server->refused() > 0; });
  EXPECT_FALSE(last_.has_value());
  auto friendly = ConnectTo(server->endpoints()[0]);
  ASSERT_TRUE(friendly->Send("x").ok());
  ServeUntil(*server, [&] { return last_.has_value(); });
  EXPECT_EQ(last_->bytes, "x");
}

TEST_F(SocketTest, WrongServerKeyIsRefused) {
  auto server = BindAll({"tcp://127.0.0.1:0"});
  ClientOptions options = Options(server->endpoints()[0], keys_.actor);
  options.server_public_key = GenerateKeyPair().value().public_key;
  auto client = Client::Connect(options).value();
  ASSERT_TRUE(client->Send("x").ok());
  ServeUntil(*server, [&] { return server->refused() > 0; });
  EXPECT_FALSE(last_.has_value());
}

TEST_F(SocketTest, PlainPeerAtTheTcpPortIsRefused) {
  auto server = BindAll({path_, "tcp://127.0.0.1:0"});
  zmq::context_t context;
  zmq::socket_t peer(context, zmq::socket_type::dealer);
  peer.set(zmq::sockopt::linger, 0);
  peer.connect(server->endpoints()[1]);
  peer.send(zmq::str_buffer("no key"), zmq::send_flags::none);
  ServeUntil(*server, [&] { return server->refused() > 0; });
  EXPECT_FALSE(last_.has_value());
}

TEST_F(SocketTest, ForeignBytesAreCountedAndTheServerGoesOn) {
  auto server = BindAll({"tcp://127.0.0.1:0"});
  std::string endpoint = server->endpoints()[0];
  int port = std::stoi(endpoint.substr(endpoint.rfind(':') + 1));
  const std::string texts[] = {
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n", std::string(500, '\xff'), std::string(64, '\0'),
      std::string("\xff\0\0\0\0\0\0\0\x01\x7f", 10) + "zzzz" + std::string(100, 'A')};
  std::vector<int> sockets;
  for (const std::string& text : texts) {
    int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
    sockets.push_back(fd);
  }
  ServeUntil(*server, [&] { return server->refused() >= 2; });
  for (int fd : sockets) ::close(fd);
  EXPECT_FALSE(last_.has_value());
  auto client = ConnectTo(endpoint);
  ASSERT_TRUE(client->Send("x").ok());
  ServeUntil(*server, [&] { return last_.has_value(); });
  EXPECT_EQ(last_->bytes, "x");
}

TEST_F(SocketTest, OversizedMessagesAreRefusedBySenderAndCountedByReceiver) {
  auto server = BindAll({path_}, 1000);
  auto client = ConnectTo(path_);  // believes in a larger limit
  ASSERT_TRUE(client->Send(std::string(1000, 'a')).ok());
  EXPECT_EQ(server->Receive(kWait)->bytes.size(), 1000u);
  ASSERT_TRUE(client->Send(std::string(1001, 'b')).ok());
  ServeUntil(*server, [&] { return server->malformed() == 1; });
  // Beyond the backstop ZeroMQ drops message and connection; the peer comes back by itself.
  ASSERT_TRUE(client->Send(std::string(5000, 'c')).ok());
  auto deadline = std::chrono::steady_clock::now() + kWait;
  do {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    ASSERT_TRUE(client->Send("d").ok());
    last_ = server->Receive(50ms);
  } while (!last_);
  EXPECT_EQ(last_->bytes, "d");
  EXPECT_EQ(server->Send(last_->peer, std::string(1001, 'e')).code(), StatusCode::kOutOfRange);
}

TEST_F(SocketTest, MessagesOfOtherThanTwoPartsAreCountedWhole) {
  auto server = BindAll({path_});
  zmq::context_t context;
  zmq::socket_t peer(context, zmq::socket_type::dealer);
  peer.set(zmq::sockopt::linger, 0);
  peer.connect(path_);
  peer.send(zmq::str_buffer("a"), zmq::send_flags::sndmore);
  peer.send(zmq::str_buffer("b"), zmq::send_flags::sndmore);
  peer.send(zmq::str_buffer("c"), zmq::send_flags::none);
  peer.send(zmq::str_buffer("whole"), zmq::send_flags::none);
  ServeUntil(*server, [&] { return last_.has_value(); });
  EXPECT_EQ(last_->bytes, "whole");
  EXPECT_EQ(server->malformed(), 1u);
}

TEST_F(SocketTest, SendToAGonePeerIsUnavailable) {
  auto server = BindAll({path_});
  EXPECT_EQ(server->Send("nobody", "x").code(), StatusCode::kUnavailable);
  auto client = ConnectTo(path_);
  ASSERT_TRUE(client->Send("x").ok());
  PeerAddress peer = server->Receive(kWait)->peer;
  ASSERT_TRUE(server->Send(peer, "y").ok());
  client.reset();
  ServeUntil(*server, [&] { return server->Send(peer, "z").code() == StatusCode::kUnavailable; });
}

TEST_F(SocketTest, FullQueuesAreReportedNotWaitedFor) {
  ServerOptions options;
  options.endpoints = {path_};
  options.high_water_mark = 4;
  auto server = Server::Bind(options).value();
  ClientOptions client_options = Options(path_, keys_.actor);
  client_options.high_water_mark = 4;
  auto client = Client::Connect(client_options).value();
  ASSERT_TRUE(client->Send("x").ok());
  PeerAddress peer = server->Receive(kWait)->peer;
  std::string block(500000, 'x');
  Status status;
  for (int i = 0; i < 10000 && status.ok(); ++i) status = server->Send(peer, block);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  status = Status::Ok();
  for (int i = 0; i < 10000 && status.ok(); ++i) status = client->Send(block);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
}

TEST_F(SocketTest, ClientFindsARestartedServerUnderItsOldAddress) {
  auto server = BindAll({"tcp://127.0.0.1:0"});
  std::string endpoint = server->endpoints()[0];
  auto client = ConnectTo(endpoint);
  ASSERT_TRUE(client->Send("before").ok());
  PeerAddress before = server->Receive(kWait)->peer;
  server.reset();
  server = BindAll({endpoint});
  ASSERT_TRUE(client->Send("after").ok());
  ServeUntil(*server, [&] { return last_.has_value(); });
  EXPECT_EQ(last_->bytes, "after");
  EXPECT_EQ(last_->peer, before);
}

TEST_F(SocketTest, ReconnectDropsWhatWasQueuedAndChangesTheAddress) {
  auto server = BindAll({path_});
  auto client = ConnectTo(path_);
  ASSERT_TRUE(client->Send("one").ok());
  PeerAddress before = server->Receive(kWait)->peer;
  server.reset();
  ASSERT_TRUE(client->Send("lost").ok());
  ASSERT_TRUE(client->Reconnect().ok());
  server = BindAll({path_});
  ASSERT_TRUE(client->Send("two").ok());
  ServeUntil(*server, [&] { return last_.has_value(); });
  EXPECT_EQ(last_->bytes, "two");
  EXPECT_NE(last_->peer, before);
}

TEST_F(SocketTest, HandoverGivesTheAddressToThePeersNewConnection) {
  auto server = BindAll({path_});
  zmq::context_t context;
  auto connect = [&] {
    zmq::socket_t peer(context, zmq::socket_type::dealer);
    peer.set(zmq::sockopt::linger, 0);
    peer.set(zmq::sockopt::routing_id, "the-actor");
    peer.connect(path_);
    return peer;
  };
  zmq::socket_t first = connect();
  first.send(zmq::str_buffer("1"), zmq::send_flags::none);
  ASSERT_TRUE(server->Receive(kWait).has_value());
  zmq::socket_t second =
      connect();  // the first connection still stands, as after a half-open failure
  second.send(zmq::str_buffer("2"), zmq::send_flags::none);
  auto received = server->Receive(kWait);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(received->peer, "the-actor");
  ASSERT_TRUE(server->Send("the-actor", "for the second").ok());
  second.set(zmq::sockopt::rcvtimeo, 5000);
  zmq::message_t message;
  ASSERT_TRUE(second.recv(message).has_value());
  EXPECT_EQ(message.to_string(), "for the second");
}

TEST_F(SocketTest, AnotherKeyCannotSpeakUnderAnAddressInUse) {
  auto server = BindAll({"tcp://127.0.0.1:0"});
  zmq::context_t context;
  auto connect = [&](const KeyPair& key) {
    zmq::socket_t peer(context, zmq::socket_type::dealer);
    peer.set(zmq::sockopt::linger, 0);
    peer.set(zmq::sockopt::routing_id, "the-actor");
    peer.set(zmq::sockopt::curve_serverkey, keys_.broker.public_key);
    peer.set(zmq::sockopt::curve_publickey, key.public_key);
    peer.set(zmq::sockopt::curve_secretkey, key.secret_key);
    peer.connect(server->endpoints()[0]);
    return peer;
  };
  zmq::socket_t actor = connect(keys_.actor);
  actor.send(zmq::str_buffer("1"), zmq::send_flags::none);
  ASSERT_TRUE(server->Receive(kWait).has_value());
  zmq::socket_t thief = connect(keys_.learner);
  thief.send(zmq::str_buffer("2"), zmq::send_flags::none);
  ServeUntil(*server, [&] { return server->malformed() == 1; });
  EXPECT_FALSE(last_.has_value());
}

TEST_F(SocketTest, WakeEndsAWaitFromAnotherThread) {
  auto server = BindAll({path_});
  auto client = ConnectTo(path_);
  auto begin = std::chrono::steady_clock::now();
  std::thread waker([&] {
    server->Wake();
    client->Wake();
  });
  EXPECT_FALSE(server->Receive(60s).has_value());
  EXPECT_FALSE(client->Receive(60s).has_value());
  waker.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
}

TEST_F(SocketTest, ReceiveKeepsItsDeadline) {
  auto server = BindAll({path_});
  auto begin = std::chrono::steady_clock::now();
  EXPECT_FALSE(server->Receive(30ms).has_value());
  auto waited = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(waited, 30ms);
  EXPECT_LT(waited, 5s);
}

TEST_F(SocketTest, BusyEndpointsAreNamed) {
  auto server = BindAll({path_, "tcp://127.0.0.1:0"});
  for (const std::string& endpoint : server->endpoints()) {
    ServerOptions options;
    options.endpoints = {endpoint};
    options.keys = keys_;
    Status status = Server::Bind(options).status();
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    EXPECT_NE(status.message().find(endpoint), std::string::npos) << status.ToString();
  }
  // The first server still works: its socket file was not taken away.
  auto client = ConnectTo(path_);
  ASSERT_TRUE(client->Send("x").ok());
  EXPECT_TRUE(server->Receive(kWait).has_value());
}

TEST_F(SocketTest, StaleSocketFileOfADeadServerIsReplaced) {
  std::string file = path_.substr(6);
  int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  std::ofstream(file) << "left over";
  ::close(fd);
  auto server = BindAll({path_});
  auto client = ConnectTo(path_);
  ASSERT_TRUE(client->Send("x").ok());
  EXPECT_TRUE(server->Receive(kWait).has_value());
}

TEST_F(SocketTest, EndpointsThatCannotBeUsedAreRefused) {
  auto status_of = [&](const std::string& endpoint, bool keys) {
    ServerOptions options;
    if (!endpoint.empty()) options.endpoints = {endpoint};
    if (keys) options.keys = keys_;
    return Server::Bind(options).status().code();
  };
  EXPECT_EQ(status_of("", true), StatusCode::kInvalidArgument);
  EXPECT_EQ(status_of("inproc://x", true), StatusCode::kInvalidArgument);
  EXPECT_EQ(status_of("ipc://@abstract", true), StatusCode::kInvalidArgument);
  EXPECT_EQ(status_of("ipc:///" + std::string(200, 'x'), true), StatusCode::kInvalidArgument);
  EXPECT_EQ(status_of("tcp://127.0.0.1:0", false), StatusCode::kInvalidArgument);
  EXPECT_EQ(status_of("tcp://203.0.113.7:1", true), StatusCode::kInvalidArgument);
  EXPECT_EQ(status_of("tcp://nonsense", true), StatusCode::kInvalidArgument);
  ::chmod(folder_.c_str(), 0755);
  EXPECT_EQ(status_of(path_, true), StatusCode::kPermissionDenied);
  ClientOptions options;
  for (const char* endpoint : {"tcp://127.0.0.1:1", "udp://x", ""}) {
    options.endpoint = endpoint;  // tcp: without keys
    EXPECT_EQ(Client::Connect(options).status().code(), StatusCode::kInvalidArgument) << endpoint;
  }
}

}  // namespace
}  // namespace thresher::net
