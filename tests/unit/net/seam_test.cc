// What a simulation puts in the network's place, and the inbox behind a link.
#include <gtest/gtest.h>

#include <thread>

#include "common/net/inbox.h"
#include "common/net/socket.h"
#include "tests/support/deaf_transport.h"

namespace thresher::net {
namespace {

using std::chrono::milliseconds;

wire::Message Rejoin() { return wire::Rejoin{}; }
wire::Message Goodbye(const std::string& reason) { return wire::Goodbye{reason}; }
std::string ReasonOf(const wire::Message& message) {
  return std::get<wire::Goodbye>(message).reason;
}

TEST(Inbox, HandsOverInOrder) {
  Inbox inbox;
  for (const char* reason : {"a", "b", "c"}) inbox.Put(Goodbye(reason));
  EXPECT_EQ(ReasonOf(**inbox.TakeOne(milliseconds(0))), "a");
  const auto rest = *inbox.TakeAll(milliseconds(0));
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(ReasonOf(rest[0]) + ReasonOf(rest[1]), "bc");
  EXPECT_TRUE(inbox.TakeAll(milliseconds(0))->empty());
  EXPECT_EQ(*inbox.TakeOne(milliseconds(0)), nullptr);
}

TEST(Inbox, FailureComesAfterTheMessagesAndStays) {
  Inbox inbox;
  inbox.Put(Rejoin());
  inbox.Fail(PermissionDenied("refused"));
  EXPECT_TRUE(inbox.TakeOne(milliseconds(0)).ok());
  EXPECT_EQ(inbox.TakeOne(milliseconds(0)).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(inbox.TakeAll(milliseconds(0)).status().code(), StatusCode::kPermissionDenied);
}

TEST(Inbox, WaiterIsWokenByAMessage) {
  Inbox inbox;
  std::jthread other([&] { inbox.Put(Rejoin()); });
  EXPECT_NE(*inbox.TakeOne(std::chrono::minutes(1)), nullptr);
}

TEST(Inbox, WaitEndsWithNothing) {
  Inbox inbox;
  const TimePoint begin = SystemClock().Now();
  EXPECT_TRUE(inbox.TakeAll(milliseconds(20))->empty());
  EXPECT_GE(SystemClock().Now() - begin, milliseconds(20));
}

TEST(Transport, ServersAndClientsAreItsOwnOnThisThreadAlone) {
  ServerOptions server;
  server.endpoints = {"ipc:///no-machine-has-this/broker"};
  ClientOptions client;
  client.endpoint = "moon";
  {
    DeafTransport transport;
    auto bound = Server::Bind(server);
    ASSERT_TRUE(bound.ok());
    EXPECT_EQ((*bound)->endpoints(), server.endpoints);
    EXPECT_EQ(Client::Connect(client).status().code(), StatusCode::kNotFound);
    std::thread([&] {
      EXPECT_EQ(Client::Connect(client).status().code(), StatusCode::kInvalidArgument);
    }).join();
  }
  EXPECT_FALSE(Server::Bind(server).ok());
  EXPECT_EQ(Client::Connect(client).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace thresher::net
