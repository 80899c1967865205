// Keys, tokens, rendezvous and socket folders.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "common/net/http.h"
#include "common/net/secret_file.h"
#include "common/net/socket.h"

namespace thresher::net {
namespace {

class NetFilesTest : public ::testing::Test {
 protected:
  NetFilesTest() {
    char pattern[] = "/tmp/thresher-net-XXXXXX";
    folder_ = ::mkdtemp(pattern);
  }
  ~NetFilesTest() override { std::filesystem::remove_all(folder_); }

  static unsigned ModeOf(const std::filesystem::path& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
  }
  static void Write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::trunc) << text;
  }

  std::filesystem::path folder_;
};

TEST_F(NetFilesTest, KeysAreMadeOncePrivateAndLoadedAgain) {
  KeyRing first = LoadOrCreateKeys(folder_ / "keys").value();
  KeyRing again = LoadOrCreateKeys(folder_ / "keys").value();
  EXPECT_EQ(first.actor.secret_key, again.actor.secret_key);
  EXPECT_EQ(first.broker.public_key, again.broker.public_key);
  std::set<std::string> different = {first.broker.public_key, first.actor.public_key,
                                     first.learner.public_key, first.tool.public_key};
  EXPECT_EQ(different.size(), 4u);
  EXPECT_EQ(ModeOf(folder_ / "keys"), 0700u);
  EXPECT_EQ(ModeOf(folder_ / "keys" / "actor.key"), 0600u);
}

TEST_F(NetFilesTest, MadeKeysArePrivateAndReplacedOnlyWhenAsked) {
  const auto folder = folder_ / "made";
  auto made = MakeKeys(folder, {"actor", "broker"}, false);
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  EXPECT_FALSE(std::filesystem::exists(folder / "learner.key"));
  EXPECT_EQ(std::filesystem::status(folder / "actor.key").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  const KeyRing ring = LoadOrCreateKeys(folder).value();
  EXPECT_EQ(ring.actor.public_key, made->at(0));
  EXPECT_EQ(ring.broker.public_key, made->at(1));

  std::filesystem::remove(folder / "tool.key");
  EXPECT_EQ(MakeKeys(folder, {"tool", "actor"}, false).status().code(), StatusCode::kAlreadyExists);
  EXPECT_FALSE(std::filesystem::exists(folder / "tool.key")) << "none is made then";
  auto again = MakeKeys(folder, {"actor"}, true);
  ASSERT_TRUE(again.ok());
  EXPECT_NE(again->at(0), made->at(0));
  const KeyRing after = LoadOrCreateKeys(folder).value();
  EXPECT_EQ(after.actor.public_key, again->at(0));
  EXPECT_EQ(after.broker.public_key, ring.broker.public_key);
  EXPECT_EQ(MakeKeys(folder, {"king"}, true).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(NetFilesTest, KeysOpenToOthersAreRefused) {
  ASSERT_TRUE(LoadOrCreateKeys(folder_ / "keys").ok());
  ::chmod((folder_ / "keys" / "tool.key").c_str(), 0640);
  Status status = LoadOrCreateKeys(folder_ / "keys").status();
  EXPECT_EQ(status.code(), StatusCode::kPermissionDenied);
  EXPECT_NE(status.message().find("tool.key"), std::string::npos);
  ::chmod((folder_ / "keys" / "tool.key").c_str(), 0600);
  ::chmod((folder_ / "keys").c_str(), 0755);
  EXPECT_EQ(LoadOrCreateKeys(folder_ / "keys").status().code(), StatusCode::kPermissionDenied);
}

TEST_F(NetFilesTest, LinksAreNotFollowedToSecrets) {
  KeyRing keys = LoadOrCreateKeys(folder_ / "keys").value();
  std::filesystem::rename(folder_ / "keys" / "tool.key", folder_ / "elsewhere");
  std::filesystem::create_symlink(folder_ / "elsewhere", folder_ / "keys" / "tool.key");
  EXPECT_EQ(LoadOrCreateKeys(folder_ / "keys").status().code(), StatusCode::kPermissionDenied);
}

TEST_F(NetFilesTest, DamagedKeysAreDataLoss) {
  KeyRing keys = LoadOrCreateKeys(folder_ / "keys").value();
  std::filesystem::path file = folder_ / "keys" / "actor.key";
  for (const std::string& text :
       {std::string(), keys.actor.public_key + "\n",
        keys.actor.public_key + "\n" + keys.tool.secret_key + "\n", std::string(5000, 'x'),
        std::string(40, ' ') + "\n" + std::string(40, '"') + "\n"}) {
    Write(file, text);
    EXPECT_EQ(LoadOrCreateKeys(folder_ / "keys").status().code(), StatusCode::kDataLoss) << text;
  }
}

TEST_F(NetFilesTest, TokenIsMadeOnceByRacingThreads) {
  std::vector<std::string> tokens(8);
  {
    std::vector<std::jthread> threads;
    for (auto& token : tokens) {
      threads.emplace_back([&] { token = LoadOrCreateToken(folder_.string()).value(); });
    }
  }
  for (const std::string& token : tokens) EXPECT_EQ(token, tokens[0]);
  EXPECT_EQ(tokens[0].size(), 64u);
  EXPECT_EQ(ModeOf(folder_ / "token"), 0600u);
  // No temporary names are left behind.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(NetFilesTest, TokenThatIsNoneIsRefused) {
  Write(folder_ / "token", "secret");
  ::chmod((folder_ / "token").c_str(), 0600);
  EXPECT_EQ(LoadOrCreateToken(folder_.string()).status().code(), StatusCode::kDataLoss);
  ::chmod((folder_ / "token").c_str(), 0644);
  EXPECT_EQ(LoadOrCreateToken(folder_.string()).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(LoadOrCreateToken((folder_ / "missing").string()).status().code(),
            StatusCode::kUnavailable);
}

TEST_F(NetFilesTest, RendezvousRoundTrips) {
  EXPECT_EQ(ReadRendezvous(folder_).status().code(), StatusCode::kNotFound);
  Rendezvous out{{"ipc:///a", "tcp://h:1"}, "127.0.0.1:5", "KEY\"", 18446744073709551615u, 42};
  ASSERT_TRUE(WriteRendezvous(folder_, out).ok());
  Rendezvous in = ReadRendezvous(folder_).value();
  EXPECT_EQ(in.endpoints, out.endpoints);
  EXPECT_EQ(in.http, out.http);
  EXPECT_EQ(in.broker_public_key, out.broker_public_key);
  EXPECT_EQ(in.epoch, out.epoch);
  EXPECT_EQ(in.pid, out.pid);
}

TEST_F(NetFilesTest, DamagedRendezvousIsDataLoss) {
  for (const char* text :
       {"", "{", "[]", "{}", "{\"endpoints\": 5}", "null",
        "{\"endpoints\":[1],\"http\":\"\",\"broker_public_key\":\"\",\"epoch\":1,\"pid\":1}"}) {
    Write(folder_ / "rendezvous.json", text);
    EXPECT_EQ(ReadRendezvous(folder_).status().code(), StatusCode::kDataLoss) << text;
  }
}

TEST_F(NetFilesTest, SocketFolderIsPrivateShortAndStable) {
  std::filesystem::path near = SocketFolder(folder_);
  EXPECT_EQ(near, std::filesystem::canonical(folder_) / "sockets");
  EXPECT_EQ(ModeOf(near), 0700u);
  std::filesystem::path deep = folder_ / std::string(100, 'd');
  std::filesystem::create_directories(deep);
  std::filesystem::path far = SocketFolder(deep);
  EXPECT_LE(far.string().size(), 82u);
  EXPECT_EQ(far, SocketFolder(deep / "."));
  EXPECT_EQ(ModeOf(far), 0700u);
  EXPECT_NE(far, SocketFolder(folder_ / std::string(100, 'e')));
  RemoveSocketFolder(folder_ / std::string(100, 'e'));
  RemoveSocketFolder(deep);
  EXPECT_FALSE(std::filesystem::exists(far));
  RemoveSocketFolder(folder_);
  EXPECT_FALSE(std::filesystem::exists(near));
}

TEST_F(NetFilesTest, ComparisonOfSecrets) {
  EXPECT_TRUE(EqualInConstantTime("abc", "abc"));
  EXPECT_FALSE(EqualInConstantTime("abd", "abc"));
  EXPECT_FALSE(EqualInConstantTime("", "abc"));
  EXPECT_FALSE(EqualInConstantTime("abcabc", "abc"));
  EXPECT_FALSE(EqualInConstantTime("abc", ""));
  EXPECT_TRUE(EqualInConstantTime("", ""));
}

}  // namespace
}  // namespace thresher::net
