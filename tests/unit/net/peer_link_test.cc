#include "common/net/peer_link.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <optional>

#include "common/base/hash.h"
#include "common/net/socket.h"
#include "common/wire/frame.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A link to a broker that wants a heartbeat each minute.
class PeerLinkTest : public ::testing::Test {
 protected:
  PeerLinkTest() {
    ServerOptions options;
    std::filesystem::permissions(folder_.path(), std::filesystem::perms::owner_all);
    options.endpoints = {"ipc://" + (folder_ / "broker").string()};
    server_ = Server::Bind(options).value();
    PeerLinkOptions link;
    link.endpoint = options.endpoints[0];
    link.run_id = HashText128("the run");
    link.incarnation = Incarnation(1);
    auto heartbeat = [this] {
      wire::Heartbeat beat;
      beat.progress = progress_;
      return beat;
    };
    link_ = std::make_unique<PeerLink>(
        link, [] { return wire::Hello(); }, heartbeat, [](wire::Message) {}, [](Status) {});
    link_->Start();
  }

  // The next message within `patience`, if there is one.
  std::optional<wire::Message> Next(milliseconds patience) {
    auto received = server_->Receive(patience);
    if (!received) return std::nullopt;
    peer_ = received->peer;
    return wire::DecodeFrame(received->bytes, 1 << 20)->message;
  }
  void Welcome() {
    wire::Welcome welcome;
    welcome.heartbeat_ms = 60000;
    const auto frame =
        wire::EncodeFrame({HashText128("the run"), Incarnation(2), 1}, wire::Message(welcome));
    ASSERT_TRUE(server_->Send(peer_, *frame).ok());
  }
  std::optional<std::uint64_t> NextProgress(milliseconds patience) {
    const auto message = Next(patience);
    const auto* beat = message ? std::get_if<wire::Heartbeat>(&*message) : nullptr;
    return beat != nullptr ? std::optional(beat->progress) : std::nullopt;
  }

  TempFolder folder_;
  std::unique_ptr<Server> server_;
  std::atomic<std::uint64_t> progress_{1};
  PeerAddress peer_;
  std::unique_ptr<PeerLink> link_;
};

TEST_F(PeerLinkTest, AHeartbeatThatIsWantedSoonIsSentAtOnceAndOnce) {
  ASSERT_TRUE(std::holds_alternative<wire::Hello>(*Next(seconds(20))));
  Welcome();
  EXPECT_EQ(NextProgress(seconds(20)), 1u) << "the first, as soon as it is welcome";
  EXPECT_EQ(Next(milliseconds(200)), std::nullopt) << "the next is due in a minute";
  progress_ = 2;
  link_->BeatSoon();
  EXPECT_EQ(NextProgress(seconds(20)), 2u);
  EXPECT_EQ(Next(milliseconds(200)), std::nullopt);
}

}  // namespace
}  // namespace thresher::net
